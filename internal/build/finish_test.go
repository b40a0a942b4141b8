package build

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFinish takes out of a store what differs between two builds.
func TestFinish(t *testing.T) {
	trees := [2]string{}
	for i, vary := range []string{"1795260128.5", "1795269999.25"} {
		dir := t.TempDir()
		store := filepath.Join(dir, "store")
		for name, text := range map[string]string{
			".spack-db/index.json":               `{"database":{"installs":{"h":{"path":"/m/p","installation_time":` + vary + `}}}}`,
			".spack-db/index_verifier":           vary,
			"p/.spack/spec.json":                 "{}",
			"p/.spack/install_times.json":        vary,
			"p/.spack/spack-build-out.txt.gz":    vary,
			"p/.spack/install_manifest.json":     `{"/m/p/f":{"time":` + vary + `,"owner":` + vary[:10] + `,"size":3},"/m/p/.spack/install_times.json":{"hash":"` + vary + `"}}`,
			"p/bin/f":                            "f",
			"env/v/.spack/p/spack-build-env.txt": vary,
			"modules/p/1":                        "## Module file created by spack (https://github.com/spack/spack) on 2026-11-21 10:00:" + vary + "\nsetenv A on 20\n",
			"repo/packages/p/__pycache__/p.pyc":  vary,
			"lib/python3/__pycache__/kept.pyc":   "byte code of what was installed",
			"p/share/install_times.json":         "not a file of Spack",
		} {
			path := filepath.Join(store, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Symlink("/no/where", filepath.Join(store, "link")); err != nil {
			t.Fatal(err)
		}
		j := &job{cell: &cell{host: dir}}
		if err := errors.Join(j.cell.open(), j.finish(), j.cell.close()); err != nil {
			t.Fatal(err)
		}
		trees[i] = describe(t, store)
	}
	if trees[0] != trees[1] {
		t.Errorf("they differ:\n%s\n%s", trees[0], trees[1])
	}
	for _, want := range []string{"spec.json", "kept.pyc", "p/share/install_times.json", "setenv A on 20", `"size":3`} {
		if !strings.Contains(trees[0], want) {
			t.Errorf("%s is gone from:\n%s", want, trees[0])
		}
	}
	for _, gone := range []string{"p.pyc", "build-out", "build-env", "p/.spack/install_times.json", "2026-11-21", "-rw-------", "drwx------"} {
		if strings.Contains(trees[0], gone) {
			t.Errorf("%s is still in:\n%s", gone, trees[0])
		}
	}
}

// describe lists a tree with modes and contents.
func describe(t *testing.T, dir string) string {
	t.Helper()
	var text strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text.WriteString(info.Mode().String() + " " + strings.TrimPrefix(path, dir))
		if d.Type().IsRegular() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text.WriteString(" " + string(data))
		}
		text.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return text.String()
}

func TestField(t *testing.T) {
	data := []byte("MemTotal:       100 kB\nMemAvailable:    42 kB\nBad: x\n")
	if n, ok := field(data, "MemAvailable:", 1024); !ok || n != 42*1024 {
		t.Errorf("%d, %v", n, ok)
	}
	for _, key := range []string{"None:", "Bad:"} {
		if _, ok := field(data, key, 1); ok {
			t.Errorf("%s was found", key)
		}
	}
}

func TestTelling(t *testing.T) {
	var lines []string
	for range 50 {
		lines = append(lines, "compiling")
	}
	if got := telling(lines, -1); len(got) != errorLines {
		t.Errorf("%d lines without an error", len(got))
	}
	lines[10] = "x.c:1: error: no"
	if got := telling(lines, -1); len(got) != errorLines || got[2] != lines[10] {
		t.Errorf("%q", got)
	}
	if got := telling(lines, 30); len(got) != errorLines || &got[0] != &lines[28] {
		t.Errorf("from a line: %q", got)
	}
	if got := telling(nil, -1); len(got) != 0 {
		t.Errorf("%q", got)
	}
}
