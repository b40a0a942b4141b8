package registry_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/file"
	"oras.land/oras-go/v2/content/oci"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/registry"
)

const hello = "build/eiger/zen2/hello/1.0"

// newLayout returns a repository in a new tree, and the layout's directory.
func newLayout(t *testing.T) (p *registry.Repository, dir string) {
	t.Helper()
	tree := t.TempDir()
	return backend{address: "oci:" + tree}.repository(t, hello), filepath.Join(tree, hello)
}

func blobFile(dir string, d ocispec.Descriptor) string {
	return filepath.Join(dir, "blobs", d.Digest.Algorithm().String(), d.Digest.Encoded())
}

func readIndex(t *testing.T, dir string) ocispec.Index {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		t.Fatal(err)
	}
	return index
}

// Names of uenvs and versions may be those of parts of a layout.
func TestLayoutsWithNamesOfTheirParts(t *testing.T) {
	r := backend{address: "oci:" + t.TempDir()}.open(t)
	want := []string{"build/eiger/zen2/blobs/oci-layout", "build/eiger/zen2/hello/blobs", "build/eiger/zen2/hello/oci-layout", "build/eiger/zen2/index.json/1"}
	for _, path := range want {
		push(t, repository(t, r, path), artifact(image, path, nil))
	}
	if got, err := r.Repositories(t.Context(), ""); err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
}

// Whoever can write to a tree cannot keep its readers waiting.
func TestLayoutsAreFiles(t *testing.T) {
	for _, name := range []string{"index.json", "oci-layout"} {
		for what, put := range map[string]func(file string) error{
			"a pipe":          func(file string) error { return syscall.Mkfifo(file, 0o600) },
			"an endless file": func(file string) error { return errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, 1<<40)) },
		} {
			p, dir := newLayout(t)
			d := push(t, p, artifact(image, "hello", nil))
			file := filepath.Join(dir, name)
			if err := errors.Join(os.Remove(file), put(file)); err != nil {
				t.Fatal(err)
			}
			p = backend{address: "oci:" + strings.TrimSuffix(dir, "/"+hello)}.repository(t, hello)
			if err := p.Tag(t.Context(), d, "2"); fault.KindOf(err) != fault.Invalid {
				t.Errorf("%s is %s: %v", name, what, err)
			}
		}
	}
}

func TestLayoutIsAStandardOne(t *testing.T) {
	p, dir := newLayout(t)
	d, _ := pushFamily(t, p)
	if err := p.Tag(t.Context(), d, "v1"); err != nil {
		t.Fatal(err)
	}
	if version, err := os.ReadFile(filepath.Join(dir, "oci-layout")); err != nil || string(version) != `{"imageLayoutVersion":"1.0.0"}` {
		t.Errorf("oci-layout holds %s, %v", version, err)
	}
	index := readIndex(t, dir)
	if index.SchemaVersion != 2 || index.MediaType != ocispec.MediaTypeImageIndex {
		t.Errorf("index.json is %+v", index)
	}
	names := map[string]string{}
	for _, m := range index.Manifests {
		if info, err := os.Stat(blobFile(dir, m)); err != nil || info.Size() != m.Size {
			t.Errorf("%s: %v", m.Digest, err)
		}
		names[m.Annotations[ocispec.AnnotationRefName]] = m.Digest.String()
	}
	if names["v1"] != d.Digest.String() {
		t.Errorf("v1 is %s, want %s", names["v1"], d.Digest)
	}
	entries, err := filepath.Glob(filepath.Join(dir, "blobs/sha256/.*"))
	if err != nil || len(entries) > 0 {
		t.Errorf("temporary files stay: %v, %v", entries, err)
	}
}

// What oras reads of our layouts, and unpacks of our directory layers.
func TestOrasReadsOurLayout(t *testing.T) {
	ctx := t.Context()
	p, dir := newLayout(t)
	d := push(t, p, artifact(image, "hello", nil))
	l, err := registry.DirectoryLayer("meta", fstest.MapFS{"env.json": {Data: []byte("{}")}, "a/b": {Data: []byte("b")}}, time.Unix(1e9, 0))
	if err != nil {
		t.Fatal(err)
	}
	attached := push(t, p, registry.Artifact{Type: meta, Subject: &d, Layers: []registry.Layer{l}, Annotations: artifact(meta, "", nil).Annotations})
	for tag, m := range map[string]ocispec.Descriptor{"v1": d, "meta": attached} {
		if err := p.Tag(ctx, m, tag); err != nil {
			t.Fatal(err)
		}
	}
	store, err := oci.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := store.Resolve(ctx, "v1"); err != nil || got.Digest != d.Digest {
		t.Errorf("oras resolves v1 to %s, %v", got.Digest, err)
	}
	if got, err := store.Predecessors(ctx, d); err != nil || !slices.Contains(digests(got), attached.Digest.String()) {
		t.Errorf("oras finds the referrers %v, %v", digests(got), err)
	}
	out := t.TempDir()
	files, err := file.New(out)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	if _, err := oras.Copy(ctx, store, "meta", files, "", oras.DefaultCopyOptions); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"meta/env.json": "{}", "meta/a/b": "b"} {
		if got, err := os.ReadFile(filepath.Join(out, name)); err != nil || string(got) != want {
			t.Errorf("oras unpacked %s as %q, %v", name, got, err)
		}
	}
}

// What we read of a layout that oras wrote, and unpack of its directory layers.
func TestWeReadWhatOrasWrote(t *testing.T) {
	ctx := t.Context()
	tree, work := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(work, "meta/deep"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"store.squashfs": "hsqs", "meta/env.json": `{"mount":"/x"}`, "meta/deep/file": "deep"} {
		if err := os.WriteFile(filepath.Join(work, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files, err := file.New(work)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	store, err := oci.New(filepath.Join(tree, hello))
	if err != nil {
		t.Fatal(err)
	}
	pack := func(kind, name string, subject *ocispec.Descriptor) ocispec.Descriptor {
		t.Helper()
		layer, err := files.Add(ctx, name, "", filepath.Join(work, name))
		if err != nil {
			t.Fatal(err)
		}
		d, err := oras.PackManifest(ctx, files, oras.PackManifestVersion1_1, kind, oras.PackManifestOptions{Layers: []ocispec.Descriptor{layer}, Subject: subject})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := pack(image, "store.squashfs", nil)
	plain := ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
	attached := pack(meta, "meta", &plain)
	for tag, m := range map[string]ocispec.Descriptor{"v1": d, "": attached} {
		if err := oras.CopyGraph(ctx, files, store, m, oras.DefaultCopyGraphOptions); err != nil {
			t.Fatal(err)
		}
		if tag != "" {
			if err := store.Tag(ctx, m, tag); err != nil {
				t.Fatal(err)
			}
		}
	}
	p := backend{address: "oci:" + tree}.repository(t, hello)
	if got, err := p.Resolve(ctx, "v1"); err != nil || got.Digest != d.Digest {
		t.Errorf("v1 is %s, %v", got.Digest, err)
	}
	refs, err := p.Referrers(ctx, d, meta)
	if err != nil || len(refs) != 1 {
		t.Fatalf("referrers %v, %v", refs, err)
	}
	m, _, err := p.Manifest(ctx, refs[0])
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	if err := registry.UnpackLayer(ctx, p, m.Layers[0], out, registry.UnpackLimits{}); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(out, "meta/deep/file")); err != nil || string(got) != "deep" {
		t.Errorf("unpacked %q, %v", got, err)
	}
}

func TestRegctlReadsOurLayout(t *testing.T) {
	regctl, ok := proc.Look("regctl")
	if !ok {
		t.Skip("regctl not installed: go install github.com/regclient/regclient/cmd/regctl@v0.11.7")
	}
	p, dir := newLayout(t)
	d, all := pushFamily(t, p)
	if err := p.Tag(t.Context(), d, "v1"); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := proc.Cmd{Path: regctl, Args: args, Env: append(os.Environ(), "HOME="+t.TempDir())}.Output(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	if got := strings.TrimSpace(run("manifest", "head", "ocidir://"+dir+":v1")); got != d.Digest.String() {
		t.Errorf("regctl resolves v1 to %s", got)
	}
	tree := run("artifact", "tree", "ocidir://"+dir+":v1")
	for _, m := range all {
		if !strings.Contains(tree, m.Digest.String()) {
			t.Errorf("regctl does not show %s:\n%s", m.Digest, tree)
		}
	}
	if got := run("artifact", "get", "ocidir://"+dir+"@"+all[1].Digest.String()); got != "about" {
		t.Errorf("regctl gets %q", got)
	}
}

func TestCopiesShareBlobs(t *testing.T) {
	r := backend{address: "oci:" + t.TempDir()}.open(t)
	src, dst := repository(t, r, "build/x"), repository(t, r, "deploy/x")
	l := blobOf(1000)
	d := push(t, src, registry.Artifact{Type: image, Layers: []registry.Layer{l}})
	if _, err := registry.Copy(t.Context(), src, d, dst, registry.CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	root := strings.TrimPrefix(r.String(), "oci:")
	one, err1 := os.Stat(blobFile(filepath.Join(root, "build/x"), l.Descriptor))
	two, err2 := os.Stat(blobFile(filepath.Join(root, "deploy/x"), l.Descriptor))
	if err1 != nil || err2 != nil || !os.SameFile(one, two) {
		t.Errorf("the copy is stored twice: %v, %v", err1, err2)
	}
	if err := src.Delete(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	readAll(t, dst, l.Descriptor)
}

func TestBlobThatIsALinkIsRefused(t *testing.T) {
	for name, target := range map[string]func(dir string, d ocispec.Descriptor) string{
		"outside": func(string, ocispec.Descriptor) string { return writeFile(t, 0o644, "hello", "secret") },
		"inside": func(dir string, d ocispec.Descriptor) string {
			moved := filepath.Join(dir, "moved")
			if err := os.Rename(blobFile(dir, d), moved); err != nil {
				t.Fatal(err)
			}
			return "../../moved"
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, dir := newLayout(t)
			a := artifact(image, "hello", nil)
			push(t, p, a)
			l := a.Layers[0].Descriptor
			to := target(dir, l)
			_ = os.Remove(blobFile(dir, l))
			if err := os.Symlink(to, blobFile(dir, l)); err != nil {
				t.Fatal(err)
			}
			if _, err := p.Fetch(t.Context(), l); err == nil {
				t.Error("it was read")
			}
			other := repository(t, backend{address: "oci:" + strings.TrimSuffix(dir, hello)}.open(t), "deploy/x")
			m, _, _ := a.Manifest()
			if _, err := registry.Copy(t.Context(), p, descriptor(m), other, registry.CopyOptions{}); err == nil {
				t.Error("it was copied")
			}
		})
	}
}

func descriptor(manifest []byte) ocispec.Descriptor {
	d := registry.BytesLayer("", ocispec.MediaTypeImageManifest, manifest).Descriptor
	d.Annotations = nil
	return d
}

// A repository whose directory is a link could lead anywhere.
func TestLayoutOutsideOfTheTreeIsRefused(t *testing.T) {
	outside, tree := t.TempDir(), t.TempDir()
	p := backend{address: "oci:" + outside}.repository(t, "x")
	d := push(t, p, artifact(image, "hello", nil))
	if err := os.Symlink(outside, filepath.Join(tree, "link")); err != nil {
		t.Fatal(err)
	}
	r := backend{address: "oci:" + tree}.open(t)
	q := repository(t, r, "link/x")
	if _, err := q.Resolve(t.Context(), d.Digest.String()); err == nil {
		t.Error("read through the link")
	}
	if _, err := q.Push(t.Context(), artifact(image, "more", nil)); err == nil {
		t.Error("written through the link")
	}
	if names, err := r.Repositories(t.Context(), ""); err != nil || len(names) > 0 {
		t.Errorf("listed %v, %v", names, err)
	}
}

func TestDamagedLayoutsAreReported(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(t *testing.T, dir string, d ocispec.Descriptor)
		says   string
	}{
		"blob changed": {func(t *testing.T, dir string, d ocispec.Descriptor) {
			overwrite(t, blobFile(dir, d), strings.Repeat("x", int(d.Size)))
		}, "digest"},
		"blob truncated": {func(t *testing.T, dir string, d ocispec.Descriptor) { overwrite(t, blobFile(dir, d), "x") }, "bytes"},
		"index": {func(t *testing.T, dir string, _ ocispec.Descriptor) {
			overwrite(t, filepath.Join(dir, "index.json"), "{")
		}, "index.json"},
		"version": {func(t *testing.T, dir string, _ ocispec.Descriptor) {
			overwrite(t, filepath.Join(dir, "index.json"), `{"schemaVersion":1}`)
		}, "schema version"},
	} {
		t.Run(name, func(t *testing.T) {
			p, dir := newLayout(t)
			d := push(t, p, artifact(image, "hello", nil))
			c.damage(t, dir, d)
			_, _, err := p.Manifest(t.Context(), d)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v does not say %q", err, c.says)
			}
		})
	}
	p, dir := newLayout(t)
	push(t, p, artifact(image, "hello", nil))
	overwrite(t, filepath.Join(dir, "oci-layout"), `{"imageLayoutVersion":"9"}`)
	_, err := p.Push(t.Context(), artifact(image, "more", nil))
	wantKind(t, err, fault.Invalid)
}

func overwrite(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestDeletedBlobIsUploadedAgain(t *testing.T) {
	p, dir := newLayout(t)
	a, b := artifact(image, "one", nil), artifact(image, "two", nil)
	b.Layers = append(b.Layers, a.Layers...) // shares a blob
	d, keep := push(t, p, a), push(t, p, b)
	if err := p.Delete(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(blobFile(dir, a.Layers[0].Descriptor)); err != nil {
		t.Errorf("a blob that is still used was removed: %v", err)
	}
	if err := p.Delete(t.Context(), keep); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "blobs/sha256/*")); err != nil || len(left) > 0 {
		t.Errorf("blobs stay: %v, %v", left, err)
	}
	push(t, p, a)
	readAll(t, p, a.Layers[0].Descriptor)
}

func TestReadOnlyLayoutServesReaders(t *testing.T) {
	p, dir := newLayout(t)
	d, all := pushFamily(t, p)
	if err := p.Tag(t.Context(), d, "v1"); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{".", "blobs", "blobs/sha256"} {
		if err := os.Chmod(filepath.Join(dir, sub), 0o555); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Chmod(filepath.Join(dir, sub), 0o755) })
	}
	checkFamily(t, p, d, all)
	if os.Getuid() != 0 { // root may write everywhere
		if _, err := p.Push(t.Context(), artifact(image, "more", nil)); err == nil {
			t.Error("written to a read-only layout")
		}
	}
}

func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	tree := t.TempDir()
	if err := syscall.Mount("tmpfs", tree, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("tmpfs cannot be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(tree, syscall.MNT_DETACH) })
	p := backend{address: "oci:" + tree}.repository(t, hello)
	_, err := p.Push(t.Context(), registry.Artifact{Type: image, Layers: []registry.Layer{blobOf(2 << 20)}})
	if err == nil || fault.HintOf(err) == "" {
		t.Errorf("error %v, hint %q", err, fault.HintOf(err))
	}
	if left, err := filepath.Glob(filepath.Join(tree, hello, "blobs/sha256/.*")); err != nil || len(left) > 0 {
		t.Errorf("parts stay: %v, %v", left, err)
	}
	push(t, p, artifact(image, "small", nil))
}

// Processes attach to one image of a layout at the same time.
func TestProcessesLoseNothing(t *testing.T) {
	const processes, each = 8, 3
	tree := t.TempDir()
	p := backend{address: "oci:" + tree}.repository(t, hello)
	d := push(t, p, artifact(image, "hello", nil))
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var running []*proc.Process
	for i := range processes {
		c := proc.Cmd{
			Path: self, Args: []string{"-test.run=^TestAttachInAProcess$"}, Stdout: os.Stderr, Stderr: os.Stderr,
			Env: append(os.Environ(), "REGISTRY_TEST_TREE="+tree, "REGISTRY_TEST_NUMBER="+strconv.Itoa(i), "REGISTRY_TEST_EACH="+strconv.Itoa(each)),
		}
		started, err := c.Start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		running = append(running, started)
	}
	for _, r := range running {
		if err := r.Wait(); err != nil {
			t.Error(err)
		}
	}
	refs, err := p.Referrers(t.Context(), d, result)
	if err != nil || len(refs) != processes*each {
		t.Errorf("%d of %d attached: %v", len(refs), processes*each, err)
	}
	if tags, err := p.Tags(t.Context()); err != nil || len(tags) != processes*each {
		t.Errorf("%d of %d tags: %v", len(tags), processes*each, err)
	}
	index := readIndex(t, filepath.Join(tree, hello))
	for _, m := range index.Manifests {
		if _, err := os.Stat(blobFile(filepath.Join(tree, hello), m)); err != nil {
			t.Errorf("listed but not there: %v", err)
		}
	}
}

// TestAttachInAProcess is one of the processes of TestProcessesLoseNothing.
func TestAttachInAProcess(t *testing.T) {
	tree := os.Getenv("REGISTRY_TEST_TREE")
	if tree == "" {
		t.Skip("only started by TestProcessesLoseNothing")
	}
	p := backend{address: "oci:" + tree}.repository(t, hello)
	m, _, _ := artifact(image, "hello", nil).Manifest()
	d := descriptor(m)
	each, _ := strconv.Atoi(os.Getenv("REGISTRY_TEST_EACH"))
	for i := range each {
		name := fmt.Sprintf("p%s-%d", os.Getenv("REGISTRY_TEST_NUMBER"), i)
		attached := push(t, p, artifact(result, name, &d))
		if err := p.Tag(t.Context(), attached, name); err != nil {
			t.Fatal(err)
		}
	}
}
