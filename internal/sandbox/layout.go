package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/pathcheck"
)

// layout collects the options that make the file system of a sandbox.
//
// Binding / as a whole would be simpler, but would let bubblewrap create mount
// points on the host. So the root is one in memory, and the entries of / are
// bound into it.
type layout struct {
	bind    string   // option that binds an entry of the host
	strict  bool     // directories of the host must stay what they are
	flat    bool     // links in / to directories of /usr become directories
	hidden  []string // resolved, sorted, none below another
	targets []string // resolved targets of all binds
	own     []string // resolved targets of binds that every sandbox has
	missing []string // resolved targets that the host does not have
	args    []string
}

func (s Spec) layout() (*layout, error) {
	l := &layout{bind: "--ro-bind-try", flat: s.Flat}
	if s.Transparent {
		l.bind, l.strict = "--dev-bind-try", true
	} else {
		var err error
		if l.hidden, err = hidden(s.Hide, accountHome()); err != nil {
			return nil, fmt.Errorf("sandbox: %w", err)
		}
	}
	private := s.private()
	binds := append(private, s.Binds...)
	for i, b := range binds {
		target, err := l.target(b)
		if err != nil {
			return nil, fmt.Errorf("sandbox: %w", err)
		}
		binds[i].Target = target
		l.targets = append(l.targets, target)
		if i < len(private) {
			l.own = append(l.own, target)
		}
	}
	if err := l.host(); err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	if !s.Transparent {
		l.add("--proc", "/proc", "--dev", "/dev", "--tmpfs", "/dev/shm")
		l.settings()
	}
	for _, path := range l.hidden {
		l.mask(path)
	}
	for _, b := range binds {
		l.put(b)
	}
	if !s.Transparent {
		l.add("--remount-ro", "/")
	}
	return l, nil
}

// private returns the binds that every isolated sandbox has. A bind without a
// source is an empty directory in memory.
func (s Spec) private() []Bind {
	if s.Transparent {
		return nil
	}
	binds := []Bind{{s.Tmp, "/tmp", true}, {s.Home, Home(), true}}
	if s.Network {
		// The file often is a link into /run, which is hidden.
		if file, err := filepath.EvalSymlinks("/etc/resolv.conf"); err == nil {
			binds = append(binds, Bind{file, file, false})
		}
	}
	return binds
}

// target returns where a bind goes once links of the host are followed, and
// notes it if the host has nothing there.
func (l *layout) target(b Bind) (string, error) {
	if b.Source != "" && !filepath.IsAbs(b.Source) || !filepath.IsAbs(b.Target) {
		return "", fmt.Errorf("cannot bind %q to %q: a path is not absolute", b.Source, b.Target)
	}
	path, exists, err := resolve(b.Target)
	if err != nil {
		return "", err
	}
	if path == "/" {
		return "", fmt.Errorf("cannot bind %q to %q: that is the root directory", b.Source, b.Target)
	}
	if !exists && !l.isCovered(path) {
		l.missing = append(l.missing, path)
	}
	return path, nil
}

// host shows the entries of /.
func (l *layout) host() error {
	for _, path := range children("/") {
		if !l.strict && (path == "/proc" || path == "/dev") {
			continue
		}
		if err := l.show(path); err != nil {
			return err
		}
	}
	return nil
}

// show makes a path appear as it is on the host. A directory in which a target
// has to be created is rebuilt from its entries instead: nothing can be created
// in one that is bound.
func (l *layout) show(path string) error {
	info, err := os.Lstat(path)
	switch {
	case err != nil || l.isCovered(path):
		return nil
	case info.Mode().Type() == fs.ModeSymlink && l.isFlat(path):
		l.add(l.bind, path, path)
		return nil
	case info.Mode().Type() == fs.ModeSymlink:
		to, err := os.Readlink(path)
		if err == nil {
			l.add("--symlink", to, path)
		}
		return nil
	case !info.IsDir() || l.missingIn(path) == "":
		l.add(l.bind, path, path)
		return nil
	case l.strict && unix.Access(path, unix.W_OK) == nil:
		// What is created in a rebuilt directory would be lost.
		return fault.WithHint(
			fault.New(fault.Failure, "the mount point %s does not exist", l.missingIn(path)), "create it")
	}
	l.add("--dir", path)
	for _, child := range children(path) {
		if err := l.show(child); err != nil {
			return err
		}
	}
	return nil
}

// isFlat tells whether a link becomes a directory: a second way to the same files,
// which what is hidden or bound on the first would not cover.
func (l *layout) isFlat(link string) bool {
	if !l.flat || filepath.Dir(link) != "/" {
		return false
	}
	to, err := filepath.EvalSymlinks(link)
	if err != nil || !strings.HasPrefix(to, "/usr/") {
		return false
	}
	info, err := os.Stat(to)
	if err != nil || !info.IsDir() {
		return false
	}
	below := func(path string) bool { return pathcheck.Within(path, to) || pathcheck.Within(to, path) }
	return !slices.ContainsFunc(l.hidden, below) && !slices.ContainsFunc(l.targets, below)
}

// settings makes the kernel's settings below /proc read-only. They belong to user
// 0, whether or not it has capabilities: without this, root in a sandbox could
// name a program that the host's kernel runs at the next core dump. Bubblewrap
// means to do it, but takes /proc/sys, whose own mode is 0555, for read-only.
func (l *layout) settings() {
	if os.Getuid() != 0 {
		return
	}
	for _, path := range children("/proc") {
		info, err := os.Lstat(path)
		if err != nil || strings.Trim(filepath.Base(path), "0123456789") == "" {
			continue
		}
		if info.IsDir() || info.Mode().IsRegular() && info.Mode().Perm()&0o222 != 0 {
			l.add("--ro-bind-try", path, path)
		}
	}
}

func (l *layout) put(b Bind) {
	switch {
	case b.Source == "":
		l.add("--tmpfs", b.Target)
	case b.Writable:
		l.add("--bind", b.Source, b.Target)
	default:
		l.add("--ro-bind", b.Source, b.Target)
	}
}

// mask makes a path of the host empty.
func (l *layout) mask(path string) {
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		l.add("--ro-bind", os.DevNull, path)
		return
	}
	l.add("--tmpfs", path)
}

func (l *layout) add(args ...string) { l.args = append(l.args, args...) }

// isCovered tells whether nothing of the host is to be seen at a path, so that
// what is missing there can be created.
func (l *layout) isCovered(path string) bool {
	below := func(dir string) bool { return pathcheck.Within(path, dir) }
	return slices.ContainsFunc(l.hidden, below) || slices.ContainsFunc(l.own, below)
}

// missingIn returns a missing target below a directory, "" if there is none.
func (l *layout) missingIn(dir string) string {
	i := slices.IndexFunc(l.missing, func(m string) bool { return pathcheck.Within(m, dir) })
	if i < 0 {
		return ""
	}
	return l.missing[i]
}

// children returns the paths of a directory's entries, none if it cannot be read.
func children(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	paths := make([]string, len(entries))
	for i, e := range entries {
		paths[i] = filepath.Join(dir, e.Name())
	}
	return paths
}

// resolve follows the links in the part of a path that exists.
func resolve(path string) (resolved string, exists bool, err error) {
	path = filepath.Clean(path)
	rest := ""
	for {
		real, err := filepath.EvalSymlinks(path)
		if err == nil {
			return filepath.Join(real, rest), rest == "", nil
		}
		if !errors.Is(err, fs.ErrNotExist) || path == "/" {
			return "", false, err
		}
		rest = filepath.Join(filepath.Base(path), rest)
		path = filepath.Dir(path)
	}
}
