package build

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/recipe"
)

func TestSweepSparesTheLiving(t *testing.T) {
	root := t.TempDir()
	first, swept, err := openWorkspace(root, "a")
	if err != nil || len(swept) > 0 {
		t.Fatal(swept, err)
	}
	second, swept, err := openWorkspace(root, "b")
	if err != nil || len(swept) > 0 {
		t.Fatal(swept, err)
	}
	// The lock of a dead process is free.
	if err := first.lock.Close(); err != nil {
		t.Fatal(err)
	}
	third, swept, err := openWorkspace(root, "c")
	if err != nil || len(swept) != 1 || !strings.HasPrefix(swept[0], "a-") {
		t.Fatal(swept, err)
	}
	for dir, want := range map[string]bool{first.Dir: false, second.Dir: true, third.Dir: true} {
		if _, err := os.Stat(dir); (err == nil) != want {
			t.Errorf("%s: %v", dir, err)
		}
	}
	if err := errors.Join(second.close(), third.close(), third.close()); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(root, "*", "*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestSweepGoesOn: what cannot be removed of one dead build keeps neither others from
// being removed nor a new one from beginning.
func TestSweepGoesOn(t *testing.T) {
	root := t.TempDir()
	dead := map[string]string{}
	for _, name := range []string{"a", "b"} {
		w, _, err := openWorkspace(root, name)
		if err != nil {
			t.Fatal(err)
		}
		defer w.parent.Close()
		defer w.lock.Close()
		dead[name] = w.Dir
	}
	if err := os.MkdirAll(filepath.Join(dead["a"]+keepSuffix, "in the way"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} { // the lock of a dead process is free
		lock, err := os.Create(dead[name] + ".new")
		if err != nil {
			t.Fatal(err)
		}
		err = errors.Join(lock.Close(), os.Rename(lock.Name(), dead[name]+lockSuffix))
		if err != nil {
			t.Fatal(err)
		}
	}
	w, swept, err := openWorkspace(root, "c")
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	if len(swept) != 1 || swept[0] != filepath.Base(dead["b"]) || w.stuck == nil || !strings.Contains(w.stuck.Error(), dead["a"]) {
		t.Errorf("swept %q, stuck %v", swept, w.stuck)
	}
}

func TestForeignBuildRootIsRefused(t *testing.T) {
	name := func(root string) string {
		w, _, err := openWorkspace(root, "a")
		if err != nil {
			t.Fatal(err)
		}
		defer w.close()
		return filepath.Dir(w.Dir)
	}(t.TempDir())
	base := filepath.Base(name)

	open := t.TempDir()
	if err := os.Mkdir(filepath.Join(open, base), 0o755); err != nil {
		t.Fatal(err)
	}
	link := t.TempDir()
	if err := os.Symlink(name, filepath.Join(link, base)); err != nil {
		t.Fatal(err)
	}
	for _, root := range []string{open, link} {
		if _, _, err := openWorkspace(root, "b"); fault.KindOf(err) != fault.Refused {
			t.Errorf("%v", err)
		}
	}
}

// TestRemovalStaysInside: a link in a build that leads out is removed, not followed.
func TestRemovalStaysInside(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "kept"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	w, _, err := openWorkspace(t.TempDir(), "a")
	if err != nil {
		t.Fatal(err)
	}
	sealed := filepath.Join(w.Dir, "sealed")
	err = errors.Join(
		os.Symlink(outside, filepath.Join(w.Dir, "link")),
		os.MkdirAll(filepath.Join(sealed, "deep"), 0o755),
		os.Symlink(filepath.Join(outside, "kept"), filepath.Join(sealed, "deep", "file")),
		os.Chmod(filepath.Join(sealed, "deep"), 0o500),
		os.Chmod(sealed, 0),
	)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(w.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
	if info, err := os.Stat(filepath.Join(outside, "kept")); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("what a link led to: %v, %v", info, err)
	}
}

// TestFullDisk builds where there is room for nothing.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=16k,nr_inodes=5"); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	defer syscall.Unmount(dir, 0)
	if err := checkCapacity(dir, 1<<20); err == nil || !strings.Contains(err.Error(), "0 MiB left") {
		t.Errorf("checkCapacity: %v", err)
	}
	for {
		if err := os.WriteFile(filepath.Join(dir, "fill"+t.Name()+strings.Repeat("x", len(mustGlob(t, dir)))), nil, 0o600); err != nil {
			break
		}
	}
	if _, _, err := openWorkspace(dir, "a"); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("openWorkspace: %v", err)
	}
}

func mustGlob(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestLocate(t *testing.T) {
	store := t.TempDir()
	err := errors.Join(
		os.MkdirAll(filepath.Join(store, "env/._default/hash/lib"), 0o755),
		os.Symlink("/m/env/._default/hash", filepath.Join(store, "env/default")),
		os.Symlink("lib", filepath.Join(store, "env/._default/hash/lib64")),
		os.Symlink("../../../env/default/lib", filepath.Join(store, "env/._default/hash/up")),
		os.Symlink("/usr", filepath.Join(store, "system")),
		os.Symlink("loop", filepath.Join(store, "loop")),
	)
	if err != nil {
		t.Fatal(err)
	}
	root, err := openForeign(store)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	const lib = "env/._default/hash/lib"
	for path, want := range map[string]string{
		"/m/env/default/lib": lib, "/m/env/default/lib64": lib, "/m/env/default/up": lib,
		"/m": ".", "/m/none/x": "none/x", "/m/system/bin": "", "/mm/x": "", "/m/loop/x": "", "/m/../etc": "",
	} {
		if got, _ := locate(root, "/m", path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

// TestWhatCannotBeRemovedIsSweptLater has something in the way when a build ends.
func TestWhatCannotBeRemovedIsSweptLater(t *testing.T) {
	root := t.TempDir()
	w, _, err := openWorkspace(root, "a")
	if err != nil {
		t.Fatal(err)
	}
	obstacle := filepath.Join(w.Dir, mountRecord) // it cannot be read
	if err := os.Mkdir(obstacle, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := w.close(); err == nil {
		t.Fatal("it was removed")
	}
	if err := os.Remove(obstacle); err != nil {
		t.Fatal(err)
	}
	next, swept, err := openWorkspace(root, "b")
	if err != nil || len(swept) != 1 || swept[0] != filepath.Base(w.Dir) {
		t.Fatalf("swept %q (%v)", swept, err)
	}
	if err := next.close(); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(root, "*", "*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// TestOnlyDirectoriesMakeWay has a file and a link of somebody's at the mount point
// of a build without a sandbox.
func TestOnlyDirectoriesMakeWay(t *testing.T) {
	w, _, err := openWorkspace(t.TempDir(), "a")
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(file, []byte("kept"), 0o600), os.Symlink(dir, link)); err != nil {
		t.Fatal(err)
	}
	for _, mount := range []string{file, link} {
		if err := w.linkMount(mount, filepath.Join(w.Dir, "store")); fault.KindOf(err) != fault.Refused {
			t.Errorf("%s: %v", mount, err)
		}
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "kept" {
		t.Errorf("the file: %q, %v", data, err)
	}
	if to, err := os.Readlink(link); err != nil || to != dir {
		t.Errorf("the link: %q, %v", to, err)
	}
}

// TestDeadBuildsMakeRoom has no room for a build, where a dead one may take it.
func TestDeadBuildsMakeRoom(t *testing.T) {
	root := t.TempDir()
	dead, _, err := openWorkspace(root, "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := dead.lock.Close(); err != nil {
		t.Fatal(err)
	}
	o := Options{Root: root, Size: 1 << 62, NoSandbox: true}
	o.Stack.Recipe = &recipe.Recipe{Name: "b", Builder: recipe.BuilderScript, Store: "/uenv-ci-test"}
	if _, err := o.build(t.Context()); err == nil || !strings.Contains(err.Error(), "the build needs") {
		t.Errorf("got %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(root, "*", "*")); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}
