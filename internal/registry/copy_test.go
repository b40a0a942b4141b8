package registry_test

import (
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/registry"
	. "uenv-ci.dev/internal/registrytest"
)

// A promotion of an image with three referrers and one more referrer, the record
// of it, is cheap enough to be done for whole fleets.
func TestRequestsOfAPromotion(t *testing.T) {
	const referrers = 3
	for kind, most := range map[Kind]int{Referrers: 10 + 4*referrers, Docker: 15 + 4*referrers} {
		t.Run(string(kind), func(t *testing.T) {
			var seen Counter
			address := Start(t, kind, seen.Middleware())
			fill := backend{address: address}.open(t)
			p := repository(t, fill, "build/hello/1.0")
			d := push(t, p, artifact(image, "hello", nil))
			for i := range referrers {
				push(t, p, artifact(result, fmt.Sprint(i), &d))
			}
			if err := p.Tag(t.Context(), d, "v1"); err != nil {
				t.Fatal(err)
			}
			seen.Reset()
			r := backend{address: address}.open(t)
			src, dst := repository(t, r, "build/hello/1.0"), repository(t, r, "deploy/hello/1.0")
			d, err := src.Resolve(t.Context(), "v1")
			if err != nil {
				t.Fatal(err)
			}
			record := artifact("uenv/promotion", "promoted", &d)
			if _, err := registry.Copy(t.Context(), src, d, dst, registry.CopyOptions{Tag: "v1", Attach: []registry.Artifact{record}}); err != nil {
				t.Fatal(err)
			}
			if seen.Count("") > most {
				t.Errorf("%d requests, more than %d:\n%s", seen.Count(""), most, &seen)
			}
			if list, err := dst.Referrers(t.Context(), d, ""); err != nil || len(list) != referrers+1 {
				t.Errorf("%d referrers of the copy: %v", len(list), err)
			}
		})
	}
}

func TestCopyOfWhatIsNotThere(t *testing.T) {
	backends(t, func(t *testing.T, b backend) {
		r := b.open(t)
		d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("gone"), Size: 4}
		_, err := registry.Copy(t.Context(), repository(t, r, "a"), d, repository(t, r, "b"), registry.CopyOptions{Tag: "v1"})
		wantKind(t, err, fault.NotFound)
		_, err = repository(t, r, "b").Resolve(t.Context(), "v1")
		wantKind(t, err, fault.NotFound)
	})
}

// What fails on the way leaves no tag.
func TestFailedCopyLeavesNoTag(t *testing.T) {
	address := Start(t, Referrers, Faults(Rule{Method: "PUT", Path: "deploy/.*/manifests/sha256", Skip: 2, Fault: Status(403)}))
	r := backend{address: address}.open(t)
	src, dst := repository(t, r, "build/hello/1.0"), repository(t, r, "deploy/hello/1.0")
	d, _ := pushFamily(t, src)
	_, err := registry.Copy(t.Context(), src, d, dst, registry.CopyOptions{Tag: "v1"})
	wantKind(t, err, fault.Unauthorized)
	_, err = dst.Resolve(t.Context(), "v1")
	wantKind(t, err, fault.NotFound)
}
