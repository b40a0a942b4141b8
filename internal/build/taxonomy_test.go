package build

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"uenv-ci.dev/internal/spack"
)

func classes(t *testing.T) []class {
	t.Helper()
	all, err := taxonomy()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestTaxonomyIsDocumented: the table of docs/build-errors.md is that of errors.yaml.
func TestTaxonomyIsDocumented(t *testing.T) {
	data, err := os.ReadFile("../../docs/build-errors.md")
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for _, c := range classes(t) {
		retried := ""
		if c.retry {
			retried = "yes "
		}
		fmt.Fprintf(&want, "| `%s` | %s | %s|\n", c.name, c.says, retried)
	}
	if !strings.Contains(string(data), want.String()) {
		t.Errorf("docs/build-errors.md should have:\n%s", want.String())
	}
	for _, c := range []string{classHook, classPackage, classTimeout, classSpack} {
		if !strings.Contains(string(data), "\n| `"+c+"` | ") {
			t.Errorf("docs/build-errors.md does not have %s", c)
		}
	}
}

// TestClassifyRecorded classifies what the real Spack said.
func TestClassifyRecorded(t *testing.T) {
	for file, want := range map[string]string{
		"checksum.txt": "checksum", "conflict.txt": "concretization", "unknown.txt": "unknown-package",
		"view-specs.txt": "view", "view-files.txt": "view",
	} {
		said, ok := spack.ReadFailure("../spack/testdata/" + file)
		if !ok {
			t.Fatalf("%s: no failure", file)
		}
		found, ok := classify(classes(t), strings.Split(said.Message, "\n"), nil)
		if !ok || found.name != want {
			t.Errorf("%s: %q", file, found.name)
		}
	}
}

func TestClassifyLogs(t *testing.T) {
	for log, want := range map[string]string{
		"gcc -c x.c\nx.c:1:25: error: 'a' undeclared\nmake: *** [Makefile:3: x.o] Error 1":                                 "compiler",
		"x.c:1:10: fatal error: mpi.h: No such file or directory\ncompilation terminated.":                                 "missing-header",
		"/usr/bin/ld: x.o: in function `main':\nx.c:(.text+0x5): undefined reference to `f'\ncollect2: error: ld returned": "linker",
		"g++: fatal error: Killed signal terminated program cc1plus\nx.cc:1: error: none":                                  "out-of-memory",
		"x.cc:9:1: error: a\ncc1plus: error writing to /tmp/x.s: No space left on device":                                  "disk-full",
		"-- Could NOT find Doxygen (missing: DOXYGEN_EXECUTABLE)\nx.f90:3:5:\nError: Syntax error at (1)":                  "compiler",
		"-- Looking for x\nCMake Error at CMakeLists.txt:5 (find_package):":                                                "configure",
		"checking for x... no\nconfigure: error: x is required":                                                            "configure",
		"  Downloading crates ...\ncurl: (6) Could not resolve host: static.crates.io":                                     "fetch",
		"touch: cannot touch '/etc/x': Read-only file system":                                                              "sandbox",
		"1 out of 3 hunks FAILED -- saving rejects":                                                                        "patch",
		"make: *** [Makefile:7: all] Error 2":                                                                              "make",
		"all is well":                                                                                                      "",
	} {
		found, _ := classify(classes(t), []string{"ProcessError: Command exited with status 2:"}, strings.Split(log, "\n"))
		if found.name != want {
			t.Errorf("%q is not in:\n%s", found.name, log)
		}
	}
}

func TestClassifyMessages(t *testing.T) {
	for message, want := range map[string]string{
		"FetchError: All fetchers failed for spack-stage-zlib":                      "fetch",
		"URLError: <urlopen error [Errno -3] Temporary failure in name resolution>": "network",
		"HTTPError: HTTP Error 503: Service Unavailable":                            "network",
		"ProcessError: Command exited with status -9:":                              "out-of-memory",
		"OSError: [Errno 28] No space left on device: '/tmp/x'":                     "disk-full",
		"NoVerifyException: Package was built from source":                          "signature",
		"Name clashes detected in module files:":                                    "module-clash",
		"AttributeError: 'Zlib' object has no attribute 'x'":                        "package-recipe",
		"PermissionError: [Errno 13] Permission denied: '/x'":                       "permission",
		"fatal: couldn't find remote ref refs/heads/nothing":                        "fetch",
		"OSError: [Errno 30] Read-only file system: '/etc/x'":                       "sandbox",
		"Something that nobody has seen before":                                     "",
	} {
		if found, _ := classify(classes(t), []string{message}, nil); found.name != want {
			t.Errorf("%q: %s", found.name, message)
		}
	}
	said := []string{"Traceback (most recent call last):", "KeyError: 'x'", "curl: (28) Operation timed out"}
	if found, _ := classifyProgram(classes(t), said); found.name != "network" || found.line != 2 {
		t.Errorf("a hook: %s at %d", found.name, found.line)
	}
	if found, ok := classifyProgram(classes(t), said[:2]); ok {
		t.Errorf("a hook in Python has no package.py: %s", found.name)
	}
}

func TestBadTaxonomies(t *testing.T) {
	for _, text := range []string{
		"classes: 1", "classes:\n- {says: x}", "classes:\n- {name: x, says: x}",
		"classes:\n- {name: x, says: x, log: ['(']}", "classes:\n- {name: x, says: x, log: [1]}",
		"classes:\n- {name: x, says: x, kind: y, log: [a]}", "a: [",
	} {
		if got, err := parseTaxonomy([]byte(text)); err == nil {
			t.Errorf("%s: %v", text, got)
		}
	}
}
