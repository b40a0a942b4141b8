package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
)

// errRange marks a registry, or something before it, that gets ranges wrong.
var errRange = errors.New("the registry did not honour the requested range")

// blob opens a part of a blob. The part is asked for only if it is not the whole.
func (h *hosted) blob(ctx context.Context, d ocispec.Descriptor, offset, length int64) (io.ReadCloser, bool, error) {
	req, err := http.NewRequestWithContext(h.pull(ctx), http.MethodGet, h.url("blobs", d.Digest.String()), nil)
	if err != nil {
		return nil, false, err
	}
	req.Header.Set("Accept-Encoding", "identity")
	whole := offset == 0 && length == d.Size
	if !whole {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, offset+length-1))
	}
	resp, err := h.request(req, http.StatusOK, http.StatusPartialContent)
	if err != nil {
		return nil, false, err
	}
	body := &answer{resp.Body, h.server.host}
	ranged := resp.StatusCode == http.StatusPartialContent
	if !ranged {
		offset, length = 0, d.Size
	}
	if err := checkBody(resp, d, offset, length); err != nil {
		body.Close()
		return nil, false, err
	}
	return body, ranged || whole, nil
}

// checkBody compares the header of a blob's answer with the part it should be.
func checkBody(resp *http.Response, d ocispec.Descriptor, offset, length int64) error {
	if encoding := resp.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return fault.New(fault.Network, "%w: it comes encoded as %q", errRange, clean(encoding))
	}
	if resp.StatusCode == http.StatusPartialContent {
		header := resp.Header.Get("Content-Range")
		first, last, total, err := parseContentRange(header)
		if err != nil || first != offset || last >= offset+length || total >= 0 && total != d.Size {
			return fault.New(fault.Network, "%w: %q of %d bytes, asked for from %d on", errRange, clean(header), d.Size, offset)
		}
		length = last - first + 1 // it may be less
	}
	if resp.ContentLength >= 0 && resp.ContentLength != length {
		return fault.New(fault.Network, "%w: the registry announces %d bytes, not %d%s", errContent, resp.ContentLength, length, htmlNote(resp))
	}
	return nil
}

// parseContentRange reads "bytes FIRST-LAST/TOTAL" (RFC 9110); an unknown total
// is -1.
func parseContentRange(header string) (first, last, total int64, err error) {
	var size string
	if _, err := fmt.Sscanf(header, "bytes %d-%d/%s", &first, &last, &size); err != nil {
		return 0, 0, 0, fmt.Errorf("bad Content-Range: %w", err)
	}
	total = -1
	if size != "*" {
		if _, err := fmt.Sscanf(size, "%d", &total); err != nil {
			return 0, 0, 0, fmt.Errorf("bad Content-Range: %w", err)
		}
	}
	if first < 0 || last < first {
		return 0, 0, 0, errors.New("bad Content-Range: it is empty")
	}
	return first, last, total, nil
}

// answer is a body that says what failed.
type answer struct {
	io.ReadCloser
	host string
}

func (a *answer) Read(b []byte) (int, error) {
	n, err := a.ReadCloser.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		err = failure(err, a.host)
	}
	return n, err
}

// headway is how much has to be moved between two breaks, in bytes, for the later
// one not to count as a repetition: a connection that always breaks after a few
// bytes never gets to the end.
const headway = 64 << 10

// resumer reads a part of a blob and opens it again where it broke.
type resumer struct {
	ctx     context.Context
	store   store
	d       ocispec.Descriptor
	options RetryOptions
	offset  int64 // of the next byte
	end     int64
	strict  bool // errNoRanges instead of reading, in vain, what comes before

	rc       io.ReadCloser
	arrived  int64 // since the last failure, in bytes
	failures int   // with less than headway in between
	noRanges bool  // the registry gets them wrong
}

func (r *resumer) Read(b []byte) (int, error) {
	for {
		if r.offset >= r.end && r.end < r.d.Size {
			return 0, io.EOF
		}
		n, err := r.rc.Read(b)
		if n > 0 {
			r.offset += int64(n)
			r.arrived += int64(n)
			return n, nil // an error shows again, or the blob is resumed
		}
		if err == nil || errors.Is(err, io.EOF) && r.offset >= r.end {
			return 0, err
		}
		if errors.Is(err, io.EOF) {
			err = fault.New(fault.Network, "the connection ended after %d of %d bytes: %w", r.offset, r.d.Size, io.ErrUnexpectedEOF)
		}
		if err := r.reopen(err); err != nil {
			return 0, err
		}
	}
}

// start opens the blob for the first time. Requests repeat themselves.
func (r *resumer) start() error {
	err := r.open()
	if errors.Is(err, errRange) && !r.strict {
		return r.reopen(err)
	}
	return err
}

// reopen continues after cause, or returns it when that is hopeless. The request
// that opens the blob repeats itself.
func (r *resumer) reopen(cause error) error {
	for {
		if r.arrived >= headway {
			r.failures = 0
		}
		r.arrived = 0
		r.failures++
		r.noRanges = r.noRanges || errors.Is(cause, errRange)
		if r.ctx.Err() != nil {
			return ended(r.ctx)
		}
		if fault.KindOf(cause) != fault.Network || r.failures >= r.options.attempts() {
			return cause
		}
		if err := pause(r.ctx, backOff(r.failures, r.options)); err != nil {
			return err
		}
		r.Close()
		cause = r.open()
		if !errors.Is(cause, errRange) || r.strict {
			return cause
		}
	}
}

// open opens the blob at the present offset. What a registry sends before it,
// since it ignores ranges, is thrown away.
func (r *resumer) open() error {
	r.rc = http.NoBody
	offset, end := r.offset, r.end
	if r.noRanges {
		offset, end = 0, r.d.Size
	}
	rc, ranged, err := r.store.blob(r.ctx, r.d, offset, end-offset)
	if r.strict && (errors.Is(err, errRange) || err == nil && !ranged) {
		if err == nil {
			rc.Close()
		}
		return errNoRanges
	}
	if err != nil {
		return err
	}
	skip := r.offset - offset
	if !ranged {
		skip = r.offset
	}
	if _, err := io.CopyN(io.Discard, rc, skip); err != nil {
		rc.Close()
		return err
	}
	r.rc = rc
	return nil
}

func (r *resumer) Close() error { return r.rc.Close() }
