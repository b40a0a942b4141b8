package pipeline

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/localrepo"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
)

func parse(t *testing.T, text string) label.Label {
	t.Helper()
	l, err := label.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func openRegistry(t *testing.T, address string) *registry.Registry {
	t.Helper()
	reg, err := registry.Open(address, registry.Options{Retry: registry.RetryOptions{Attempts: 2, Wait: 1}})
	if err != nil {
		t.Fatal(err)
	}
	return reg
}

// publish puts content as an image with metadata under the labels.
func publish(t *testing.T, reg *registry.Registry, content []byte, labels ...string) Found {
	t.Helper()
	return publishOf(t, reg, content, "2026-01-02T03:04:05Z", labels...)
}

func publishOf(t *testing.T, reg *registry.Registry, content []byte, when string, labels ...string) Found {
	t.Helper()
	l := parse(t, labels[0])
	repo, err := reg.Repository(l.Repository())
	if err != nil {
		t.Fatal(err)
	}
	created := map[string]string{ocispec.AnnotationCreated: when}
	desc, err := repo.Push(t.Context(), registry.Artifact{
		Type: meta.TypeImage, Layers: []registry.Layer{registry.BytesLayer(meta.ImageTitle, "", content)}, Annotations: created,
	})
	if err != nil {
		t.Fatal(err)
	}
	env := fstest.MapFS{"env.json": {Data: []byte(`{"name":"x","mount":"/user-environment","views":{}}`)}}
	layer, err := registry.DirectoryLayer(meta.MetaTitle, env, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = repo.Push(t.Context(), registry.Artifact{Type: meta.TypeMeta, Subject: &desc, Layers: []registry.Layer{layer}, Annotations: created})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range labels {
		if err := repo.Tag(t.Context(), desc, parse(t, text).Tag); err != nil {
			t.Fatal(err)
		}
	}
	return Found{Label: l, Repo: repo, Descriptor: desc}
}

func openLocal(t *testing.T, dir string, events event.Sink) *localrepo.Repo {
	t.Helper()
	local, err := localrepo.Open(t.Context(), dir, localrepo.Options{Create: true, Events: events})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { local.Close() })
	return local
}

func pull(t *testing.T, local *localrepo.Repo, found Found) Pulled {
	t.Helper()
	pulled, err := Pull(t.Context(), found, local, PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pulled
}

func TestLocateTakesAllLabelsOfOneImage(t *testing.T) {
	reg := openRegistry(t, "oci:"+t.TempDir())
	publish(t, reg, []byte("one"), "deploy::x/1:v1@s%u", "deploy::x/1:v2@s%u")
	publish(t, reg, []byte("two"), "deploy::y/1:v1@s%u")
	found, err := Locate(t.Context(), reg, parse(t, "deploy::x"), "")
	if err != nil || len(found.Also) != 1 {
		t.Fatalf("%+v, %v", found, err)
	}
	local := openLocal(t, t.TempDir(), nil)
	pull(t, local, found)
	records, err := local.Find(t.Context(), label.Label{}, false)
	if err != nil || len(records) != 2 || records[0].Label.Tag != "v1" || records[1].Label.Tag != "v2" {
		t.Errorf("recorded %+v, %v", records, err)
	}
	if _, err := Locate(t.Context(), reg, parse(t, "deploy::@s"), ""); fault.KindOf(err) != fault.Usage {
		t.Errorf("without a name: %v", err)
	}
}

// Images of other tools can be pulled whatever date they have, and clients can list the
// repository after that.
func TestPullOfADateThatClientsCannotRead(t *testing.T) {
	reg := openRegistry(t, "oci:"+t.TempDir())
	local := openLocal(t, t.TempDir(), nil)
	dates := []string{"1980-01-01T00:00:00Z", "2051-01-01T00:00:00Z", "once", "2026-01-02T03:04:05Z"}
	for n, when := range dates {
		pull(t, local, publishOf(t, reg, []byte(when), when, fmt.Sprintf("deploy::x/%d:v1@s%%u", n)))
	}
	records, err := local.Find(t.Context(), label.Label{}, false)
	if err != nil || len(records) != len(dates) {
		t.Fatalf("recorded %+v, %v", records, err)
	}
	for _, r := range records {
		if !label.ClientReads(r.Date) {
			t.Errorf("%s has the date %s", r.Label, r.Date)
		}
	}
	if r := records[3]; r.Date.Format(time.RFC3339) != dates[3] {
		t.Errorf("%s instead of %s", r.Date, dates[3])
	}
}

// TestManyPullOneImage has several open one new repository and pull the same
// image: one of them downloads it.
func TestManyPullOneImage(t *testing.T) {
	reg := openRegistry(t, "oci:"+t.TempDir())
	found := publish(t, reg, bytes.Repeat([]byte("content"), 100_000), "deploy::x/1:v1@s%u")
	dir := filepath.Join(t.TempDir(), "repo")
	const many = 16
	fetched := make(chan bool, many)
	var wg sync.WaitGroup
	for range many {
		wg.Go(func() {
			local, err := localrepo.Open(t.Context(), dir, localrepo.Options{Create: true, BusyTimeout: time.Minute})
			if err != nil {
				t.Error(err)
				return
			}
			defer local.Close()
			pulled, err := Pull(t.Context(), found, local, PullOptions{})
			if err != nil {
				t.Error(err)
			}
			fetched <- pulled.Fetched
		})
	}
	wg.Wait()
	close(fetched)
	downloads := 0
	for f := range fetched {
		if f {
			downloads++
		}
	}
	if downloads != 1 {
		t.Errorf("%d downloads", downloads)
	}
}

func damage(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, change(data), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestRepair(t *testing.T) {
	reg := openRegistry(t, "oci:"+t.TempDir())
	local := openLocal(t, t.TempDir(), nil)
	images := map[localrepo.Condition]Found{}
	for i, c := range []struct {
		condition localrepo.Condition
		spoil     func(p localrepo.Paths) error
	}{
		{localrepo.Complete, func(localrepo.Paths) error { return nil }},
		{localrepo.Corrupt, func(p localrepo.Paths) error {
			damage(t, p.Image, func(b []byte) []byte { b[1000] ^= 1; return b })
			return nil
		}},
		{localrepo.Truncated, func(p localrepo.Paths) error { return os.Truncate(p.Image, 5000) }},
		{localrepo.Missing, func(p localrepo.Paths) error { return os.RemoveAll(p.Dir) }},
		{localrepo.Unverifiable, func(p localrepo.Paths) error { return os.Remove(p.Manifest) }},
	} {
		content := bytes.Repeat([]byte{byte(i + 1), 7, 9}, 10_000)
		found := publish(t, reg, content, "build::"+string(c.condition)+"/1:v1@s%u")
		pull(t, local, found)
		if err := c.spoil(local.Paths(found.Descriptor.Digest)); err != nil {
			t.Fatal(err)
		}
		images[c.condition] = found
	}
	added := []byte("gone from everywhere")
	gone := publish(t, openRegistry(t, "oci:"+t.TempDir()), added, "deploy::gone/1:v1@s%u")
	pull(t, local, gone)
	if err := os.Truncate(local.Paths(gone.Descriptor.Digest).Image, 3); err != nil {
		t.Fatal(err)
	}

	findings, err := local.Verify(t.Context(), localrepo.VerifyOptions{})
	if err != nil || len(findings) != 6 {
		t.Fatalf("%+v, %v", findings, err)
	}
	for _, f := range findings {
		if want := images[f.Condition].Descriptor.Digest; f.Digest != want && f.Digest != gone.Descriptor.Digest {
			t.Errorf("%s is %s: %s", f.Digest, f.Condition, f.Detail)
		}
	}
	repaired, err := Repair(t.Context(), reg, local, RepairOptions{Namespaces: []string{"deploy", "build"}})
	if err != nil || len(repaired) != 5 {
		t.Fatalf("%+v, %v", repaired, err)
	}
	for _, r := range repaired {
		if r.Repaired != (r.Digest != gone.Descriptor.Digest) {
			t.Errorf("%+v", r)
		}
	}
	findings, err = local.Verify(t.Context(), localrepo.VerifyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range findings {
		if (f.Condition == localrepo.Complete) != (f.Digest != gone.Descriptor.Digest) {
			t.Errorf("afterwards %s is %s: %s", f.Labels, f.Condition, f.Detail)
		}
		if _, err := os.Stat(filepath.Join(local.Paths(f.Digest).Meta, "env.json")); err != nil {
			t.Error(err)
		}
	}
}
