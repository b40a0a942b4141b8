package lifecycle

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/registrytest"
)

var day0 = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// address of every kind of registry that is at hand.
func everyRegistry(t *testing.T, test func(t *testing.T, address string)) {
	t.Run("layout", func(t *testing.T) { test(t, "oci:"+t.TempDir()) })
	for _, kind := range append(slices.Clone(registrytest.InProcess), registrytest.Docker) {
		t.Run(string(kind), func(t *testing.T) { test(t, registrytest.Start(t, kind)) })
	}
}

func openAt(t *testing.T, address string) *registry.Repository {
	t.Helper()
	reg, err := registry.Open(address, registry.Options{Retry: registry.RetryOptions{Attempts: 1}})
	if err != nil {
		t.Fatal(err)
	}
	repo, err := reg.Repository("build/eiger/zen2/hello/1.0")
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

func put(t *testing.T, repo *registry.Repository, kind, content string, at time.Time, subject *ocispec.Descriptor, tags ...string) ocispec.Descriptor {
	t.Helper()
	if subject != nil {
		subject = &ocispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size}
	}
	d, err := repo.Push(t.Context(), registry.Artifact{
		Type: kind, Subject: subject, Layers: []registry.Layer{registry.BytesLayer(meta.ImageTitle, "", []byte(content))},
		Annotations: map[string]string{ocispec.AnnotationCreated: at.Format(time.RFC3339)},
	})
	for _, tag := range tags {
		if err == nil {
			err = repo.Tag(t.Context(), d, tag)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// family is an image with metadata, results and a signature of these.
func family(t *testing.T, repo *registry.Repository, content string, at time.Time, tags ...string) []ocispec.Descriptor {
	t.Helper()
	image := put(t, repo, meta.TypeImage, content, at, nil)
	about := put(t, repo, meta.TypeMeta, "meta of "+content, at, &image)
	results := put(t, repo, meta.TypeReframe, "results of "+content, at, &image)
	signature := put(t, repo, "test/signature", "signature of "+content, at, &results)
	for _, tag := range tags {
		if err := repo.Tag(t.Context(), image, tag); err != nil {
			t.Fatal(err)
		}
	}
	return []ocispec.Descriptor{image, about, results, signature}
}

func wantThere(t *testing.T, repo *registry.Repository, want bool, all ...ocispec.Descriptor) {
	t.Helper()
	for _, d := range all {
		if there, err := repo.Exists(t.Context(), d); err != nil || there != want {
			t.Errorf("%s %s is there: %v, %v", d.ArtifactType, d.Digest, there, err)
		}
	}
}

func wantTags(t *testing.T, repo *registry.Repository, want ...string) {
	t.Helper()
	tags, err := repo.Tags(t.Context())
	if fault.KindOf(err) == fault.NotFound && len(want) == 0 {
		return
	}
	if err != nil || !slices.Equal(tags, want) {
		t.Errorf("tags %v, not %v; %v", tags, want, err)
	}
}

func TestDeleteTakesTheLabelThenTheImage(t *testing.T) {
	everyRegistry(t, func(t *testing.T, address string) {
		repo := openAt(t, address)
		doomed := family(t, repo, "doomed", day0, "1", "2")
		stays := family(t, repo, "stays", day0, "3")
		d, err := Examine(t.Context(), repo, "1")
		if err != nil || !slices.Equal(d.Stays, []string{"2"}) || d.Bytes != 0 || len(d.Attached) != 0 {
			t.Fatalf("%+v, %v", d, err)
		}
		wantTags(t, repo, "1", "2", "3") // looking changes nothing
		if err := d.Delete(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		wantTags(t, repo, "2", "3")
		wantThere(t, repo, true, doomed...)
		d, err = Examine(t.Context(), repo, "2")
		if err != nil || len(d.Stays) != 0 || d.Bytes != int64(len("doomed")) || len(d.Attached) != 3 {
			t.Fatalf("%+v, %v", d, err)
		}
		for range 2 { // the second time there is nothing left to do
			if err := d.Delete(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
		}
		wantTags(t, repo, "3")
		wantThere(t, openAt(t, address), false, doomed...)
		wantThere(t, openAt(t, address), true, stays...)
		if refs, err := openAt(t, address).Referrers(t.Context(), stays[0], ""); err != nil || len(refs) != 2 {
			t.Errorf("of what stays: %v, %v", refs, err)
		}
		if _, err := Examine(t.Context(), repo, "2"); fault.KindOf(err) != fault.NotFound {
			t.Errorf("again: %v", err)
		}
	})
}

// Between the look and the deletion a build may find the image and give it a tag, or
// another image gets the tag.
func TestWhatChangesMeanwhileStays(t *testing.T) {
	everyRegistry(t, func(t *testing.T, address string) {
		repo := openAt(t, address)
		old := family(t, repo, "old", day0, "1")
		d, err := Examine(t.Context(), repo, "1")
		if err != nil {
			t.Fatal(err)
		}
		if err := repo.Tag(t.Context(), old[0], "2"); err != nil {
			t.Fatal(err)
		}
		if err := d.Delete(t.Context(), nil); fault.KindOf(err) != fault.Refused {
			t.Errorf("tagged again: %v", err)
		}
		wantThere(t, openAt(t, address), true, old...)
		if d, err = Examine(t.Context(), repo, "1"); err != nil {
			t.Fatal(err)
		}
		other := family(t, repo, "other", day0, "1")
		if err := d.Delete(t.Context(), nil); fault.KindOf(err) != fault.Refused {
			t.Errorf("moved: %v", err)
		}
		wantTags(t, repo, "1", "2")
		wantThere(t, openAt(t, address), true, append(old, other...)...)
	})
}

// What is refused has no effect, and what has to go before an image does not go then.
func TestWhatIsTestedOrMovedMeanwhileStays(t *testing.T) {
	everyRegistry(t, func(t *testing.T, address string) {
		repo := openAt(t, address)
		old, other := family(t, repo, "old", day0, "1"), family(t, repo, "other", day0, "2")
		refused := func(what string, d Doomed) {
			t.Helper()
			first := func(context.Context) error { t.Errorf("%s: more was deleted", what); return nil }
			if err := d.Delete(t.Context(), first); fault.KindOf(err) != fault.Refused {
				t.Errorf("%s: %v", what, err)
			}
		}
		d, err := Examine(t.Context(), repo, "1")
		if err != nil {
			t.Fatal(err)
		}
		if err := repo.Tag(t.Context(), old[0], "2"); err != nil { // a tag that was known
			t.Fatal(err)
		}
		refused("moved", d)
		if err := repo.Tag(t.Context(), other[0], "2"); err != nil {
			t.Fatal(err)
		}
		expired, _, err := Expired(t.Context(), repo, Retention{OlderThan: time.Hour, Now: day0.Add(48 * time.Hour)})
		if err != nil || len(expired) != 2 {
			t.Fatalf("%+v, %v", expired, err)
		}
		put(t, repo, meta.TypeReframe, "new results", day0, &old[1])
		refused("tested", d)
		for _, d := range expired {
			if d.Digest == old[0].Digest {
				refused("tested, of many", d)
			}
		}
		wantThere(t, openAt(t, address), true, append(old, other...)...)
		wantTags(t, repo, "1", "2")
	})
}

// A list of referrers is written by whoever may push, and can name anything.
func TestForgedListDeletesNothingElse(t *testing.T) {
	address := registrytest.Start(t, registrytest.Fallback)
	repo := openAt(t, address)
	doomed, stays := family(t, repo, "doomed", day0, "1"), family(t, repo, "stays", day0, "2")
	forgeList(t, address, repo, doomed[0], append(doomed[1:3:3], stays[0])...)
	if refs, err := repo.Referrers(t.Context(), doomed[0], ""); err != nil || len(refs) != 3 {
		t.Fatalf("the list was not forged: %v, %v", refs, err)
	}
	d, err := Examine(t.Context(), repo, "1")
	if err == nil {
		err = d.Delete(t.Context(), nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	wantThere(t, openAt(t, address), false, doomed...)
	wantThere(t, openAt(t, address), true, stays...)
	wantTags(t, openAt(t, address), "2")
}

// forgeList puts a list of referrers under the fallback tag of an image.
func forgeList(t *testing.T, address string, repo *registry.Repository, image ocispec.Descriptor, list ...ocispec.Descriptor) {
	t.Helper()
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: list}
	index.SchemaVersion = 2
	text, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	where := "http://" + address + "/v2/" + repo.Name() + "/manifests/" + strings.Replace(image.Digest.String(), ":", "-", 1)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, where, bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", index.MediaType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Fatal(resp.Status)
	}
}

func TestPromotedImagesAreNotDeleted(t *testing.T) {
	everyRegistry(t, func(t *testing.T, address string) {
		repo := openAt(t, address)
		kept := family(t, repo, "kept", day0, "kept", registry.KeepTag(family(t, repo, "kept", day0)[0].Digest))
		recorded := family(t, repo, "recorded", day0, "recorded")
		record := func(image ocispec.Descriptor, text []byte) {
			t.Helper()
			subject := ocispec.Descriptor{MediaType: image.MediaType, Digest: image.Digest, Size: image.Size}
			_, err := repo.Push(t.Context(), registry.Artifact{
				Type: meta.TypePromotion, Subject: &subject, Layers: []registry.Layer{registry.BytesLayer(meta.PromotionTitle, meta.MediaTypeJSON, text)},
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		promotion := func(image ocispec.Descriptor, to string) []byte {
			t.Helper()
			text, err := meta.Promotion{
				When: meta.At(day0), Who: "staff", Image: image.Digest, From: meta.Place{Repository: "a/b", Tag: "1"}, To: meta.Place{Repository: to, Tag: "v1"},
				Rules: []meta.RuleResult{{Rule: "tests", Outcome: meta.RulePassed, Reason: "passed"}},
			}.Encode()
			if err != nil {
				t.Fatal(err)
			}
			return text
		}
		record(recorded[0], promotion(recorded[0], repo.Name()))
		torn := family(t, repo, "torn", day0, "torn")
		record(torn[0], []byte(`{"version":1`))
		elsewhere := family(t, repo, "elsewhere", day0, "elsewhere")
		record(elsewhere[0], promotion(elsewhere[0], "deploy/eiger/zen2/hello/1.0"))
		for _, tag := range []string{"kept", "recorded", "torn"} {
			if _, err := Examine(t.Context(), repo, tag); fault.KindOf(err) != fault.Refused || !strings.Contains(err.Error(), "promoted") {
				t.Errorf("%s: %v", tag, err)
			}
		}
		if _, err := Examine(t.Context(), repo, "elsewhere"); err != nil {
			t.Errorf("promoted to another repository: %v", err)
		}
		doomed, stay, err := Expired(t.Context(), repo, Retention{OlderThan: time.Hour, Now: day0.AddDate(1, 0, 0)})
		if err != nil || stay != 3 || len(doomed) != 1 || doomed[0].Digest != elsewhere[0].Digest {
			t.Errorf("pruned %+v, %d stay, %v", doomed, stay, err)
		}
		wantThere(t, repo, true, kept...)
	})
}

func TestPruneTakesWhatIsOld(t *testing.T) {
	everyRegistry(t, func(t *testing.T, address string) {
		repo := openAt(t, address)
		now := day0.AddDate(0, 0, 100)
		old := family(t, repo, "old", day0, "1")
		older := family(t, repo, "older", day0.AddDate(0, 0, -1), "2")
		tested := family(t, repo, "tested", day0, "3")
		put(t, repo, meta.TypeReframe, "tested again", now.AddDate(0, 0, -2), &tested[0])
		put(t, repo, "application/other", "no image", day0, nil, "4")
		young := family(t, repo, "young", now.AddDate(0, 0, -1), "5")
		r := Retention{OlderThan: 30 * 24 * time.Hour, Now: now}
		doomed, stay, err := Expired(t.Context(), repo, r)
		if err != nil || stay != 3 || len(doomed) != 2 || doomed[0].Digest != older[0].Digest || doomed[1].Digest != old[0].Digest {
			t.Fatalf("%+v, %d stay, %v", doomed, stay, err)
		}
		r.Keep = 3
		if doomed, _, err = Expired(t.Context(), repo, r); err != nil || len(doomed) != 1 || doomed[0].Digest != older[0].Digest {
			t.Fatalf("three are kept: %+v, %v", doomed, err)
		}
		if err := doomed[0].Delete(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		wantTags(t, repo, "1", "3", "4", "5")
		wantThere(t, openAt(t, address), false, older...)
		wantThere(t, openAt(t, address), true, slices.Concat(old, tested, young)...)
	})
}

// An image that was never tagged, or whose tag moved on, is found by the fallback
// tag of what is attached to it.
func TestPruneFindsTheUntaggedByTheirFallbackTags(t *testing.T) {
	for _, kind := range []registrytest.Kind{registrytest.Fallback, registrytest.HalfBroken, registrytest.Docker} {
		t.Run(string(kind), func(t *testing.T) {
			address := registrytest.Start(t, kind)
			repo := openAt(t, address)
			untagged := family(t, repo, "untagged", day0)
			stays := family(t, repo, "stays", day0.AddDate(0, 0, 99), "1")
			fresh := family(t, repo, "fresh", day0.AddDate(0, 0, 99)) // is being published
			doomed, _, err := Expired(t.Context(), repo, Retention{OlderThan: 48 * time.Hour, Now: day0.AddDate(0, 0, 100)})
			if err != nil || len(doomed) != 1 || doomed[0].Digest != untagged[0].Digest {
				t.Fatalf("%+v, %v", doomed, err)
			}
			if err := doomed[0].Delete(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			wantThere(t, openAt(t, address), false, untagged...)
			wantThere(t, openAt(t, address), true, append(stays, fresh...)...)
		})
	}
}

// A deletion that is killed after any of its requests leaves no tag whose image
// lacks something, and can be finished.
func TestBrokenOffDeletionLosesNothing(t *testing.T) {
	for _, kind := range append(slices.Clone(registrytest.InProcess), registrytest.Docker) {
		t.Run(string(kind), func(t *testing.T) {
			for step := range 40 {
				if finished := brokenOff(t, kind, step); finished {
					if step < 4 {
						t.Errorf("finished after %d changes", step)
					}
					return
				}
			}
			t.Error("it never finishes")
		})
	}
}

// brokenOff deletes with every change after the given number failing, as if the
// process were dead.
func brokenOff(t *testing.T, kind registrytest.Kind, changes int) (finished bool) {
	t.Helper()
	left := -1
	address := registrytest.Start(t, kind, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if left >= 0 && r.Method != http.MethodGet && r.Method != http.MethodHead {
				if left == 0 {
					http.Error(w, "dead", http.StatusTeapot)
					return
				}
				left--
			}
			next.ServeHTTP(w, r)
		})
	})
	repo := openAt(t, address)
	doomed, stays := family(t, repo, "doomed", day0, "1"), family(t, repo, "stays", day0.AddDate(1, 0, 0), "2")
	left = changes
	d, err := Examine(t.Context(), repo, "1")
	if err != nil {
		t.Fatal(err)
	}
	finished = d.Delete(t.Context(), nil) == nil
	left = -1
	again := openAt(t, address)
	if image, err := again.Resolve(t.Context(), "1"); err == nil && image.Digest == doomed[0].Digest {
		if refs, err := again.Referrers(t.Context(), image, ""); err != nil || len(refs) != 2 {
			t.Errorf("after %d changes the tag is there, and %d attachments: %v", changes, len(refs), err)
		}
		wantThere(t, again, true, doomed...)
	} else if fault.KindOf(err) != fault.NotFound {
		t.Errorf("after %d changes: %v, %v", changes, image, err)
	}
	if err := d.Delete(t.Context(), nil); err != nil {
		t.Errorf("again after %d changes: %v", changes, err)
	}
	wantThere(t, openAt(t, address), false, doomed[0])
	wantTags(t, again, "2")
	wantThere(t, openAt(t, address), true, stays...)
	return finished
}

func TestRegistryWithoutDeletion(t *testing.T) {
	address := registrytest.Start(t, registrytest.Referrers, registrytest.Faults(registrytest.Rule{
		// As distribution 2.8 answers without storage.delete.enabled.
		Method: http.MethodDelete, Fault: func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			w.WriteHeader(http.StatusMethodNotAllowed)
			fmt.Fprintln(w, `{"errors":[{"code":"UNSUPPORTED","message":"The operation is unsupported."}]}`)
		},
	}))
	repo := openAt(t, address)
	all := family(t, repo, "doomed", day0, "1")
	d, err := Examine(t.Context(), repo, "1")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Delete(context.WithoutCancel(t.Context()), nil); fault.KindOf(err) != fault.Refused || !strings.Contains(fault.HintOf(err), "does not allow deletion") {
		t.Errorf("%v; %s", err, fault.HintOf(err))
	}
	wantTags(t, repo, "1")
	wantThere(t, openAt(t, address), true, all...)
}
