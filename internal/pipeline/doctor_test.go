package pipeline

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDoctorOfBuildCaches(t *testing.T) {
	dir := t.TempDir()
	file := func(name, root string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("root: "+root+"\nkey: null\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ours := filepath.Join(dir, "ours")
	if err := os.Mkdir(ours, 0o755); err != nil {
		t.Fatal(err)
	}
	protected := file("protected.yaml", ours)
	for name, c := range map[string]struct {
		o    DoctorOptions
		want string
	}{
		"no cache":    {DoctorOptions{}, ""},
		"one's own":   {DoctorOptions{Mirrors: protected}, "not isolated: this user can write to " + ours},
		"one for all": {DoctorOptions{Mirrors: protected, ChangeCache: protected}, "not isolated: it is that of changes"},
		"no file":     {DoctorOptions{Mirrors: filepath.Join(dir, "none")}, "does not exist"},
	} {
		checks := caches(c.o)
		if c.want == "" && len(checks) > 0 || c.want != "" && (len(checks) != 1 || checks[0].OK || !strings.Contains(checks[0].Detail, c.want)) {
			t.Errorf("%s: %+v", name, checks)
		}
	}
	if os.Geteuid() == 0 {
		return // may write everywhere
	}
	if checks := caches(DoctorOptions{Mirrors: file("theirs.yaml", "/usr")}); len(checks) != 1 || !checks[0].OK {
		t.Errorf("a directory of others: %+v", checks)
	}
}
