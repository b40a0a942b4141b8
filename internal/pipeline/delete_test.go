package pipeline

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/image"
	"uenv-ci.dev/internal/lifecycle"
	"uenv-ci.dev/internal/plan"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/registrytest"
)

// A deleted image is not found by its content key any more, or a build would bring
// it back.
func TestDeleteForgetsTheKey(t *testing.T) {
	reg := openRegistry(t, "oci:"+t.TempDir())
	key := strings.Repeat("5e", 32)
	found, _ := release(t, reg, "build::x/1:1@s%u", makeStore(t, nil), image.PublishOptions{Key: key})
	store := keyStore{registry: reg, label: found.Label}
	if _, err := store.record(t.Context(), key, found); err != nil {
		t.Fatal(err)
	}
	if hit, err := store.find(t.Context(), key); err != nil || hit == nil {
		t.Fatalf("before: %v, %v", hit, err)
	}
	for _, dry := range []bool{true, false} {
		d, err := Delete(t.Context(), reg, found.Label, dry)
		if err != nil || len(d.Images) != 1 || d.Images[0].Key != key || d.DryRun != dry {
			t.Fatalf("%+v, %v", d, err)
		}
		hit, err := store.find(t.Context(), key)
		if err != nil || (hit != nil) != dry {
			t.Errorf("dry %v: %v, %v", dry, hit, err)
		}
		if _, err := Locate(t.Context(), reg, found.Label, ""); (err == nil) != dry {
			t.Errorf("dry %v: %v", dry, err)
		}
	}
	keys, err := store.repository(false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Resolve(t.Context(), plan.KeyTag(key)); fault.KindOf(err) != fault.NotFound {
		t.Errorf("the key: %v", err)
	}
}

// A deletion that is refused leaves the key too.
func TestRefusedDeletionKeepsTheKey(t *testing.T) {
	reg := openRegistry(t, "oci:"+t.TempDir())
	key := strings.Repeat("5e", 32)
	found, _ := release(t, reg, "build::x/1:1@s%u", makeStore(t, nil), image.PublishOptions{Key: key})
	store := keyStore{registry: reg, label: found.Label}
	if _, err := store.record(t.Context(), key, found); err != nil {
		t.Fatal(err)
	}
	doomed, err := lifecycle.Examine(t.Context(), found.Repo, "1")
	if err != nil {
		t.Fatal(err)
	}
	if err := found.Repo.Tag(t.Context(), found.Descriptor, "2"); err != nil {
		t.Fatal(err)
	}
	if err := remove(t.Context(), reg, found.Label, doomed); fault.KindOf(err) != fault.Refused {
		t.Errorf("got another tag: %v", err)
	}
	if hit, err := store.find(t.Context(), key); err != nil || hit == nil {
		t.Errorf("the key: %v, %v", hit, err)
	}
}

func TestPruneOfANamespace(t *testing.T) {
	for _, kind := range registrytest.InProcess {
		reg := openRegistry(t, registrytest.Start(t, kind))
		for i, name := range []string{"build::x/1:%d@s%%u", "build::xy/2:%d@s%%u", "deploy::x/1:%d@s%%u", "build::z/1:%d@s%%u"} {
			for tag := range 2 {
				publish(t, reg, fmt.Append(nil, i, tag), fmt.Sprintf(name, tag))
			}
		}
		o := PruneOptions{Retention: lifecycle.Retention{OlderThan: LeastAge, Keep: 1, Now: time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)}}
		for _, o.Dry = range []bool{true, false} {
			d, err := Prune(t.Context(), reg, parse(t, "build::x"), o)
			if err != nil || len(d.Images) != 2 || d.Stay != 2 {
				t.Fatalf("%s: %+v, %v", kind, d, err)
			}
		}
		left := 0
		for _, name := range []string{"build::x/1:%d@s%%u", "build::xy/2:%d@s%%u", "deploy::x/1:%d@s%%u", "build::z/1:%d@s%%u"} {
			for tag := range 2 {
				_, err := Locate(t.Context(), reg, parse(t, fmt.Sprintf(name, tag)), "")
				if err == nil {
					left++
				} else if fault.KindOf(err) != fault.NotFound {
					t.Error(err)
				}
			}
		}
		if left != 6 {
			t.Errorf("%s: %d images are left, not 6", kind, left)
		}
	}
}

// lose replaces the list behind a fallback tag by an empty one, as a writer on
// another host does that read it before the last entries came.
func lose(t *testing.T, address string, found Found) {
	t.Helper()
	body := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
	tag := strings.Replace(found.Descriptor.Digest.String(), ":", "-", 1)
	req, err := http.NewRequest(http.MethodPut, "http://"+address+"/v2/"+found.Repo.Name()+"/manifests/"+tag, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", ocispec.MediaTypeImageIndex)
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("%v, %v", resp, err)
	}
	resp.Body.Close()
}

func TestRelistRestoresWhatWasLost(t *testing.T) {
	address := registrytest.Start(t, registrytest.Docker)
	reg := openRegistry(t, address)
	found := publish(t, reg, []byte("image"), "build::x/1:1@s%u")
	note := func(text string) digest.Digest {
		d, err := image.Attach(t.Context(), found.Repo, found.Descriptor, image.Attachment{Type: "text/x-note", Created: time.Now(), Layers: []registry.Layer{registry.BytesLayer("note", "", []byte(text))}})
		if err != nil {
			t.Fatal(err)
		}
		return d.Digest
	}
	note("copied")
	other, err := reg.Repository("deploy/s/u/x/1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := registry.Copy(t.Context(), found.Repo, found.Descriptor, other, registry.CopyOptions{Tag: "v1"}); err != nil {
		t.Fatal(err)
	}
	later := note("later")
	lose(t, address, found)
	if refs, err := found.Repo.Referrers(t.Context(), found.Descriptor, ""); err != nil || len(refs) != 0 {
		t.Fatalf("nothing was lost: %v, %v", refs, err)
	}
	r, err := Relist(t.Context(), reg, found, []string{"deploy", "build"}, nil)
	if err != nil || r.Restored != 2 || r.Listed != 2 || !slices.Equal(r.Asked, []string{"deploy/s/u/x/1"}) {
		t.Errorf("%+v, %v", r, err)
	}
	r, err = Relist(t.Context(), reg, found, []string{"deploy"}, []digest.Digest{later})
	if err != nil || r.Restored != 1 || r.Listed != 3 {
		t.Errorf("%+v, %v", r, err)
	}
	stranger := publish(t, reg, []byte("another"), "build::x/1:2@s%u")
	if _, err = Relist(t.Context(), reg, found, nil, []digest.Digest{stranger.Descriptor.Digest}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("what is not attached: %v", err)
	}
	if _, err = Relist(t.Context(), reg, found, nil, []digest.Digest{digest.FromString("none")}); fault.KindOf(err) != fault.NotFound {
		t.Errorf("what does not exist: %v", err)
	}
}
