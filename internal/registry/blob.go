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

// blob opens a blob from offset on. A registry that ignores ranges sends it all;
// what comes before offset is thrown away then.
func (h *hosted) blob(ctx context.Context, d ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(h.pull(ctx), http.MethodGet, h.url("blobs", d.Digest.String()), nil)
	if err != nil {
		return nil, err
	}
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, d.Size-1))
	}
	resp, err := h.request(req, http.StatusOK, http.StatusPartialContent)
	if err != nil {
		return nil, err
	}
	skip, err := checkBody(resp, d, offset)
	body := &answer{resp.Body, h.server.host}
	if err == nil {
		_, err = io.CopyN(io.Discard, body, skip)
	}
	if err != nil {
		body.Close()
		return nil, err
	}
	return body, nil
}

// checkBody compares the header of a blob's answer with what was asked for, and
// returns how many bytes come before offset.
func checkBody(resp *http.Response, d ocispec.Descriptor, offset int64) (skip int64, err error) {
	want := d.Size - offset
	if resp.StatusCode == http.StatusOK {
		skip, want = offset, d.Size
	} else if first, _, total, err := parseContentRange(resp.Header.Get("Content-Range")); err != nil || first != offset || total >= 0 && total != d.Size {
		return 0, fault.New(fault.Network, "the registry sent the range %q of a blob of %d bytes, asked for from %d on",
			clean(resp.Header.Get("Content-Range")), d.Size, offset)
	}
	if resp.ContentLength >= 0 && resp.ContentLength != want {
		return 0, fault.New(fault.Network, "%w: the registry announces %d bytes, not %d%s", errContent, resp.ContentLength, want, htmlNote(resp))
	}
	return skip, nil
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

// answer is a body whose errors say what failed.
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

// resumer reads a blob and opens it again where it broke.
type resumer struct {
	ctx     context.Context
	store   store
	d       ocispec.Descriptor
	options RetryOptions

	rc       io.ReadCloser
	offset   int64
	failures int // since the last byte arrived
}

func (r *resumer) Read(b []byte) (int, error) {
	for {
		n, err := r.rc.Read(b)
		if n > 0 {
			r.offset += int64(n)
			r.failures = 0
			return n, nil // an error shows again, or the blob is resumed
		}
		if err == nil || errors.Is(err, io.EOF) && r.offset >= r.d.Size {
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

// reopen continues after cause, or returns it when that is hopeless.
func (r *resumer) reopen(cause error) error {
	for {
		r.failures++
		if r.ctx.Err() != nil {
			return context.Cause(r.ctx)
		}
		if fault.KindOf(cause) != fault.Network || r.failures >= r.options.attempts() {
			return cause
		}
		if err := pause(r.ctx, backOff(r.failures, r.options)); err != nil {
			return err
		}
		r.rc.Close()
		rc, err := r.store.blob(r.ctx, r.d, r.offset)
		if err == nil {
			r.rc = rc
			return nil
		}
		r.rc, cause = http.NoBody, err
	}
}

func (r *resumer) Close() error { return r.rc.Close() }
