package pipeline

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/image"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/plan"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/registrytest"
	"uenv-ci.dev/internal/stack"
)

const (
	someKey    = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	someCommit = "8899b715e90123456789abcdef0123456789abcd"
)

// packed is a build up to where its image is published.
func packed(t *testing.T, reg *registry.Registry, l label.Label, o KeyOptions) *imageBuild {
	t.Helper()
	store := t.TempDir()
	if err := os.MkdirAll(filepath.Join(store, "meta"), 0o755); err != nil {
		t.Fatal(err)
	}
	env := []byte(`{"name": "tools", "mount": "/user-tools", "views": {}}`)
	if err := os.WriteFile(filepath.Join(store, meta.EnvFile), env, 0o644); err != nil {
		t.Fatal(err)
	}
	b := &imageBuild{
		BuildImageOptions: BuildImageOptions{
			Build: BuildOptions{Options: build.Options{System: l.System, UArch: l.UArch}}, Pack: image.PackOptions{Created: time.Unix(1767225600, 0)},
			Push: reg, Key: o, Versions: map[string]string{"uenv-ci": "1.2"}, Invocation: "https://ci.example.org/7",
		},
		in:   stack.Input{Recipe: &recipe.Recipe{Name: l.Name, Dir: t.TempDir()}, Mount: "/user-tools"},
		keys: keyStore{registry: reg, label: l, perChange: o.PerChange},
	}
	file, err := image.Pack(t.Context(), store, filepath.Join(t.TempDir(), meta.ImageTitle), b.Pack)
	if err != nil {
		t.Fatal(err)
	}
	b.done = BuildReport{Label: l, Image: file, Started: meta.At(time.Unix(1767230000, 0))}
	b.done.Key = someKey
	b.done.Sources = []plan.Source{
		{Name: "spack", Repo: "https://example.org/spack", Ref: "releases/v0.23", Commit: someCommit},
		{Name: "ours", Repo: "https://example.org/packages", Commit: strings.Repeat("ab", 20)},
	}
	b.done.Builder, b.done.Host, b.done.Invocation = b.Versions, host(), b.Invocation
	if b.done.Inputs, err = b.inputs(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.done.Report = build.Report{
		Recipe: l.Name, Sandbox: true, Spack: &build.Spack{Version: "0.23.0", Commit: someCommit, Source: "here"},
		Packages: []build.Package{{Name: "glibc", Version: "2.36", Hash: "aa", External: true}, {Name: "zlib", Version: "1.3", Hash: "bb", Seconds: 3}},
	}
	return b
}

func layoutRegistry(t *testing.T) *registry.Registry {
	return openRegistry(t, "oci:"+filepath.Join(t.TempDir(), "registry"))
}

var toolsLabel = label.Label{Namespace: "build", Name: "tools", Version: "1.0", Tag: "7", System: "demo", UArch: "zen2"}

func located(t *testing.T, reg *registry.Registry, l label.Label) Found {
	t.Helper()
	found, err := Locate(t.Context(), reg, l, "")
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestPublishAttachesProvenanceAndPackages(t *testing.T) {
	reg := layoutRegistry(t)
	b := packed(t, reg, toolsLabel, KeyOptions{Variables: map[string]string{"LICENCE": "canary", "A": ""}})
	if err := b.publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	found := located(t, reg, toolsLabel)
	statements, problems, err := meta.Provenances(t.Context(), found.Repo, found.Descriptor)
	if err != nil || len(statements) != 1 || len(problems) != 0 {
		t.Fatalf("provenance %v, %v, %v", statements, problems, err)
	}
	checkStatement(t, b, found, statements[0])
	list, problems, err := meta.Packages(t.Context(), found.Repo, found.Descriptor)
	want := []meta.Package{{Name: "glibc", Version: "2.36", Hash: "aa", External: true}, {Name: "zlib", Version: "1.3", Hash: "bb"}}
	if err != nil || len(problems) != 0 || !slices.Equal(list, want) {
		t.Errorf("packages %v, %v, %v", list, problems, err)
	}
}

func checkStatement(t *testing.T, b *imageBuild, found Found, p meta.Provenance) {
	t.Helper()
	subjects := []string{p.Subject[0].Name, p.Subject[0].Digest["sha256"], p.Subject[1].Name, p.Subject[1].Digest["sha256"]}
	if want := []string{"build/demo/zen2/tools/1.0", found.Descriptor.Digest.Encoded(), "store.squashfs", b.done.Image.Digest.Encoded()}; !slices.Equal(subjects, want) {
		t.Errorf("subjects %v, not %v", subjects, want)
	}
	text, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte("canary")) {
		t.Error("the value of a variable is in the provenance")
	}
	for _, want := range []string{
		`"A",`, `"LICENCE"`, `"recipe": "tools"`, `"label": "build::tools/1.0:7@demo%zen2"`, `"mount": "/user-tools"`, `"uenv-ci": "1.2"`,
		`"invocationId": "https://ci.example.org/7"`, `"startedOn": "2026-01-01T01:13:20.000000Z"`, `"finishedOn": "2`,
		`"name": "cluster"`, `"uri": "git+https://example.org/spack"`, `"gitCommit": "` + someCommit + `"`, `"gitCommit": "abab`, `"version": "0.23.0"`,
	} {
		// The recipe of this build needs no cluster.
		if has := bytes.Contains(text, []byte(want)); has == strings.Contains(want, "cluster") {
			t.Errorf("%s: %t in %s", want, has, text)
		}
	}
}

// Built again it is one image with one list of packages, and one more statement.
func TestPublishAgainIsTheSameImage(t *testing.T) {
	reg := layoutRegistry(t)
	var digests []digest.Digest
	for range 2 {
		b := packed(t, reg, toolsLabel, KeyOptions{})
		if err := b.publish(t.Context()); err != nil {
			t.Fatal(err)
		}
		digests = append(digests, b.done.Pushed.Digest)
	}
	found := located(t, reg, toolsLabel)
	sboms, err := found.Repo.Referrers(t.Context(), found.Descriptor, meta.TypeSBOM)
	if err != nil {
		t.Fatal(err)
	}
	statements, err := found.Repo.Referrers(t.Context(), found.Descriptor, meta.TypeProvenance)
	if err != nil || digests[0] != digests[1] || len(sboms) != 1 || len(statements) != 2 {
		t.Errorf("images %v, %d lists, %d statements, %v", digests, len(sboms), len(statements), err)
	}
}

func TestRestrictedImagesHaveNoSBOM(t *testing.T) {
	reg := layoutRegistry(t)
	b := packed(t, reg, toolsLabel, KeyOptions{})
	b.Build.Restricted = true
	if err := b.publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(b.done.Attached) != 1 || b.done.Attached[0].Type != meta.TypeProvenance {
		t.Errorf("attached %v", b.done.Attached)
	}
	found := located(t, reg, toolsLabel)
	if sboms, err := found.Repo.Referrers(t.Context(), found.Descriptor, meta.TypeSBOM); err != nil || len(sboms) != 0 {
		t.Errorf("a list of packages: %v, %v", sboms, err)
	}
}

// A key is believed only where it may be, as a whole, and with metadata.
func TestKeysThatAreBelieved(t *testing.T) {
	reg := layoutRegistry(t)
	change := packed(t, reg, toolsLabel, KeyOptions{PerChange: true})
	if err := change.publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	find := func(perChange bool, key string) *keyedImage {
		t.Helper()
		found, err := keyStore{registry: reg, label: toolsLabel, perChange: perChange}.find(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if change.done.KeyTag != "build-pr-keys/demo/zen2/tools/1.0:"+someKey[:32] || find(true, someKey) == nil || find(false, someKey) != nil {
		t.Errorf("a change's key %s: found %v, by others %v", change.done.KeyTag, find(true, someKey), find(false, someKey))
	}
	if find(true, someKey[:32]+strings.Repeat("0", 32)) != nil {
		t.Error("half of the key was believed")
	}
	protected := packed(t, reg, toolsLabel, KeyOptions{})
	if err := protected.publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, perChange := range []bool{true, false} {
		if found := find(perChange, someKey); found == nil || found.repo.Name() != "build-keys/demo/zen2/tools/1.0" {
			t.Errorf("per change %t: found %v", perChange, found)
		}
	}
}

func TestKeysWithoutAnImageAreNotBelieved(t *testing.T) {
	reg := layoutRegistry(t)
	store := keyStore{registry: reg, label: toolsLabel}
	var warnings []string
	store.events = func(e event.Event) { warnings = append(warnings, e.Message) }
	repo, err := store.repository(false)
	if err != nil {
		t.Fatal(err)
	}
	for _, artifact := range []string{meta.TypeImage, "text/x-notes"} { // neither has metadata
		d, err := repo.Push(t.Context(), registry.Artifact{
			Type: artifact, Layers: []registry.Layer{registry.BytesLayer(meta.ImageTitle, "", []byte("x"))},
			Annotations: map[string]string{meta.AnnotationKey: someKey},
		})
		if err == nil {
			err = repo.Tag(t.Context(), d, plan.KeyTag(someKey))
		}
		if err != nil {
			t.Fatal(err)
		}
		if found, err := store.find(t.Context(), someKey); found != nil || err != nil {
			t.Errorf("%s: %v, %v", artifact, found, err)
		}
	}
	if len(warnings) != 2 {
		t.Errorf("warnings %q", warnings)
	}
}

// A registry that fails is not one without the image: nothing is built for hours
// that could not be pushed then.
func TestKeysOfAFailingRegistry(t *testing.T) {
	address := registrytest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
	}))
	_, err := keyStore{registry: openRegistry(t, address), label: toolsLabel}.find(t.Context(), someKey)
	if fault.KindOf(err) != fault.Unauthorized || !strings.Contains(fault.HintOf(err), "--rebuild") {
		t.Errorf("got %v, hint %q", err, fault.HintOf(err))
	}
}

// An image is copied with what is attached to it to where it gets its label.
func TestReuseCopiesTheImage(t *testing.T) {
	reg := layoutRegistry(t)
	if err := packed(t, reg, toolsLabel, KeyOptions{}).publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := located(t, reg, toolsLabel)
	if err := first.Repo.Delete(t.Context(), first.Descriptor); err != nil {
		t.Fatal(err)
	}
	b := packed(t, reg, toolsLabel, KeyOptions{})
	b.done.Label.Tag, b.Out = "8", filepath.Join(t.TempDir(), "out.squashfs")
	found, err := b.keys.find(t.Context(), someKey)
	if err != nil || found == nil {
		t.Fatal(found, err)
	}
	if err := b.reuse(t.Context(), found); err != nil {
		t.Fatal(err)
	}
	again := located(t, reg, b.done.Label)
	attached, err := again.Repo.Referrers(t.Context(), again.Descriptor, "")
	if err != nil || again.Descriptor.Digest != first.Descriptor.Digest || len(attached) != 3 { // it was built within the hour
		t.Errorf("%s with %d attachments, %v", again.Descriptor.Digest, len(attached), err)
	}
	if b.done.Existing != "build-keys/demo/zen2/tools/1.0@"+first.Descriptor.Digest.String() {
		t.Errorf("existing %s", b.done.Existing)
	}
	if file, err := image.Stat(t.Context(), b.Out); err != nil || file.Digest != b.done.Image.Digest {
		t.Errorf("the file: %v, %v", file, err)
	}
}

// The key stands for the Spack that the recipe asks for.
func TestKeyIsDroppedIfAnotherSpackBuilt(t *testing.T) {
	for _, c := range []struct {
		commit, wanted string
		dirty, keeps   bool
	}{
		{someCommit, someCommit, false, true},
		{someCommit, someCommit[:8], false, true},
		{someCommit, someCommit, true, false},
		{someCommit, strings.Repeat("0", 40), false, false},
		{"", someCommit, false, false},
	} {
		k := ContentKey{Key: someKey, Sources: []plan.Source{{Name: "spack", Commit: c.wanted}}}
		k.builtWith(&build.Spack{Commit: c.commit}, c.dirty)
		if (k.Key == someKey) != c.keeps || (len(k.Unresolved) == 0) != c.keeps {
			t.Errorf("%+v: key %q, %v", c, k.Key, k.Unresolved)
		}
	}
	k := ContentKey{Key: someKey}
	if k.builtWith(nil, false); k.Key != someKey {
		t.Error("a recipe without Spack lost its key")
	}
}

func TestAnImageWithoutKeyIsPublishedWithoutKeyTag(t *testing.T) {
	reg := layoutRegistry(t)
	b := packed(t, reg, toolsLabel, KeyOptions{})
	b.done.Key, b.done.Unresolved = "", []string{"spack: 'main' is not resolved"}
	var warnings []string
	b.Pack.Events = func(e event.Event) {
		if e.Kind == event.Warning {
			warnings = append(warnings, e.Message)
		}
	}
	if err := b.publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	m, err := image.Read(t.Context(), located(t, reg, toolsLabel).Repo, *b.done.Pushed)
	if err != nil || m.Key != "" || b.done.KeyTag != "" || len(warnings) != 1 || !strings.Contains(warnings[0], "'main'") {
		t.Errorf("key %q, tag %q, warnings %q, %v", m.Key, b.done.KeyTag, warnings, err)
	}
}

// What is found by its key may be old: it tells that it got its label now.
func TestReuseTellsWhenTheImageCame(t *testing.T) {
	reg := layoutRegistry(t)
	b := packed(t, reg, toolsLabel, KeyOptions{})
	keys, err := b.keys.repository(false)
	if err != nil {
		t.Fatal(err)
	}
	o := image.PublishOptions{Created: b.Pack.Created, Key: someKey, Tags: []string{plan.KeyTag(someKey)}}
	if _, err := image.Publish(t.Context(), keys, b.done.Image, o); err != nil {
		t.Fatal(err)
	}
	found, err := b.keys.find(t.Context(), someKey)
	if err != nil || found == nil {
		t.Fatal(found, err)
	}
	if err := b.reuse(t.Context(), found); err != nil {
		t.Fatal(err)
	}
	here := located(t, reg, toolsLabel)
	attached, err := here.Repo.Referrers(t.Context(), here.Descriptor, meta.TypePublication)
	if err != nil || len(attached) != 1 {
		t.Errorf("%v, %v", attached, err)
	}
}
