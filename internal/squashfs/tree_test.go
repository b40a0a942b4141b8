package squashfs

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// grower makes directory trees to be packed.
type grower struct {
	t    *testing.T
	root string
}

func newTree(t *testing.T) grower {
	t.Helper()
	root := filepath.Join(tempDir(t), "tree")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	return grower{t, root}
}

// tempDir returns a directory for many files: in memory, if there is room.
func tempDir(t *testing.T) string {
	t.Helper()
	const shm = "/dev/shm"
	var st unix.Statfs_t
	if err := unix.Statfs(shm, &st); err != nil || st.Type != unix.TMPFS_MAGIC || int64(st.Bavail)*st.Bsize < 1<<30 {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(shm, "squashfs-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func (g grower) path(name string) string { return filepath.Join(g.root, name) }

func (g grower) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

func (g grower) dir(name string) {
	g.t.Helper()
	g.must(os.MkdirAll(g.path(name), 0o755))
}

func (g grower) file(name string, data []byte) {
	g.t.Helper()
	g.must(os.MkdirAll(filepath.Dir(g.path(name)), 0o755))
	g.must(os.WriteFile(g.path(name), data, 0o644))
}

func (g grower) link(target, name string) {
	g.t.Helper()
	g.must(os.Symlink(target, g.path(name)))
}

func (g grower) hardLink(old, name string) {
	g.t.Helper()
	g.must(os.Link(g.path(old), g.path(name)))
}

// xattr sets an attribute, or tells that the file system has none.
func (g grower) xattr(name, key, value string) bool {
	g.t.Helper()
	err := unix.Lsetxattr(g.path(name), key, []byte(value), 0)
	if errors.Is(err, unix.ENOTSUP) {
		g.t.Logf("no extended attributes on the file system of %s", g.root)
		return false
	}
	g.must(err)
	return true
}

// sweep tells whether the long tests are wanted.
func sweep() bool { return os.Getenv("UENV_CI_SQUASHFS_SWEEP") != "" }

// usable makes a mode one that lets us read, and set attributes.
func usable(mode os.FileMode) os.FileMode {
	if isRoot() {
		return mode
	}
	return mode | 0o600
}

func isRoot() bool { return os.Geteuid() == 0 }

// text is content that compresses, of so many bytes, different for each seed.
func text(size int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	words := []string{"lib", "include", "share ", "python3.12", "/site-packages/", "__init__", "\n", "0x", "cmake", "=", "spack"}
	b := make([]byte, 0, size+16)
	for len(b) < size {
		b = append(b, words[r.IntN(len(words))]...)
	}
	return b[:size]
}

// noise is content that does not compress.
func noise(size int, seed uint64) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	b := make([]byte, size)
	r.Read(b)
	return b
}

var testTime = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// packTree packs a tree and checks the image with Verify.
func packTree(t *testing.T, root string, o WriteOptions) (string, Summary) {
	t.Helper()
	image := filepath.Join(tempDir(t), "image.squashfs")
	summary, err := Pack(context.Background(), root, image, o)
	if err != nil {
		t.Fatal(err)
	}
	verifyImage(t, image)
	return image, summary
}

func openImage(t *testing.T, path string) *Image {
	t.Helper()
	m, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func verifyImage(t *testing.T, path string) {
	t.Helper()
	if err := Verify(context.Background(), openImage(t, path), nil); err != nil {
		t.Fatal(err)
	}
}

// listingOf describes each file of a tree, by its path.
type listingOf map[string]string

// describeDir describes a tree of the file system.
func describeDir(root string) (listingOf, error) {
	l := listingOf{}
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, name)
		links := uint32(st.Nlink)
		if d.IsDir() {
			links = 0 // file systems count them in different ways
		}
		text := fmt.Sprintf("%06o %d:%d links=%d", st.Mode, st.Uid, st.Gid, links)
		switch {
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(name)
			if err != nil {
				return err
			}
			text += " -> " + target
		case d.Type().IsRegular():
			f, err := os.Open(name)
			if err != nil {
				return err
			}
			defer f.Close()
			text += contentOf(f)
		case d.Type()&fs.ModeDevice != 0:
			text += fmt.Sprintf(" dev=%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		if d.IsDir() || d.Type().IsRegular() {
			f, err := os.Open(name)
			if err != nil {
				return err
			}
			defer f.Close()
			xattrs, err := readXattrs(int(f.Fd()), name)
			if err != nil {
				return err
			}
			text += xattrText(xattrs)
		}
		l[rel] = text
		return nil
	})
	return l, err
}

func contentOf(r io.Reader) string {
	h := sha256.New()
	n, err := io.Copy(h, r)
	return fmt.Sprintf(" %d bytes %x %v", n, h.Sum(nil)[:8], err)
}

func xattrText(all []xattr) string {
	var b strings.Builder
	byName := func(a, b xattr) int { return strings.Compare(a.name, b.name) }
	for _, x := range slices.SortedFunc(slices.Values(all), byName) {
		fmt.Fprintf(&b, " %s=%d:%x", x.name, len(x.value), sha256.Sum256(x.value))
	}
	return b.String()
}

// describeImage describes the tree of an image, read by our own reader.
func describeImage(m *Image) (listingOf, error) {
	l := listingOf{}
	w := walker{m: m, directory: func(path string, dir *inode) error {
		text, err := describeInode(m, dir)
		if path == "" {
			path = "."
		}
		l[path] = text
		return err
	}}
	w.entry = func(path string, _ *inode, d dirent, i *inode) error {
		if i.kind == typeDir {
			return nil
		}
		text, err := describeInode(m, i)
		l[join(path, d.name)] = text
		return err
	}
	return l, w.walk(context.Background())
}

func describeInode(m *Image, i *inode) (string, error) {
	owner, err := m.owner(i)
	if err != nil {
		return "", err
	}
	types := map[uint16]uint32{
		typeDir: unix.S_IFDIR, typeFile: unix.S_IFREG, typeSymlink: unix.S_IFLNK, typeBlockDevice: unix.S_IFBLK,
		typeCharDevice: unix.S_IFCHR, typeFifo: unix.S_IFIFO, typeSocket: unix.S_IFSOCK,
	}
	links := i.nlink
	if i.kind == typeDir {
		links = 0
	}
	text := fmt.Sprintf("%06o %d:%d links=%d", types[i.kind]|uint32(i.perm), owner.UID, owner.GID, links)
	switch i.kind {
	case typeSymlink:
		text += " -> " + i.target
	case typeFile:
		c, err := m.content(i)
		if err != nil {
			return "", err
		}
		text += contentOf(io.NewSectionReader(readerAt(c.readAt), 0, i.size))
	case typeBlockDevice, typeCharDevice:
		text += fmt.Sprintf(" dev=%d:%d", i.rdev>>8&0xfff, i.rdev&0xff|i.rdev>>12&^0xff)
	}
	xattrs, err := m.xattrsOf(i)
	return text + xattrText(xattrs), err
}

type readerAt func([]byte, int64) (int, error)

func (f readerAt) ReadAt(p []byte, off int64) (int, error) { return f(p, off) }

// same fails the test if two trees differ.
func same(t *testing.T, what string, got, want listingOf) {
	t.Helper()
	names := maps.Clone(want)
	maps.Copy(names, got)
	shown := 0
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if got[name] != want[name] && shown < 10 {
			shown++
			t.Errorf("%s: %q:\n got %s\nwant %s", what, name, got[name], want[name])
		}
	}
}

// checkReader compares an image, as our reader sees it, with the tree.
func checkReader(t *testing.T, image, root string) {
	t.Helper()
	want, err := describeDir(root)
	if err != nil {
		t.Fatal(err)
	}
	got, err := describeImage(openImage(t, image))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "own reader", got, want)
}

// mixedTree has something of everything.
func mixedTree(t *testing.T) grower {
	t.Helper()
	g := newTree(t)
	g.dir("empty")
	g.dir("bin")
	g.file("bin/tool", noise(300_000, 1))
	g.must(os.Chmod(g.path("bin/tool"), 0o4755))
	g.file("lib/libtool.so.1.2", text(700_001, 2))
	g.link("libtool.so.1.2", "lib/libtool.so.1")
	g.link("/user-environment/nowhere", "lib/dangling")
	g.link("../lib", "bin/lib")
	for i := range 40 {
		g.file(fmt.Sprintf("include/header%02d.h", i), text(i*97, uint64(i)))
	}
	g.file("lib/copy.so", text(700_001, 2))
	g.file("include/copy.h", text(97, 1))
	g.hardLink("lib/libtool.so.1.2", "lib/hard")
	g.hardLink("include/header05.h", "bin/hard.h")
	g.file("zero", nil)
	g.file("private", []byte("x"))
	g.must(os.Chmod(g.path("private"), usable(0)))
	g.must(os.Chmod(g.path("empty"), 0o1777))
	sparse, err := os.Create(g.path("sparse"))
	g.must(err)
	_, err = sparse.WriteAt([]byte("middle"), 1_000_000)
	g.must(err)
	g.must(sparse.Truncate(3_000_000))
	g.must(sparse.Close())
	g.must(unix.Mkfifo(g.path("fifo"), 0o640))
	g.must(unix.Mknod(g.path("socket"), unix.S_IFSOCK|0o600, 0))
	if g.xattr("zero", "user.note", "empty file") {
		g.xattr("bin", "user.note", "a directory")
		g.xattr("bin/tool", "user.long", strings.Repeat("v", 3000))
		g.xattr("bin/tool", "user.note", "empty file")
		g.xattr("include/header01.h", "user.note", "empty file")
	}
	if isRoot() {
		g.must(unix.Mknod(g.path("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		g.must(unix.Mknod(g.path("disk"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 70_000))))
		g.must(os.Lchown(g.path("lib/dangling"), 1000, 100))
		g.must(os.Lchown(g.path("bin/tool"), 70_000, 4_000_000_000))
		g.must(os.Chmod(g.path("bin/tool"), 0o4755))
	}
	return g
}
