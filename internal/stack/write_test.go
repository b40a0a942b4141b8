package stack_test

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/stack"
)

// listing is every file below a directory with its mode and content.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		info, err := d.Info()
		if err != nil {
			return err
		}
		if d.IsDir() {
			found[name] = "directory " + info.Mode().Perm().String()
			return nil
		}
		data, err := os.ReadFile(path)
		found[name] = info.Mode().String() + " " + string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestWrite(t *testing.T) {
	r := recipeV3.with(files{
		"repo/packages/mine/package.py":   "mine of the recipe",
		"repo/packages/shared/package.py": "shared of the recipe",
		"repo/packages/README":            "no package",
		"extra/reframe.yaml":              "tests",
		".git/HEAD":                       "no part of the recipe",
	})
	c := clusterV2.with(files{
		"repos.yaml":                       "repos: [first, second]\n",
		"first/packages/shared/package.py": "shared of the first",
		"second/packages/shared/x.patch":   "shared of the second",
		"second/packages/two/package.py":   "two",
	})
	in := input(t, r, c)
	script := filepath.Join(in.Recipe.Dir, "repo/packages/mine/tool")
	if err := os.WriteFile(script, []byte("tool"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("mine", filepath.Join(in.Recipe.Dir, "repo/packages/alias")); err != nil {
		t.Fatal(err)
	}
	tree, _ := render(t, in)
	out := filepath.Join(t.TempDir(), "build")
	if err := os.MkdirAll(filepath.Join(out, "store/meta/recipe/stale"), 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 { // writing again replaces
		if err := tree.Write(out); err != nil {
			t.Fatal(err)
		}
	}
	got := listing(t, out)
	const repos = "store/repos/spack_repo/"
	for name, want := range map[string]string{
		repos + "recipe/packages/mine/package.py":  "-rw-r--r-- mine of the recipe",
		repos + "recipe/packages/mine/tool":        "-rwxr-xr-x tool",
		repos + "recipe/packages/alias/package.py": "-rw-r--r-- mine of the recipe",
		repos + "recipe/packages/shared":           "directory -rwxr-xr-x",
		repos + "recipe/packages/README":           "",
		repos + "alps/packages/shared/package.py":  "-rw-r--r-- shared of the first",
		repos + "alps/packages/shared/x.patch":     "",
		repos + "alps/packages/two/package.py":     "-rw-r--r-- two",
		"store/meta/recipe/config.yaml":            "-rw-r--r-- " + r["config.yaml"],
		"store/meta/recipe/.git":                   "",
		"store/meta/recipe/stale":                  "",
		"store/meta/extra/reframe.yaml":            "-rw-r--r-- tests",
		"tmp":                                      "directory -rwxr-xr-x",
	} {
		if got[name] != want {
			t.Errorf("%s: got %q, want %q", name, got[name], want)
		}
	}
}

// Whoever may pull an image can read the recipe in it.
func TestWriteHidesCredentials(t *testing.T) {
	config := func(spack string) string {
		return "name: demo\nversion: 2\nspack:\n  # not https://me:canary@example.org/spack\n  repo: " + spack + `
  commit: releases/v1.1
  packages:
    zoo: {repo: 'https://me:canary@example.org/spack', commit: v1}
    builtin: {repo: 'ssh://git@example.org/packages.git', commit: v1}
`
	}
	in := input(t, recipeV2.with(files{"config.yaml": config("https://me:canary@example.org/spack.git")}), clusterV2)
	tree, warnings := render(t, in)
	if len(warnings) == 0 || warnings[0].Rule != "credentials" {
		t.Errorf("warnings %v", warnings)
	}
	if tree.Clones[0].Repo != "https://me:canary@example.org/spack.git" {
		t.Errorf("Spack cannot be cloned: %+v", tree.Clones[0])
	}
	out := t.TempDir()
	if err := tree.Write(out); err != nil {
		t.Fatal(err)
	}
	got := listing(t, out)
	for name, text := range got {
		if strings.Contains(text, "canary") {
			t.Errorf("%s: %s", name, text)
		}
	}
	for _, name := range []string{"store/meta/recipe/config.yaml", "store/meta/configure.json"} {
		if text := got[name]; !strings.Contains(text, "https://example.org/spack.git") || !strings.Contains(text, "ssh://git@example.org") {
			t.Errorf("%s: %s", name, text)
		}
	}
	in = input(t, recipeV2.with(files{"config.yaml": config(`"https://me:can\x61ry@example.org/spack.git"`)}), clusterV2)
	tree, _ = render(t, in)
	if err := tree.Write(t.TempDir()); fault.KindOf(err) != fault.Invalid || strings.Contains(err.Error(), "can") && strings.Contains(err.Error(), "me:") {
		t.Errorf("an address that is not plain text: %v", err)
	}
}

func TestWriteV1(t *testing.T) {
	in := input(t, recipeV1.with(files{"repo/packages/shared/package.py": "recipe"}), clusterV1.with(files{
		"concretizer.yaml":                "concretizer: {reuse: false}\n",
		"site.txt":                        "any file",
		"repos.yaml":                      "repos: [own]\n",
		"own/packages/shared/package.py":  "cluster",
		"own/packages/cluster/package.py": "cluster",
	}))
	tree, _ := render(t, in)
	out := t.TempDir()
	if err := tree.Write(out); err != nil {
		t.Fatal(err)
	}
	got := listing(t, out)
	for name, want := range map[string]string{
		"config/packages.yaml":                    "-rw-r--r-- " + clusterV1["packages.yaml"],
		"config/concretizer.yaml":                 "-rw-r--r-- concretizer: {reuse: false}\n",
		"config/site.txt":                         "-rw-r--r-- any file",
		"config/repos.yaml":                       "-rw-r--r-- repos:\n- /user-environment/repo\n",
		"store/repo/repo.yaml":                    "-rw-r--r-- repo:\n  namespace: alps\n",
		"store/repo/packages/shared/package.py":   "-rw-r--r-- recipe",
		"store/repo/packages/cluster/package.py":  "-rw-r--r-- cluster",
		"store/meta/extra":                        "",
		"config/own":                              "",
		"store/meta/recipe/repo/packages/shared":  "directory -rwxr-xr-x",
		"store/repo/packages/shared":              "directory -rwxr-xr-x",
		"store/repos/spack_repo/alps/repo.yaml":   "",
		"generate-config/upstreams.yaml":          "-rw-r--r-- upstreams:\n  system:\n    install_tree: /user-environment\n",
		"environments/tools/spack.yaml/unwritten": "",
	} {
		if got[name] != want {
			t.Errorf("%s: got %q, want %q", name, got[name], want)
		}
	}
}

// A recipe comes from a stranger: its links must not bring in files of the host.
func TestWriteRefusesLinksOut(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "packages", "secret")
	if err := os.MkdirAll(secret, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		"key":             filepath.Join(secret),
		"repo/packages/x": secret,
		"extra":           secret,
		"repo":            filepath.Dir(filepath.Dir(secret)),
	} {
		dir := recipeV3.write(t, t.TempDir())
		link := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
		in := input(t, recipeV3, clusterV2)
		in.Recipe.Dir = dir
		if strings.HasPrefix(name, "repo") {
			in.Recipe.PackageRepo = filepath.Join(dir, "repo")
		}
		if name == "extra" {
			in.Recipe.Extra = link
		}
		tree, _ := render(t, in)
		err := tree.Write(filepath.Join(t.TempDir(), "out"))
		if err == nil {
			t.Errorf("the link %s -> %s was followed", name, target)
		}
	}
}

func TestWriteStaysInside(t *testing.T) {
	out := t.TempDir()
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.Symlink(victim, filepath.Join(out, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"../x", "link/x", "/etc/x"} {
		tree := &stack.Tree{Files: []stack.File{{Path: name, Mode: 0o644}}}
		if err := tree.Write(out); err == nil {
			t.Errorf("%s was written", name)
		}
	}
	tree := &stack.Tree{Files: []stack.File{{Path: "link", Mode: 0o644, Data: []byte("x")}}}
	if err := tree.Write(out); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(victim); err == nil {
		t.Error("a file was written through a link")
	}
}

// A directory that is copied twice is read once; what each copy leaves out, adds
// to and takes precedence over is its own affair.
func TestCopiesOfOneSource(t *testing.T) {
	src, other := t.TempDir(), t.TempDir()
	large := strings.Repeat("0123456789abcdef", 10_000)
	for name, content := range map[string]string{
		"config.yaml": "x", ".git/HEAD": "no", "repo/packages/a/package.py": "a", "repo/packages/a/.git/x": "kept where nothing is excluded",
		"repo/packages/large/x.patch": large, "repo/packages/empty/x": "", "repo/packages/README": "no package",
	} {
		writeFile(t, filepath.Join(src, name), content)
	}
	for name, content := range map[string]string{"packages/a/package.py": "other a", "packages/b/package.py": "b"} {
		writeFile(t, filepath.Join(other, name), content)
	}
	packages := func(from, within string) stack.Copy {
		return stack.Copy{From: filepath.Join(from, "packages"), To: "repo", Within: within, Packages: true}
	}
	whole := stack.Copy{From: src, To: "meta", Exclude: []string{".git"}}
	own, others := packages(filepath.Join(src, "repo"), src), packages(other, other)
	for name, c := range map[string]struct {
		copies []stack.Copy
		a      string
	}{
		"own first":         {[]stack.Copy{whole, own, others}, "a"},
		"the whole last":    {[]stack.Copy{own, others, whole}, "a"},
		"others first":      {[]stack.Copy{others, own, whole}, "other a"},
		"others in between": {[]stack.Copy{whole, others, own}, "other a"},
	} {
		out := t.TempDir()
		if err := (&stack.Tree{Copies: c.copies}).Write(out); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := listing(t, out)
		git := "-rw-r--r-- kept where nothing is excluded"
		if c.a != "a" {
			git = ""
		}
		for file, want := range map[string]string{
			"meta/config.yaml": "-rw-r--r-- x", "meta/.git": "", "meta/.git/HEAD": "", "meta/repo/packages/README": "-rw-r--r-- no package",
			"meta/repo/packages/a/package.py": "-rw-r--r-- a", "meta/repo/packages/a/.git/x": "", "meta/repo/packages/large/x.patch": "-rw-r--r-- " + large,
			"meta/repo/packages/empty/x": "-rw-r--r-- ",
			"repo/a/package.py":          "-rw-r--r-- " + c.a, "repo/a/.git/x": git, "repo/b/package.py": "-rw-r--r-- b", "repo/README": "",
			"repo/large/x.patch": "-rw-r--r-- " + large, "repo/empty/x": "-rw-r--r-- ",
		} {
			if got[file] != want {
				t.Errorf("%s: %s: got %.60q, want %.60q", name, file, got[file], want)
			}
		}
	}
	gone := stack.Copy{From: filepath.Join(src, "gone"), To: "x", Within: src}
	if err := (&stack.Tree{Copies: []stack.Copy{whole, gone}}).Write(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a copy of nothing: %v", err)
	}
}

// Images contain the permissions of what is written, so these depend on nothing
// of where it is written.
func TestWriteModes(t *testing.T) {
	src := t.TempDir()
	for _, name := range []string{"config.yaml", "a/one", "b/one", "b/two", "b/c/d/one"} {
		writeFile(t, filepath.Join(src, name), "x")
	}
	if err := os.Chmod(filepath.Join(src, "b/two"), 0o700); err != nil {
		t.Fatal(err)
	}
	tree := &stack.Tree{
		Files:  []stack.File{{Path: "hook", Mode: 0o755}, {Path: "dir/all", Mode: 0o666}, {Path: "dir/file", Mode: 0o644}},
		Copies: []stack.Copy{{From: src, To: "copy"}},
	}
	want := map[string]fs.FileMode{
		"hook": 0o755, "dir/all": 0o666, "dir/file": 0o644,
		"copy": fs.ModeDir | 0o755, "copy/config.yaml": 0o644, "copy/a": fs.ModeDir | 0o755, "copy/a/one": 0o644,
		"copy/b": fs.ModeDir | 0o755, "copy/b/one": 0o644, "copy/b/two": 0o755, "copy/b/c/d": fs.ModeDir | 0o755, "copy/b/c/d/one": 0o644,
	}
	for name, prepare := range map[string]func(dir string) error{
		"plain":                func(string) error { return nil },
		"group of the parent":  func(dir string) error { return os.Chmod(dir, fs.ModeSetgid|0o775) },
		"default ACL":          func(dir string) error { return setDefaultACL(dir, 7, 0, 0) },
		"generous default ACL": func(dir string) error { return setDefaultACL(dir, 7, 7, 7) },
		"there, with default ACL": func(dir string) error {
			return errors.Join(os.Mkdir(dir+"/copy", 0o755), setDefaultACL(dir+"/copy", 7, 0, 0))
		},
		"there": func(dir string) error {
			return errors.Join(os.MkdirAll(dir+"/dir", 0o700), os.MkdirAll(dir+"/copy/b/c", 0o700))
		},
	} {
		for _, umask := range []int{0, 0o022, 0o027, 0o077} {
			out := t.TempDir()
			if err := prepare(out); errors.Is(err, unix.ENOTSUP) {
				t.Logf("%s: this file system has none", name)
				continue
			} else if err != nil {
				t.Fatal(err)
			}
			if err := writeWith(umask, tree, out); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for file, mode := range want {
				if info, err := os.Lstat(filepath.Join(out, file)); err != nil || info.Mode() != mode {
					t.Errorf("%s, umask %03o: %s: %v, %v; want %v", name, umask, file, info.Mode(), err, mode)
				}
			}
		}
	}
}

func writeWith(umask int, tree *stack.Tree, out string) error {
	defer unix.Umask(unix.Umask(umask))
	return tree.Write(out)
}

// setDefaultACL sets the permissions of the owner, the group and others, in the
// format of acl(5) as an extended attribute: version 2, then tag, permissions and
// an identity that these tags do not have.
func setDefaultACL(dir string, owner, group, others uint16) error {
	acl := binary.LittleEndian.AppendUint32(nil, 2)
	for _, entry := range [][2]uint16{{0x01, owner}, {0x04, group}, {0x20, others}} {
		acl = binary.LittleEndian.AppendUint16(acl, entry[0])
		acl = binary.LittleEndian.AppendUint16(acl, entry[1])
		acl = binary.LittleEndian.AppendUint32(acl, 0xffffffff)
	}
	return unix.Setxattr(dir, "system.posix_acl_default", acl, 0)
}

func writeFile(t *testing.T, name, content string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(content), 0o644)); err != nil {
		t.Fatal(err)
	}
}
