package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote/auth"

	"uenv-ci.dev/internal/fault"
)

// streamFrom is the size in bytes from which a blob is sent with PATCH, whose
// interruption can be resumed on many registries; smaller ones take one PUT.
const streamFrom = 16 << 20

// putBlob uploads a blob, in a new session when one broke for a passing reason.
// Opening a session repeats itself.
func (h *hosted) putBlob(ctx context.Context, d ocispec.Descriptor, open opener) error {
	for attempt := 1; ; attempt++ {
		location, _, err := h.startUpload(ctx, url.Values{})
		if err != nil {
			return err
		}
		err = h.send(ctx, location, d, open)
		if err == nil || attempt >= h.server.retry.attempts() || !repeatable(err) {
			return err
		}
		h.server.events.Warn("registry", "upload of %s: %s: starting again", d.Digest, err)
		if err := pause(ctx, backOff(attempt, h.server.retry)); err != nil {
			return err
		}
	}
}

// repeatable tells whether an upload that failed with err may succeed later.
// Wrong content stays wrong.
func repeatable(err error) bool {
	return fault.KindOf(err) == fault.Network && !errors.Is(err, errContent) && !isStatus(err, http.StatusBadRequest)
}

// mount asks the registry to make a blob of another of its repositories known
// here. What cannot be mounted has to be uploaded.
func (h *hosted) mount(ctx context.Context, d ocispec.Descriptor, from store) (bool, error) {
	source, ok := from.(*hosted)
	if !ok || source.server.host != h.server.host || source.server.scheme != h.server.scheme {
		return false, nil
	}
	ctx = auth.AppendRepositoryScope(ctx, source.repo.Reference, auth.ActionPull)
	location, mounted, err := h.startUpload(ctx, url.Values{
		"mount": {d.Digest.String()},
		"from":  {source.repo.Reference.Repository},
	})
	switch kind := fault.KindOf(err); {
	case kind == fault.NotFound || isStatus(err, http.StatusBadRequest):
		return false, nil // not offered: the caller uploads, and hears what is wrong
	case err != nil || mounted:
		return mounted, err
	}
	h.cancel(ctx, location)
	return false, nil
}

// startUpload opens an upload session, or mounts a blob if the query says so.
func (h *hosted) startUpload(ctx context.Context, query url.Values) (location *url.URL, mounted bool, err error) {
	address := h.url("blobs", "uploads", "")
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(h.push(ctx), http.MethodPost, address, nil)
	if err != nil {
		return nil, false, err
	}
	resp, err := h.request(req, http.StatusAccepted, http.StatusCreated)
	if err != nil {
		return nil, false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusCreated {
		return nil, true, nil
	}
	location, err = nextLocation(resp)
	return location, false, err
}

// nextLocation returns where an upload goes on. It must be on the same server:
// the next request carries credentials.
func nextLocation(resp *http.Response) (*url.URL, error) {
	location, err := resp.Location()
	if err != nil {
		return nil, fault.New(fault.Network, "the registry does not say where to upload: %w", err)
	}
	asked := resp.Request.URL
	if location.Port() == "" && asked.Port() != "" && location.Hostname() == asked.Hostname() && location.Scheme == asked.Scheme {
		location.Host = asked.Host // servers behind a proxy may not know their port
	}
	if location.Host != asked.Host || location.Scheme != asked.Scheme {
		return nil, fault.New(fault.Network, "the registry sends the upload from %s://%s to %s://%s, which is not allowed",
			asked.Scheme, asked.Host, location.Scheme, location.Host)
	}
	return location, nil
}

// send puts the content into an upload session and closes it.
func (h *hosted) send(ctx context.Context, location *url.URL, d ocispec.Descriptor, open opener) (err error) {
	if d.Size >= streamFrom {
		if location, err = h.stream(ctx, location, d, open); err != nil {
			return err
		}
		return h.commit(ctx, location, d, nil)
	}
	body := func() (io.ReadCloser, error) { return uploadBody(open, 0) }
	if err := h.commit(ctx, location, d, body); err != nil {
		h.cancel(ctx, location)
		return err
	}
	return nil
}

// stream sends a blob with PATCH requests: one, and further ones from where the
// registry says it got when one breaks.
func (h *hosted) stream(ctx context.Context, location *url.URL, d ocispec.Descriptor, open opener) (*url.URL, error) {
	var offset int64
	for failures := 0; offset < d.Size; {
		next, received, err := h.patch(ctx, location, d, offset, open)
		if err != nil && repeatable(err) {
			next, received, err = h.progress(ctx, location, err, failures+1)
		}
		if err == nil && received > d.Size {
			err = fault.New(fault.Network, "the registry reports %d bytes of an upload of %d", received, d.Size)
		}
		if failures++; received >= offset+headway {
			failures = 0
		} else if err == nil && received < d.Size && failures >= h.server.retry.attempts() {
			err = fault.New(fault.Network, "the upload has stalled at %d of %d bytes", offset, d.Size)
		}
		if err != nil {
			h.cancel(ctx, location)
			return nil, err
		}
		location, offset = next, received
	}
	return location, nil
}

// patch sends everything from offset on and returns how far the registry got.
func (h *hosted) patch(ctx context.Context, location *url.URL, d ocispec.Descriptor, offset int64, open opener) (*url.URL, int64, error) {
	body := func() (io.ReadCloser, error) { return uploadBody(open, offset) }
	req, err := bodyRequest(h.push(ctx), http.MethodPatch, location.String(), body, d.Size-offset)
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Content-Range", fmt.Sprintf("%d-%d", offset, d.Size-1))
	resp, err := h.request(req, http.StatusAccepted, http.StatusNoContent, http.StatusCreated)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	return received(resp, d.Size)
}

// progress asks how far an upload got before cause interrupted it. If the registry
// cannot tell, or has discarded it, the caller has to start again.
func (h *hosted) progress(ctx context.Context, location *url.URL, cause error, failures int) (*url.URL, int64, error) {
	if err := pause(ctx, backOff(failures, h.server.retry)); err != nil {
		return nil, 0, err
	}
	req, err := http.NewRequestWithContext(h.push(ctx), http.MethodGet, location.String(), nil)
	if err != nil {
		return nil, 0, err
	}
	resp, err := h.request(req, http.StatusNoContent)
	if err != nil {
		return nil, 0, cause
	}
	defer resp.Body.Close()
	next, n, err := received(resp, 0)
	if err != nil || n <= 1 { // "0-0" stands for none as well as for one
		return nil, 0, cause
	}
	return next, n, nil
}

// received reads the answer to a part of an upload: where it goes on, and how
// many bytes are there. Without a Range header that is assumed.
func received(resp *http.Response, assumed int64) (*url.URL, int64, error) {
	location, err := nextLocation(resp)
	if err != nil {
		return nil, 0, err
	}
	header := resp.Header.Get("Range")
	if header == "" {
		return location, assumed, nil
	}
	first, last, ok := strings.Cut(strings.TrimPrefix(header, "bytes="), "-")
	end, err := strconv.ParseInt(last, 10, 64)
	if !ok || first != "0" || err != nil || end < 0 {
		return nil, 0, fault.New(fault.Network, "the registry reports the range %q of an upload", clean(header))
	}
	return location, end + 1, nil
}

// commit closes an upload with PUT, with the content if it was not sent before.
func (h *hosted) commit(ctx context.Context, location *url.URL, d ocispec.Descriptor, body opener) error {
	size := d.Size
	if body == nil {
		size = 0
	}
	u := *location
	query := u.Query()
	query.Set("digest", d.Digest.String())
	u.RawQuery = query.Encode()
	req, err := bodyRequest(h.push(ctx), http.MethodPut, u.String(), body, size)
	if err != nil {
		return err
	}
	resp, err := h.request(req, http.StatusCreated)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Docker-Content-Digest"); got != "" && got != d.Digest.String() {
		return fault.New(fault.Network, "the registry stored the blob as %q, not %s", clean(got), d.Digest)
	}
	return nil
}

// bodyRequest returns a request that is not repeated by itself, since a session
// remembers what it received. The body can be opened again, for when a server
// asks for credentials before it reads.
func bodyRequest(ctx context.Context, method, address string, open opener, size int64) (*http.Request, error) {
	req, err := http.NewRequestWithContext(withoutRetry(ctx), method, address, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	if open == nil || size == 0 {
		return req, nil
	}
	if req.Body, err = open(); err != nil {
		return nil, err
	}
	req.GetBody, req.ContentLength = open, size
	return req, nil
}

// uploadBody opens content at an offset. The registry compares the whole with its
// digest when the upload is closed; doing the same here would cost as much again.
func uploadBody(open opener, offset int64) (io.ReadCloser, error) {
	rc, err := open()
	if err != nil || offset == 0 {
		return rc, err
	}
	if seeker, ok := rc.(io.Seeker); ok {
		_, err = seeker.Seek(offset, io.SeekStart)
	} else {
		_, err = io.CopyN(io.Discard, rc, offset)
	}
	if err != nil {
		rc.Close()
		return nil, err
	}
	return rc, nil
}

// cancel gives up an upload session, so that the registry can forget it. It is
// done even after the user interrupted.
func (h *hosted) cancel(ctx context.Context, location *url.URL) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), cancelTimeout)
	defer stop()
	req, err := http.NewRequestWithContext(withoutRetry(h.push(ctx)), http.MethodDelete, location.String(), nil)
	if err != nil {
		return
	}
	if resp, err := h.server.client.Do(req); err == nil {
		resp.Body.Close()
	}
}
