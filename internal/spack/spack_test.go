package spack

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"uenv-ci.dev/internal/fault"
)

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestParseLock(t *testing.T) {
	lock, err := ParseLock([]byte(read(t, "spack.lock")))
	if err != nil {
		t.Fatal(err)
	}
	var roots []string
	for _, r := range lock.Roots {
		roots = append(roots, r.Spec)
	}
	slices.Sort(roots)
	if want := []string{"libunits+shared", "units-cli@1.2"}; !slices.Equal(roots, want) || len(lock.Specs) != 6 {
		t.Errorf("roots %q, %d specs", roots, len(lock.Specs))
	}
	for _, s := range lock.Specs {
		switch s.Name {
		case "glibc", "gmake":
			if !s.External || s.Prefix != "/usr" {
				t.Errorf("%+v", s)
			}
		case "units-cli":
			if s.External || s.Version != "1.2" || s.Compiler != "gcc@12.2.0" {
				t.Errorf("%+v", s)
			}
		}
	}
}

func TestParseDatabase(t *testing.T) {
	specs, err := ParseDatabase([]byte(read(t, "tree/"+DatabaseFile)))
	if err != nil {
		t.Fatal(err)
	}
	var names, explicit []string
	for _, s := range specs {
		names = append(names, s.Name)
		if s.Explicit {
			explicit = append(explicit, s.Name)
		}
		if s.Name == "libunits" && !strings.HasSuffix(s.Prefix, "/libunits-1.1-"+s.Hash) {
			t.Errorf("%+v", s)
		}
	}
	if want := []string{"gcc-runtime", "glibc", "gmake", "libunits", "units-cli", "units-data"}; !slices.Equal(names, want) {
		t.Errorf("installed: %q", names)
	}
	if want := []string{"libunits", "units-cli"}; !slices.Equal(explicit, want) {
		t.Errorf("explicit: %q", explicit)
	}
}

func TestParseExports(t *testing.T) {
	got := map[string]string{}
	for _, e := range ParseExports(read(t, "activate.sh")) {
		got[e.Name] = e.Value
	}
	for name, want := range map[string]string{
		"UNITS_HOME":        "/user-environment/env/develop",
		"PATH":              "/user-environment/env/develop/bin:/usr/bin:/bin:",
		"CMAKE_PREFIX_PATH": "/user-environment/env/develop",
	} {
		if !strings.HasPrefix(got[name], want) {
			t.Errorf("%s=%q", name, got[name])
		}
	}
	if _, ok := got["SPACK_ENV"]; ok {
		t.Error("a variable of Spack itself is there")
	}
	odd := "export A='it'\"'\"'s; here';\nexport B=\nexport C\nexport D=$D:/x;\nalias e='export F=1';\n  export G=\"q\" ;\n"
	want := []Export{{"A", "it's; here"}, {"B", ""}, {"D", "$D:/x"}, {"G", `"q" `}}
	want[3].Value = "q"
	if got := ParseExports(odd); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}

func TestInstallWatcher(t *testing.T) {
	var w InstallWatcher
	var begun []string
	built := map[string]float64{}
	for line := range strings.Lines(read(t, "install.txt")) {
		switch e := w.Line(strings.TrimSuffix(line, "\n")); e.Kind {
		case Installing:
			begun = append(begun, e.Package)
		case Installed:
			built[e.Package] = e.Seconds
			if len(e.Hash) != 32 {
				t.Errorf("%+v", e)
			}
		}
	}
	if want := []string{"gcc-runtime-12.2.0", "units-data-2024", "libunits-1.1", "units-cli-1.2"}; !slices.Equal(begun, want) {
		t.Errorf("begun: %q", begun)
	}
	for _, name := range begun {
		if built[name] <= 0 {
			t.Errorf("%s took %v s", name, built[name])
		}
	}
}

func TestSeconds(t *testing.T) {
	for text, want := range map[string]float64{"1.50s": 1.5, "2m 3.00s": 123, "1h 1s": 3601, "": 0, "odd": 0} {
		if got := seconds(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestParseFailure(t *testing.T) {
	for name, want := range map[string]Failure{
		"compile.txt": {
			Package: "hello-uenv-1.0", Phase: "install",
			Message: "ProcessError: Command exited with status 1:\n    '/usr/bin/gcc' ",
			Log:     "/spack-build-out.txt",
		},
		"checksum.txt":   {Package: "hello-uenv-1.0", Message: "ChecksumError: sha256 checksum failed for /tmp/"},
		"conflict.txt":   {Message: "failed to concretize `hello-uenv@7` for the following reasons:\n     1. Cannot satisfy"},
		"view-specs.txt": {Message: "The environment view in /user-environment/env/default could not be created"}, // all packages are there
		"view-files.txt": {Message: "1 fatal error(s) when merging prefixes:"},
		"unknown.txt":    {Message: "Package 'spack.pkg.alps.nothing-such' not found.\nUse 'spack create'"},
	} {
		got, ok := ReadFailure(filepath.Join("testdata", name))
		if !ok || got.Package != want.Package || got.Phase != want.Phase ||
			!strings.HasPrefix(got.Message, want.Message) || !strings.HasSuffix(got.Log, want.Log) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for _, name := range []string{"install.txt", "no-such-file"} {
		if got, ok := ReadFailure(filepath.Join("testdata", name)); ok {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// endless is output without an end, and without the end of a line.
type endless struct{ left int }

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, strings.Repeat("x", min(len(p), e.left)))
	if e.left -= n; n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func TestFailureAfterALongLine(t *testing.T) {
	said := "==> Installing a-1-" + strings.Repeat("a", 32) + " [1/1]\n"
	said += "==> Error: it failed\nindeed\n\n" + strings.Repeat("y\n", 1000) + "See build log for details:\n  /tmp/log\n==> Error: so did this\n"
	out := io.MultiReader(&endless{10 << 20}, strings.NewReader("\n"+said))
	want := Failure{Package: "a-1", Message: "it failed\nindeed", Log: "/tmp/log"}
	if got, ok := parseFailure(out); !ok || got != want {
		t.Errorf("got %+v", got)
	}
	out = io.MultiReader(strings.NewReader("==> Error: it failed: "), &endless{10 << 20})
	if got, ok := parseFailure(out); !ok || len(got.Message) > maxLine {
		t.Errorf("%d bytes", len(got.Message))
	}
}

func FuzzParseFailure(f *testing.F) {
	for _, name := range []string{"compile.txt", "conflict.txt", "install.txt"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
	f.Fuzz(func(t *testing.T, output string) {
		if got, ok := parseFailure(strings.NewReader(output)); !ok && got != (Failure{}) {
			t.Errorf("%+v", got)
		}
		ParseExports(output)
		var w InstallWatcher
		for line := range strings.Lines(output) {
			w.Line(line)
		}
	})
}

func TestVersions(t *testing.T) {
	for _, test := range []struct {
		version string
		reads   [4]bool // by format
	}{
		{"0.20.3", [4]bool{true, false, false, false}},
		{"0.21.0", [4]bool{true, true, false, false}},
		{"0.22.3", [4]bool{true, true, false, false}},
		{"0.23.0.dev0", [4]bool{true, true, true, true}},
		{"1.0.0", [4]bool{true, false, true, false}},
		{"1.1.0", [4]bool{true, false, true, false}},
		{"1.2.0", [4]bool{true, false, true, true}},
		{"2.0", [4]bool{true, false, true, true}},
	} {
		v, err := ParseVersion(test.version)
		if err != nil {
			t.Fatal(err)
		}
		for format := 1; format <= 3; format++ {
			if err := (Installation{Version: v}).Reads(format); (err == nil) != test.reads[format] {
				t.Errorf("%s, format %d: %v", test.version, format, err)
			}
		}
	}
	for _, bad := range []string{"", "1", "x.y", "1.x"} {
		if _, err := ParseVersion(bad); err == nil {
			t.Errorf("%q is a version", bad)
		}
	}
}

func TestMatches(t *testing.T) {
	v := Version{0, 23, "0.23.1"}
	for reference, want := range map[string]bool{
		"v0.23.0": true, "releases/v0.23": true, "develop": true, "0.23": true, "releases/v0.22": false, "v1.0.2": false, "v0.2": false,
	} {
		if got := v.Matches(reference); got != want {
			t.Errorf("%s: %v", reference, got)
		}
	}
}

func TestLocate(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"bin/spack": "#!/bin/sh\n", "lib/spack/spack/__init__.py": "#: version\nspack_version = '0.22.1'\n"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", t.TempDir())
	t.Setenv(Variable, "")
	if _, ok, err := Locate(""); ok || err != nil {
		t.Errorf("nowhere: %v, %v", ok, err)
	}
	bin := t.TempDir()
	if err := os.Symlink(filepath.Join(dir, "bin/spack"), filepath.Join(bin, "spack")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	if in, ok, err := Locate(""); !ok || err != nil || in.Source != "spack on PATH" || in.Version.Text != "0.22.1" {
		t.Errorf("on PATH: %+v, %v, %v", in, ok, err)
	}
	t.Setenv(Variable, filepath.Join(dir, "none"))
	if _, ok, err := Locate(""); ok || fault.KindOf(err) != fault.NotFound {
		t.Errorf("wrong variable: %v, %v", ok, err)
	}
	if in, ok, err := Locate(dir); !ok || err != nil || !strings.HasSuffix(in.Command("find").Path, "/bin/spack") {
		t.Errorf("explicit: %+v, %v, %v", in, ok, err)
	}
}
