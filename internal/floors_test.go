// Package internal_test keeps the architecture: see docs/design.md, "Floors".
package internal_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "uenv-ci.dev"

// floors lists the packages from the ground up. A package imports only from
// floors below its own.
var floors = [][]string{
	// The ground has three steps, see docs/adr/0005: errors and events below
	// what reports by them, documents below what checks them.
	{"schemas", "recipes", "clusters", "internal/fault", "internal/event", "internal/atomicfile", "internal/pathcheck", "internal/dirfd", "internal/parallel", "internal/testdirs"},
	{"internal/bounded", "internal/label", "internal/proc", "internal/redact", "internal/yamlpos"},
	{"internal/schema"},
	{"internal/recipe", "internal/site", "internal/spack", "internal/reframe", "internal/slurm", "internal/git", "internal/sandbox", "internal/scratch",
		"internal/squashfs", "internal/chunk", "internal/registry", "internal/registrytest", "internal/localrepo", "internal/meta"},
	{"internal/plan", "internal/stack", "internal/image", "internal/mount", "internal/evidence", "internal/promote", "internal/lifecycle", "internal/catalog", "internal/findings", "internal/report", "internal/starter"},
	{"internal/build"},
	{"internal/pipeline"},
	{"internal/cli"},
	{"cmd/uenv-ci"},
	{"e2e"},
}

// vocabulary may be imported everywhere: types of the formats we speak.
var vocabulary = []string{
	"github.com/opencontainers/image-spec/specs-go",
	"github.com/opencontainers/go-digest",
	"golang.org/x/sys/unix",
	"golang.org/x/sync/errgroup",
}

// owners names, for each other outside package, the only packages that may
// import it. Entries are prefixes of import paths.
var owners = map[string][]string{
	"os/exec":                                {"internal/proc"},
	"go.yaml.in/yaml":                        {"internal/yamlpos"},
	"github.com/santhosh-tekuri/jsonschema":  {"internal/schema"},
	"oras.land/oras-go":                      {"internal/registry"},
	"modernc.org/sqlite":                     {"internal/localrepo"},
	"github.com/klauspost/compress/zstd":     {"internal/squashfs"},
	"github.com/klauspost/compress/gzip":     {"internal/registry"},
	"github.com/klauspost/compress/zlib":     {"internal/squashfs"},
	"github.com/DataDog/zstd":                {"internal/squashfs"},
	"github.com/ulikunitz/xz":                {"internal/squashfs"},
	"github.com/anchore/go-lzo":              {"internal/squashfs"},
	"github.com/pierrec/lz4":                 {"internal/squashfs"},
	"github.com/hanwen/go-fuse":              {"internal/mount"},
	"github.com/urfave/cli":                  {"internal/cli"},
	"github.com/rs/zerolog":                  {"internal/cli"},
	"github.com/schollz/progressbar":         {"internal/cli"},
	"golang.org/x/term":                      {"internal/cli"},
	"golang.org/x/sync/singleflight":         {"internal/registry"},
	"cuelabs.dev/go/oci/ociregistry":         {"internal/registrytest"},
	"github.com/google/go-containerregistry": {"internal/registrytest"},
}

// forTests lists the packages that only tests may import.
var forTests = []string{"internal/registrytest", "internal/testdirs"}

// testOnly may be imported by tests, besides what their package may import.
var testOnly = []string{"github.com/rogpeppe/go-internal", "github.com/diskfs/go-diskfs"}

func floorOf(pkg string) int {
	return slices.IndexFunc(floors, func(floor []string) bool { return slices.Contains(floor, pkg) })
}

func TestFloors(t *testing.T) {
	seen := map[string]bool{}
	for file, imports := range goFiles(t) {
		pkg := path.Dir(file)
		if pkg == "internal" || strings.HasPrefix(pkg, "bench") || strings.HasPrefix(pkg, "tools") {
			continue
		}
		floor := floorOf(pkg)
		if floor < 0 {
			t.Errorf("%s: package %s stands on no floor: add it to the list in this test and to docs/design.md", file, pkg)
			continue
		}
		seen[pkg] = true
		for _, imported := range imports {
			checkImport(t, file, pkg, floor, imported)
		}
	}
	for _, floor := range floors {
		for _, pkg := range floor {
			if !seen[pkg] {
				t.Logf("no code yet in %s", pkg)
			}
		}
	}
}

func checkImport(t *testing.T, file, pkg string, floor int, imported string) {
	t.Helper()
	isTest := strings.HasSuffix(file, "_test.go")
	if own, ok := strings.CutPrefix(imported, module+"/"); ok {
		switch below := floorOf(own); {
		case own == pkg: // an external test of the package itself
		case slices.Contains(forTests, own) && isTest:
		case below < 0 || below >= floor:
			t.Errorf("%s: %s (floor %d) must not import %s (floor %d)", file, pkg, floor, own, below)
		case slices.Contains(forTests, own) && pkg != "e2e":
			t.Errorf("%s: only tests may import %s", file, own)
		}
		return
	}
	matches := func(prefix string) bool { return imported == prefix || strings.HasPrefix(imported, prefix+"/") }
	for prefix, allowed := range owners {
		if matches(prefix) {
			if !slices.Contains(allowed, pkg) {
				t.Errorf("%s: only %v may import %s", file, allowed, imported)
			}
			return
		}
	}
	isStandard := !strings.Contains(strings.Split(imported, "/")[0], ".")
	if isStandard || slices.ContainsFunc(vocabulary, matches) || isTest && slices.ContainsFunc(testOnly, matches) {
		return
	}
	t.Errorf("%s: %s has no owner: each dependency is a decision, see docs/adr", file, imported)
}

// goFiles returns the imports of every Go file of the module, by its path.
func goFiles(t *testing.T) map[string][]string {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]string{}
	err = filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "tools") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		files[filepath.ToSlash(rel)] = nil
		for _, spec := range f.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			files[filepath.ToSlash(rel)] = append(files[filepath.ToSlash(rel)], imported)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("no Go files found")
	}
	return files
}
