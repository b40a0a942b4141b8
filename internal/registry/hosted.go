package registry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"

	"uenv-ci.dev/internal/fault"
)

// hosted is a repository of a remote registry. Listing and looking for blobs is
// left to oras-go; transfers are our own, because they resume.
type hosted struct {
	server *server
	repo   *remote.Repository
}

func (h *hosted) fail(err error) error { return failure(err, h.server.host) }

// url returns the address of something in this repository.
func (h *hosted) url(elem ...string) string {
	u := url.URL{Scheme: h.server.scheme, Host: h.server.host}
	u.Path = "/v2/" + h.repo.Reference.Repository + "/" + strings.Join(elem, "/")
	return u.String()
}

// pull and push name what a token must allow.
func (h *hosted) pull(ctx context.Context) context.Context {
	return auth.AppendRepositoryScope(ctx, h.repo.Reference, auth.ActionPull)
}

func (h *hosted) push(ctx context.Context) context.Context {
	return auth.AppendRepositoryScope(ctx, h.repo.Reference, auth.ActionPull, auth.ActionPush)
}

// request sends a request and returns the answer if its status is one of those
// expected; the caller closes the body then.
func (h *hosted) request(req *http.Request, expected ...int) (*http.Response, error) {
	resp, err := h.server.client.Do(req)
	if err != nil {
		return nil, h.fail(err)
	}
	for _, code := range expected {
		if resp.StatusCode == code {
			return resp, nil
		}
	}
	defer resp.Body.Close()
	if from := resp.Request.URL.Host; from != req.URL.Host { // a signature that expired: the registry gives another
		return nil, fault.New(fault.Network, "the storage behind the registry, %s, answered %s", from, clean(resp.Status))
	}
	return nil, unexpected(resp, h.server.host)
}

// manifestTypes is what we can use, in the order of preference.
var manifestTypes = strings.Join([]string{
	ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, mediaTypeDockerManifest, mediaTypeDockerList,
}, ", ")

func (h *hosted) manifest(ctx context.Context, reference string) ([]byte, string, error) {
	req, err := http.NewRequestWithContext(h.pull(ctx), http.MethodGet, h.url("manifests", reference), nil)
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("Accept", manifestTypes)
	resp, err := h.request(req, http.StatusOK)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, MaxManifest+1))
	if err != nil {
		return nil, "", h.fail(err)
	}
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch {
	case !isManifest(ocispec.Descriptor{MediaType: mediaType}):
		return nil, "", fault.New(fault.Network, "the registry answered with %q instead of a manifest%s", clean(mediaType), htmlNote(resp))
	case len(data) > MaxManifest:
		return nil, "", fault.New(fault.Network, "the manifest has more than the %d bytes that are read", MaxManifest)
	}
	return data, mediaType, checkAnnounced(data, resp.Header.Get("Docker-Content-Digest"))
}

// checkAnnounced compares a manifest with the digest that the registry sent along.
// It proves nothing of the registry, but of the way from there: what a tag stands
// for has no other digest to be compared with.
func checkAnnounced(data []byte, header string) error {
	announced, err := digest.Parse(header)
	if err != nil {
		return nil // there is none, or not of a kind that we know
	}
	if got := announced.Algorithm().FromBytes(data); got != announced {
		return fault.New(fault.Network, "%w: its digest is %s, the registry announced %s", errContent, got, announced)
	}
	return nil
}

func (h *hosted) exists(ctx context.Context, d ocispec.Descriptor) (bool, error) {
	var where content.Resolver = h.repo.Blobs()
	if isManifest(d) {
		where = h.repo.Manifests()
	}
	found, err := where.Resolve(ctx, d.Digest.String())
	if err := h.fail(err); err != nil {
		if fault.KindOf(err) == fault.NotFound {
			return false, nil
		}
		return false, err
	}
	if found.Size != d.Size { // a login page has any digest
		return false, fault.New(fault.Network, "%w: the registry has %d bytes of type %q, not %d", errContent, found.Size, clean(found.MediaType), d.Size)
	}
	return true, nil
}

func (h *hosted) putManifest(ctx context.Context, d ocispec.Descriptor, data []byte, tag string) (bool, error) {
	reference := d.Digest.String()
	if tag != "" {
		reference = tag
	}
	req, err := http.NewRequestWithContext(h.push(ctx), http.MethodPut, h.url("manifests", reference), bytes.NewReader(data))
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", d.MediaType)
	resp, err := h.request(req, http.StatusCreated)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Docker-Content-Digest"); got != "" && got != d.Digest.String() {
		return false, fault.New(fault.Network, "the registry stored the manifest as %q, not %s", clean(got), d.Digest)
	}
	return resp.Header.Get("OCI-Subject") == subjectDigest(data), nil
}

// subjectDigest returns the digest of a manifest's subject, "" if it has none.
func subjectDigest(data []byte) string {
	if s := subjectOf(data); s != nil {
		return s.Digest.String()
	}
	return ""
}

func (h *hosted) referrers(ctx context.Context, subject ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if h.server.noReferrers.Load() {
		return nil, nil
	}
	var found []ocispec.Descriptor
	err := h.repo.Referrers(ctx, subject, "", func(page []ocispec.Descriptor) error {
		found = append(found, page...)
		return nil
	})
	if isUnsupported(err) {
		h.server.noReferrers.Store(true)
		return nil, nil
	}
	err = h.fail(err)
	if kind := fault.KindOf(err); kind == fault.Refused || isStatus(err, http.StatusBadRequest) {
		h.server.noReferrers.Store(true) // some do not know the path at all
		return nil, nil
	} else if err != nil && kind != fault.NotFound {
		return nil, err
	}
	return found, nil
}

// keepsNoReferrers tells whether the registry was found to list no referrers by itself.
func (p *Repository) keepsNoReferrers() bool {
	h, ok := p.store.(*hosted)
	return ok && h.server.noReferrers.Load()
}

func (h *hosted) tags(ctx context.Context) ([]string, error) {
	var found []string
	err := h.repo.Tags(ctx, "", func(page []string) error {
		found = append(found, page...)
		return nil
	})
	return found, h.fail(err)
}

func (h *hosted) remove(ctx context.Context, d ocispec.Descriptor) error {
	return h.delete(ctx, d.Digest.String())
}

func (h *hosted) delete(ctx context.Context, reference string) error {
	ctx = auth.AppendRepositoryScope(ctx, h.repo.Reference, auth.ActionPull, auth.ActionDelete)
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, h.url("manifests", reference), nil)
	if err != nil {
		return err
	}
	resp, err := h.request(req, http.StatusAccepted)
	if fault.KindOf(err) == fault.Refused {
		return fault.WithHint(err, "this registry does not allow deletion: ask who runs %s", h.server.host)
	}
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

func (h *hosted) dropTag(ctx context.Context, tag string) (bool, error) {
	err := h.delete(ctx, tag)
	switch {
	case fault.KindOf(err) == fault.NotFound:
		return true, nil
	case isStatus(err, http.StatusBadRequest), isStatus(err, http.StatusMethodNotAllowed):
		return false, nil
	}
	return err == nil, err
}

// untag deletes a tag. Registries that only delete by digest (distribution 2)
// lose the tag together with a manifest made for that purpose.
func (h *hosted) untag(ctx context.Context, tag string) error {
	if _, _, err := h.manifest(ctx, tag); err != nil {
		return err
	}
	if dropped, err := h.dropTag(ctx, tag); dropped || err != nil {
		return err
	}
	data := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[],"annotations":{"dev.uenv-ci.removed":%q}}`, ocispec.MediaTypeImageIndex, tag)
	d := descriptorOf(ocispec.MediaTypeImageIndex, data)
	if _, err := h.putManifest(ctx, d, data, tag); err != nil {
		return err
	}
	return h.remove(ctx, d)
}

func (h *hosted) lock(ctx context.Context, subject digest.Digest) (func(), error) {
	key := digest.FromString(h.server.host + "/" + h.repo.Reference.Repository + "@" + subject.String())
	return userLock(ctx, "referrers-"+key.Encoded()[:2]) // few files, rarely shared
}
