package catalog

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/registrytest"
	"uenv-ci.dev/internal/squashfs"
)

// recorded is a database that Spack 0.23.0 wrote; see the README.md beside it.
func recorded(t *testing.T) []byte {
	t.Helper()
	data, err := os.ReadFile("../spack/testdata/tree/.spack-db/index.json")
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestParseDatabase(t *testing.T) {
	packages, err := ParseDatabase(recorded(t))
	if err != nil || len(packages) != 6 {
		t.Fatalf("%v, %v", packages, err)
	}
	var texts []string
	for _, p := range packages {
		texts = append(texts, p.String())
	}
	want := []string{
		"gcc-runtime@12.2.0 %gcc@12.2.0", "glibc@2.36 %gcc@12.2.0", "gmake@4.3~guile %gcc@12.2.0", "libunits@1.1+shared %gcc@12.2.0",
		"units-cli@1.2 %gcc@12.2.0", "units-data@2024+extra %gcc@12.2.0",
	}
	if !slices.Equal(texts, want) {
		t.Errorf("got %q", texts)
	}
	if glibc := packages[1]; !glibc.External || glibc.Explicit || glibc.Target != "x86_64_v4" || len(glibc.Hash) != 32 {
		t.Errorf("%+v", glibc)
	}
	if !packages[3].Explicit || packages[3].External {
		t.Errorf("%+v", packages[3])
	}
	for _, bad := range []string{"", "[]", `{"database": {"installs": []}}`} {
		if _, err := ParseDatabase([]byte(bad)); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// Spack 1.0 has compilers among the dependencies.
func TestParseDatabaseWithCompilersAsDependencies(t *testing.T) {
	const text = `{"database":{"version":"8","installs":{
		"aaaa":{"spec":{"name":"gcc","version":"14.2.0","arch":{"target":"zen2"},"parameters":{"languages":["c","c++"]}},"installed":true,"explicit":true},
		"bbbb":{"spec":{"name":"hdf5","version":"1.14.5","arch":{"target":{"name":"zen3"}},"parameters":{"mpi":true,"cflags":[]},
			"dependencies":[{"name":"gcc","hash":"aaaa","parameters":{"deptypes":["build"],"virtuals":["c","cxx"]}}]},"installed":true,"explicit":false},
		"cccc":{"spec":{"name":"gone","version":1.5},"installed":false}}}}`
	packages, err := ParseDatabase([]byte(text))
	if err != nil || len(packages) != 2 {
		t.Fatalf("%v, %v", packages, err)
	}
	if got := packages[1].String(); got != "hdf5@1.14.5+mpi %gcc@14.2.0" || packages[1].Target != "zen3" {
		t.Errorf("got %s, %+v", got, packages[1])
	}
	if packages[0].Variants["languages"] != "c,c++" || packages[0].Target != "zen2" {
		t.Errorf("got %+v", packages[0])
	}
}

func TestQuery(t *testing.T) {
	p := Package{Name: "hdf5", Version: "1.14.3", Compiler: "gcc@13.2.0", Variants: map[string]string{"mpi": "true", "shared": "false", "api": "v110", "languages": "c,cxx"}}
	for text, want := range map[string]bool{
		"hdf5": true, "hdf": false, "hdf5-x": false,
		"hdf5@1.14": true, "hdf5@1.14.3": true, "hdf5@1.1": false, "hdf5@1": true, "hdf5@=1.14": false, "hdf5@=1.14.3": true,
		"hdf5@1.12:1.14": true, "hdf5@1.12:1.13": false, "hdf5@1.14:": true, "hdf5@1.15:": false, "hdf5@:1.14": true, "hdf5@:1.13": false,
		"hdf5@1.10,1.14": true, "hdf5@1.10,1.12": false, "hdf5@:": true, "hdf5@1.14.3:1.14.3": true, "hdf5@1.14.4:": false,
		"hdf5+mpi": true, "hdf5 +mpi": true, "hdf5@1.14 +mpi ~shared": true, "hdf5~mpi": false, "hdf5 -shared": true, "hdf5+nothing": false, "hdf5~nothing": false,
		"hdf5 api=v110": true, "hdf5 api=v18": false, "hdf5 languages=cxx": true, "hdf5 languages=fortran": false,
		"hdf5 %gcc": true, "hdf5%gcc@13": true, "hdf5 %gcc@12": false, "hdf5%nvhpc": false, "hdf5@1.14+mpi api=v110 %gcc@13": true,
	} {
		q, err := ParseQuery(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if got := q.Match(p); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
	for _, text := range []string{"", " ", "@1.2", "hdf5@", "hdf5 +", "hdf5 %", "hdf5 ^mpich", "hdf5 what", "hdf5 =x", "hdf5/abc"} {
		if _, err := ParseQuery(text); fault.KindOf(err) != fault.Usage {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzParseQuery(f *testing.F) {
	for _, seed := range []string{"hdf5@1.14 +mpi", "a@1:2,3 ~b c=d %e@f", "x@=1%"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if q, err := ParseQuery(text); err == nil {
			q.Match(Package{Name: q.name, Version: "1.2"})
		}
	})
}

// store makes an image file of a store: the recorded database, changed by edit,
// and files of no use.
func store(t *testing.T, edit func(string) string) (path string, content []byte) {
	t.Helper()
	root := t.TempDir()
	noise := make([]byte, 3<<20)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	env := `{"name":"x","mount":"/user-environment","default-view":"default","views":{"default":{"env":{"values":{
		"list":{"PATH":[{"op":"prepend","value":["/user-environment/env/default/bin"]}]},"scalar":{"CUDA_HOME":"/x"}}}}}}`
	for name, data := range map[string][]byte{
		"meta/env.json": []byte(edit(env)), DatabaseFile: []byte(edit(string(recorded(t)))), "big": noise,
	} {
		if len(data) == 0 {
			continue
		}
		file := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, data, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	path = filepath.Join(t.TempDir(), "store.squashfs")
	if _, err := squashfs.Pack(t.Context(), root, path, squashfs.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, content
}

func same(s string) string { return s }

// withoutDatabase drops the database of a store.
func withoutDatabase(s string) string {
	if strings.Contains(s, `"installs"`) {
		return ""
	}
	return s
}

func TestReadContentsTakesFewRequests(t *testing.T) {
	_, content := store(t, same)
	for _, kind := range registrytest.InProcess {
		var counter registrytest.Counter
		reg := at(t, registrytest.Start(t, kind, counter.Middleware()))
		repo, image := push(t, reg, "deploy::x/1:v1@s%u", imageOf(string(content)))
		counter.Reset()
		c, err := ReadContents(t.Context(), repo, image)
		if err != nil || !c.Listed || c.Partial || len(c.Packages) != 6 || c.Env == nil || c.Env.Mount != "/user-environment" || c.Size != int64(len(content)) {
			t.Fatalf("%s: %+v, %v", kind, c, err)
		}
		if n := counter.Count("GET blobs"); n > 6 || counter.Bytes() > 512<<10 {
			t.Errorf("%s: %d requests, %d bytes: %s", kind, n, counter.Bytes(), &counter)
		}
	}
}

func TestReadContentsOfAnImageWithoutDatabase(t *testing.T) {
	_, content := store(t, withoutDatabase)
	reg := testRegistry(t)
	repo, image := push(t, reg, "deploy::x/1:v1@s%u", imageOf(string(content)))
	c, err := ReadContents(t.Context(), repo, image)
	if err != nil || c.Listed || c.Env == nil {
		t.Errorf("%+v, %v", c, err)
	}
	attachSBOM(t, repo, image)
	c, err = ReadContents(t.Context(), repo, image)
	if err != nil || !c.Listed || !c.Partial || len(c.Packages) != 2 || c.Packages[0].Name != "hdf5" {
		t.Errorf("%+v, %v", c, err)
	}
}

func attachSBOM(t *testing.T, repo *registry.Repository, image ocispec.Descriptor) {
	t.Helper()
	data, err := meta.NewSBOM(meta.SBOMInput{
		Name: "x", Version: "1", Image: image.Digest, File: image.Digest, Created: time.Unix(1_700_000_000, 0), Tool: "test",
		Packages: []meta.Package{{Name: "hdf5", Version: "1.14.3", Hash: "abc"}, {Name: "glibc", Version: "2.36", Hash: "def", External: true}},
	}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	attachJSON(t, repo, image, meta.TypeSBOM, meta.SBOMTitle, data, nil)
}

// A registry that sends no parts, and an image that is none, leave what is
// attached.
func TestReadContentsWithoutTheImage(t *testing.T) {
	_, content := store(t, same)
	noParts := registrytest.Faults(registrytest.Rule{Method: "GET", Path: "blobs/" + digest.FromBytes(content).String(), Fault: registrytest.IgnoreRange})
	reg := at(t, registrytest.Start(t, registrytest.Referrers, noParts))
	for _, body := range []string{string(content), "no squashfs"} {
		repo, image := push(t, reg, "deploy::x/1:v1@s%u", imageOf(body))
		if c, err := ReadContents(t.Context(), repo, image); err == nil {
			t.Errorf("without anything attached: %+v", c)
		}
		attachSBOM(t, repo, image)
		if c, err := ReadContents(t.Context(), repo, image); err != nil || !c.Partial || len(c.Packages) != 2 {
			t.Errorf("%+v, %v", c, err)
		}
	}
}

func TestWithPackage(t *testing.T) {
	_, spack := store(t, same)
	_, other := store(t, func(s string) string { return strings.ReplaceAll(s, `"shared":true`, `"shared":false`) })
	_, none := store(t, withoutDatabase)
	var counter registrytest.Counter
	reg := at(t, registrytest.Start(t, registrytest.Referrers, counter.Middleware()))
	push(t, reg, "deploy::a/1:v1@s%u", imageOf(string(spack)))
	push(t, reg, "deploy::a/1:v2@s%u", imageOf(string(spack)))
	push(t, reg, "deploy::b/1:v1@s%u", imageOf(string(other)))
	repo, image := push(t, reg, "deploy::c/1:v1@s%u", imageOf(string(none)))
	attachSBOM(t, repo, image)
	push(t, reg, "deploy::d/1:v1@s%u", imageOf("no squashfs"))
	records, err := Find(t.Context(), reg, parse(t, "deploy::"), Options{Depth: Images})
	if err != nil || len(records) != 5 {
		t.Fatalf("%v, %v", records, err)
	}
	cacheDir := t.TempDir()
	for round := range 2 {
		counter.Reset()
		for text, want := range map[string]string{
			"libunits": "aab", "libunits@1.1 +shared": "aa", "libunits~shared": "b", "hdf5@1.14": "c", "hdf5+mpi": "", "nothing": "", "units-cli %gcc@12": "aab",
		} {
			q, err := ParseQuery(text)
			if err != nil {
				t.Fatal(err)
			}
			told := 0
			found, err := WithPackage(t.Context(), reg, slices.Clone(records), q, PackageOptions{Cache: cacheDir, Events: func(event.Event) { told++ }})
			got := ""
			for _, r := range found {
				got += r.Label.Name
				if len(r.Packages) != 1 {
					t.Errorf("%s: %q", text, r.Packages)
				}
			}
			if err != nil || got != want || told != 1 {
				t.Errorf("%q: %q instead of %q, told %d times, %v", text, got, want, told, err)
			}
		}
		// Package lists of an image never change.
		if n := counter.Count("GET blobs"); round == 1 && n > 4*7*2 {
			t.Errorf("the second time: %s", &counter)
		}
	}
}

func TestCompare(t *testing.T) {
	before, _ := store(t, same)
	after, _ := store(t, func(s string) string {
		if strings.Contains(s, `"installs"`) {
			return edited(t, s)
		}
		s = strings.Replace(s, `"CUDA_HOME":"/x"`, `"CUDA_HOME":"/y","NEW":null`, 1)
		return strings.Replace(s, `"views":{`, `"views":{"develop":{"env":{"values":{"list":{},"scalar":{}}}},`, 1)
	})
	a, err := FileContents(before)
	if err != nil {
		t.Fatal(err)
	}
	b, err := FileContents(after)
	if err != nil {
		t.Fatal(err)
	}
	if d := Compare(a, a); !d.None() || d.Same != 6 {
		t.Errorf("with itself: %+v", d)
	}
	d := Compare(a, b)
	if d.None() || d.Unknown || d.Partial || d.Rebuilt != 1 || len(d.Added) != 1 || d.Added[0].Name != "zlib" || len(d.Removed) != 1 || d.Removed[0].Name != "gmake" {
		t.Errorf("%+v", d)
	}
	var what []string
	for _, c := range d.Changed {
		what = append(what, c.From.Name+": "+strings.Join(c.What, ", "))
	}
	if want := []string{"libunits: 1.1 → 1.2, +shared → ~shared", "units-cli: %gcc@12.2.0 → %gcc@13.1.0"}; !slices.Equal(what, want) {
		t.Errorf("changed: %q", what)
	}
	if want := []string{"gcc@12.2.0", "gcc@13.1.0"}; !slices.Equal(d.Compiler[1], want) {
		t.Errorf("compilers: %q", d.Compiler)
	}
	if len(d.Views) != 2 || d.Views[0].State != ViewChanged || len(d.Views[0].Env) != 2 || d.Views[0].Env[0] != (ValueChange{"CUDA_HOME", "set /x", "set /y"}) ||
		d.Views[0].Env[1] != (ValueChange{"NEW", "", "unset"}) || d.Views[1].State != ViewAdded {
		t.Errorf("views: %+v", d.Views)
	}
	back := Compare(b, a)
	if len(back.Added) != 1 || len(back.Removed) != 1 || len(back.Changed) != 2 || back.Views[0].State != ViewChanged || back.Views[1].State != ViewRemoved {
		t.Errorf("backwards: %+v", back)
	}
	if d := Compare(a, Contents{}); !d.Unknown || len(d.Removed) != 0 || len(d.Other) != 2 {
		t.Errorf("with an unknown one: %+v", d)
	}
}

// edited changes a database: one package of each kind of change.
func edited(t *testing.T, text string) string {
	t.Helper()
	var doc map[string]map[string]any
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	installs := doc["database"]["installs"].(map[string]any)
	for hash, v := range installs {
		install := v.(map[string]any)
		spec := install["spec"].(map[string]any)
		switch spec["name"] {
		case "gmake":
			delete(installs, hash)
		case "libunits":
			spec["version"] = "1.2"
			spec["parameters"].(map[string]any)["shared"] = false
		case "units-cli":
			spec["compiler"].(map[string]any)["version"] = "13.1.0"
		case "units-data":
			delete(installs, hash)
			installs["rebuilt"] = install
		}
	}
	installs["new"] = map[string]any{"spec": map[string]any{"name": "zlib", "version": "1.3"}, "installed": true}
	data, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestPagesReadAsTheWhole(t *testing.T) {
	data := make([]byte, 3*pageSize+777)
	rand.NewChaCha8([32]byte{2}).Read(data)
	p := newPages(bytes.NewReader(data), int64(len(data)))
	whole := bytes.NewReader(data)
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		offset, size := random.Int64N(int64(len(data))+10), random.IntN(2*pageSize)
		got, want := make([]byte, size), make([]byte, size)
		n, err := p.ReadAt(got, offset)
		m, wantErr := whole.ReadAt(want, offset)
		if n != m || !bytes.Equal(got[:n], want[:m]) || size > 0 && !errors.Is(err, wantErr) {
			t.Fatalf("%d at %d: %d, %v instead of %d, %v", size, offset, n, err, m, wantErr)
		}
	}
	if _, err := p.ReadAt(make([]byte, 1), -1); err != io.EOF {
		t.Errorf("before the start: %v", err)
	}
}
