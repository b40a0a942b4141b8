package image

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/fstest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
)

var day = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

const env = `{"name":"hello","mount":"/user-environment","views":{}}`

// pack makes an image of a store with the given files.
func pack(t *testing.T, files map[string]string) File {
	t.Helper()
	store := t.TempDir()
	for name, text := range files {
		path := filepath.Join(store, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file, err := Pack(t.Context(), store, filepath.Join(t.TempDir(), meta.ImageTitle), PackOptions{Created: day})
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func repository(t *testing.T) *registry.Repository {
	t.Helper()
	reg, err := registry.Open("oci:"+t.TempDir(), registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	repo, err := reg.Repository("build/eiger/zen2/hello/1.0")
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

func TestPackIsDeterministic(t *testing.T) {
	files := map[string]string{"meta/env.json": env, "bin/hello": "#!/bin/sh\n"}
	a, b := pack(t, files), pack(t, files)
	if a.Digest != b.Digest || a.Mount != "/user-environment" || a.Codec == "" {
		t.Errorf("got %+v and %+v", a, b)
	}
	stat, err := Stat(t.Context(), a.Path)
	if err != nil || stat != a { // what is published from its file later is the same image
		t.Errorf("Stat: got %+v, %v", stat, err)
	}
	if at, err := PackedAt(a.Path); err != nil || !at.Equal(day) {
		t.Errorf("PackedAt: got %v, %v", at, err)
	}
}

func TestPackRefusesBadMetadata(t *testing.T) {
	store := t.TempDir()
	if err := os.MkdirAll(filepath.Join(store, "meta"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(store, "meta", "env.json"), []byte(`{"views":{}}`), 0o644); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "x.squashfs")
	if _, err := Pack(t.Context(), store, out, PackOptions{Created: day}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(out); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an image was made: %v", err)
	}
}

func TestPublish(t *testing.T) {
	repo, file := repository(t), pack(t, map[string]string{"meta/env.json": env, "meta/extra/test": "#!/bin/sh\n"})
	o := PublishOptions{Created: day, Key: "abc", Tags: []string{"1", "2"}}
	first, err := Publish(t.Context(), repo, file, o)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Publish(t.Context(), repo, file, o)
	if err != nil || again.Digest != first.Digest {
		t.Errorf("published again: got %v, %v", again.Digest, err)
	}
	attached, err := repo.Referrers(t.Context(), first, meta.TypeMeta)
	if err != nil || len(attached) != 1 {
		t.Errorf("got %d metadata, %v", len(attached), err)
	}
	tags, err := repo.Tags(t.Context())
	if err != nil || !slices.Equal(tags, []string{"1", "2"}) {
		t.Errorf("got tags %v, %v", tags, err)
	}
	m, err := Read(t.Context(), repo, first)
	if err != nil || m.Mount != "/user-environment" || m.Key != "abc" || m.Created != "2026-01-02T03:04:05Z" || m.Layer.Digest != file.Digest {
		t.Errorf("got %+v, %v", m, err)
	}
	if got, err := fetchEnv(t.Context(), repo, first); err != nil || got.Name != "hello" {
		t.Errorf("got %+v, %v", got, err)
	}
	fetched := filepath.Join(t.TempDir(), "image")
	if err := Fetch(t.Context(), repo, m, fetched, FetchOptions{}); err != nil {
		t.Fatal(err)
	}
	if stat, err := Stat(t.Context(), fetched); err != nil || stat.Digest != file.Digest {
		t.Errorf("fetched %+v, %v", stat, err)
	}
	extra := filepath.Join(t.TempDir(), "extra")
	if err := UnpackExtra(t.Context(), fetched, extra); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(extra, "test")); err != nil {
		t.Error(err)
	}
}

func TestAnImageWithoutMetadata(t *testing.T) {
	repo, file := repository(t), pack(t, map[string]string{"bin/x": "x"})
	_, err := Publish(t.Context(), repo, file, PublishOptions{Created: day, Tags: []string{"1"}})
	if fault.KindOf(err) != fault.Invalid || fault.HintOf(err) == "" {
		t.Errorf("got %v", err)
	}
	if tags, _ := repo.Tags(t.Context()); len(tags) != 0 {
		t.Errorf("tags %v", tags)
	}
	given := fstest.MapFS{"env.json": {Data: []byte(env)}}
	desc, err := Publish(t.Context(), repo, file, PublishOptions{Created: day, Tags: []string{"1"}, Meta: given})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := fetchEnv(t.Context(), repo, desc); err != nil || got.Mount != "/user-environment" {
		t.Errorf("got %+v, %v", got, err)
	}
	if err := UnpackExtra(t.Context(), file.Path, filepath.Join(t.TempDir(), "extra")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Extra: got %v", err)
	}
}

func TestMetadataInsideCannotBeReplaced(t *testing.T) {
	repo, file := repository(t), pack(t, map[string]string{"meta/env.json": env})
	given := fstest.MapFS{"env.json": {Data: []byte(env)}}
	_, err := Publish(t.Context(), repo, file, PublishOptions{Created: day, Tags: []string{"1"}, Meta: given})
	if fault.KindOf(err) != fault.Invalid {
		t.Errorf("got %v", err)
	}
}

func TestReadRefusesWhatIsNoImage(t *testing.T) {
	repo := repository(t)
	for name, a := range map[string]registry.Artifact{
		"title":  {Type: meta.TypeImage, Layers: []registry.Layer{registry.BytesLayer("other", "", []byte("x"))}},
		"type":   {Type: "application/x-other", Layers: []registry.Layer{registry.BytesLayer(meta.ImageTitle, "", []byte("x"))}},
		"layers": {Type: meta.TypeImage, Layers: []registry.Layer{registry.BytesLayer(meta.ImageTitle, "", []byte("x")), registry.BytesLayer("b", "", []byte("y"))}},
	} {
		desc, err := repo.Push(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Read(t.Context(), repo, desc); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: got %v", name, err)
		}
		if _, err := MetaOf(t.Context(), repo, desc); fault.KindOf(err) != fault.NotFound {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestStatOfWhatIsNoImage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Stat(t.Context(), path); fault.KindOf(err) != fault.Invalid {
		t.Errorf("got %v", err)
	}
	if _, err := Stat(t.Context(), path+"-gone"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("got %v", err)
	}
}

func TestCreated(t *testing.T) {
	for _, c := range []struct {
		name string
		o    CreatedOptions
		want string
		kind fault.Kind
	}{
		{"explicit wins", CreatedOptions{Explicit: "2026-01-31T13:00:00+01:00", SourceEpoch: "1", Now: day}, "2026-01-31T12:00:00Z", 0},
		{"epoch", CreatedOptions{SourceEpoch: "1767225600", Now: day}, "2026-01-01T00:00:00Z", 0},
		{"outside git", CreatedOptions{Recipe: t.TempDir(), Now: day}, "2026-01-02T03:04:05Z", 0},
		{"now", CreatedOptions{Now: day}, "2026-01-02T03:04:05Z", 0},
		{"Spack's epoch", CreatedOptions{SourceEpoch: "315576060", Now: day}, "", fault.Invalid},
		{"far future", CreatedOptions{Explicit: "2051-01-01T00:00:00Z"}, "", fault.Invalid},
		{"no time", CreatedOptions{Explicit: "yesterday"}, "", fault.Usage},
		{"no number", CreatedOptions{SourceEpoch: "x"}, "", fault.Usage},
	} {
		got, err := Created(context.Background(), c.o)
		if c.want == "" {
			if fault.KindOf(err) != c.kind {
				t.Errorf("%s: got %v", c.name, err)
			}
			continue
		}
		if err != nil || got.Format(time.RFC3339) != c.want {
			t.Errorf("%s: got %v, %v", c.name, got, err)
		}
	}
}

func TestAttachKeepsOnlyTheIdentityOfTheSubject(t *testing.T) {
	repo, file := repository(t), pack(t, map[string]string{"meta/env.json": env})
	image, err := Publish(t.Context(), repo, file, PublishOptions{Created: day})
	if err != nil {
		t.Fatal(err)
	}
	image.Annotations = map[string]string{"x": "y"}
	desc, err := Attach(t.Context(), repo, image, Attachment{
		Type: "application/x-note", Created: day, Layers: []registry.Layer{registry.BytesLayer("note", "", []byte("hi"))},
	})
	if err != nil {
		t.Fatal(err)
	}
	m, _, err := repo.Manifest(t.Context(), desc)
	if err != nil || m.Subject == nil || m.Subject.Annotations != nil || m.Subject.Digest != image.Digest {
		t.Errorf("got %+v, %v", m.Subject, err)
	}
	if m.Annotations[ocispec.AnnotationCreated] != "2026-01-02T03:04:05Z" {
		t.Errorf("got %v", m.Annotations)
	}
}

func TestLinksInExtra(t *testing.T) {
	store := t.TempDir()
	extra := filepath.Join(store, "meta", "extra")
	err := errors.Join(
		os.MkdirAll(extra, 0o755), os.WriteFile(filepath.Join(extra, "test"), []byte("#!/bin/sh\n"), 0o755),
		os.Symlink("test", filepath.Join(extra, "inside")), os.Symlink("/etc/passwd", filepath.Join(extra, "outside")),
		os.Symlink("../env.json", filepath.Join(extra, "above")), os.Symlink("none", filepath.Join(extra, "nothing")))
	if err != nil {
		t.Fatal(err)
	}
	file, err := Pack(t.Context(), store, filepath.Join(t.TempDir(), meta.ImageTitle), PackOptions{Created: day})
	if err != nil {
		t.Fatal(err)
	}
	dst := filepath.Join(t.TempDir(), "extra")
	if err := UnpackExtra(t.Context(), file.Path, dst); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dst)
	if err != nil || len(entries) != 2 || entries[0].Name() != "inside" || entries[1].Name() != "test" {
		t.Errorf("got %v, %v", entries, err)
	}
}

// fetchEnv reads the attached meta/env.json.
func fetchEnv(ctx context.Context, repo *registry.Repository, image ocispec.Descriptor) (meta.Env, error) {
	layer, err := MetaOf(ctx, repo, image)
	if err != nil {
		return meta.Env{}, err
	}
	data, err := repo.LayerFile(ctx, layer, meta.EnvFile)
	if err != nil {
		return meta.Env{}, err
	}
	return meta.ParseEnv(data)
}
