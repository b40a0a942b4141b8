package mount

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/squashfs"
)

// serveWord makes the test program serve an image in place of testing: in a process
// of its own, since Go asks the kernel whether a file can be polled in a way that
// keeps a goroutine which would have to answer that from running.
const (
	serveWord     = "serve-image-at"
	serveByHelper = "by-helper"
)

func TestMain(m *testing.M) {
	if len(os.Args) >= 4 && os.Args[1] == serveWord {
		// It catches the signal to its very end, which the race detector delays.
		ctx, _ := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		alone := os.Args[2] != serveByHelper
		err := Serve(ctx, Served{Image: os.Args[len(os.Args)-2], Dir: os.Args[len(os.Args)-1], Alone: alone, Ready: func() { fmt.Println("ready") }})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func testServer(t *testing.T) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return []string{self, serveWord}
}

// served serves an image at a new directory, and returns the directory and how to
// end that.
func served(t *testing.T, image string) (dir string, end func() error) {
	t.Helper()
	dir = t.TempDir()
	p := serving(t, image, dir)
	stopped := false
	end = func() error {
		if stopped {
			return nil
		}
		stopped = true
		p.Signal(syscall.SIGTERM)
		return p.Wait()
	}
	t.Cleanup(func() {
		if err := end(); err != nil {
			t.Error(err)
		}
	})
	return dir, end
}

// serving starts to serve an image at a directory.
func serving(t *testing.T, image, dir string) *proc.Process {
	t.Helper()
	need(t, Own)
	if _, ok := proc.Look(fuseHelper); !ok && os.Geteuid() != 0 {
		t.Skipf("%s is not installed: apt-get install fuse3", fuseHelper)
	}
	c := proc.Cmd{Path: testServer(t)[0], Args: []string{serveWord, image, dir}, Env: toolEnv()}
	if _, ok := proc.Look(fuseHelper); ok {
		c.Args = []string{serveWord, serveByHelper, image, dir}
	}
	ready, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	c.Stdout = w
	p, err := c.Start(context.WithoutCancel(t.Context()))
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if said, err := io.ReadAll(io.LimitReader(ready, 6)); string(said) != "ready\n" {
		t.Fatalf("%q, %v: %v", said, err, p.Wait())
	}
	return p
}

// variedTree makes a tree with something of everything.
func variedTree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const block = 128 << 10
	for _, size := range []int{0, 1, 4095, block - 1, block, block + 1, 3*block + 17, 2 << 20} {
		must(os.WriteFile(fmt.Sprintf("%s/size-%d", root, size), noise(size), 0o640))
	}
	sparse, err := os.Create(root + "/sparse")
	must(err)
	_, err = sparse.WriteAt([]byte("end"), 5*block+5)
	must(errors.Join(err, sparse.Truncate(7*block+1), sparse.Close()))
	must(os.Mkdir(root+"/many", 0o755))
	for i := range 4000 {
		must(os.WriteFile(fmt.Sprintf("%s/many/a-name-of-some-length-%04d", root, i), []byte{byte(i)}, 0o644))
	}
	must(os.MkdirAll(root+"/deep/er/and/deeper", 0o711))
	must(os.Mkdir(root+"/empty", 0o700))
	must(os.Link(root+"/size-1", root+"/deep/er/hard"))
	must(os.Symlink("../size-1", root+"/deep/link"))
	must(os.Symlink("/nowhere/"+strings.Repeat("x", 200), root+"/dangling"))
	must(os.WriteFile(root+"/not-utf8-\xff\xfe", []byte("name"), 0o600))
	must(os.WriteFile(root+"/"+strings.Repeat("n", 255), nil, 0o755))
	must(unix.Mkfifo(root+"/fifo", 0o622))
	if os.Geteuid() == 0 {
		must(unix.Mknod(root+"/device", unix.S_IFCHR|0o600, int(unix.Mkdev(259, 300))))
	}
	must(os.Chmod(root+"/size-4095", 0o4755|fs.ModeSetuid))
	for _, name := range []string{"/size-1", "/many"} {
		if err := unix.Setxattr(root+name, "user.note", []byte("of "+name), 0); err != nil {
			t.Logf("no extended attributes here: %v", err)
		}
	}
	return root
}

func noise(size int) []byte {
	r := rand.New(rand.NewPCG(uint64(size), 1))
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(r.UintN(20)) // compresses a bit
	}
	return data
}

// sameTree compares two trees.
func sameTree(t *testing.T, want, got string) {
	t.Helper()
	seen := 0
	err := filepath.WalkDir(want, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		seen++
		name := strings.TrimPrefix(path, want)
		var a, b unix.Stat_t
		if err := errors.Join(unix.Lstat(path, &a), unix.Lstat(got+name, &b)); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		if a.Mode != b.Mode || a.Nlink != b.Nlink && a.Mode&unix.S_IFMT != unix.S_IFDIR || a.Rdev != b.Rdev {
			t.Errorf("%q: mode %o, links %d, device %x in place of %o, %d, %x", name, b.Mode, b.Nlink, b.Rdev, a.Mode, a.Nlink, a.Rdev)
		}
		switch d.Type() {
		case fs.ModeSymlink:
			a, _ := os.Readlink(path)
			if b, err := os.Readlink(got + name); a != b || err != nil {
				t.Errorf("%q leads to %q, %v", name, b, err)
			}
		case 0:
			a, aErr := os.ReadFile(path)
			b, bErr := os.ReadFile(got + name)
			if !bytes.Equal(a, b) || aErr != nil || bErr != nil {
				t.Errorf("%q: other content: %v %v", name, aErr, bErr)
			}
		case fs.ModeDir:
			a, aErr := os.ReadDir(path)
			b, bErr := os.ReadDir(got + name)
			if fmt.Sprint(a) != fmt.Sprint(b) || aErr != nil || bErr != nil {
				t.Errorf("%q: %d entries in place of %d, %v %v", name, len(b), len(a), aErr, bErr)
			}
		}
		if x, y := attributesOf(path), attributesOf(got+name); x != y {
			t.Errorf("%q: attributes %s in place of %s", name, y, x)
		}
		return nil
	})
	if err != nil || seen < 4000 {
		t.Fatalf("%d entries: %v", seen, err)
	}
}

func attributesOf(path string) string {
	buf := make([]byte, 1000)
	n, err := unix.Llistxattr(path, buf)
	if err != nil || n == 0 {
		return ""
	}
	text := ""
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		value := make([]byte, 100)
		n, err := unix.Lgetxattr(path, name, value)
		text += fmt.Sprintf("%s=%q %v;", name, value[:max(n, 0)], err)
	}
	return text
}

func TestServeShowsWhatIsPacked(t *testing.T) {
	tree := variedTree(t)
	images := map[string]string{"own": filepath.Join(t.TempDir(), "own"), "mksquashfs": filepath.Join(t.TempDir(), "mk")}
	if _, err := squashfs.Pack(t.Context(), tree, images["own"], squashfs.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, image := range images {
		t.Run(name, func(t *testing.T) {
			if name == "mksquashfs" {
				if _, ok := proc.Look(name); !ok {
					t.Skip("mksquashfs not installed: apt-get install squashfs-tools")
				}
				c := proc.Cmd{Path: name, Args: []string{tree, image, "-comp", "zstd", "-no-progress", "-quiet", "-b", "64K"}, Env: toolEnv()}
				if _, err := c.Output(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			dir, _ := served(t, image)
			sameTree(t, tree, dir)
			sameTree(t, tree, dir) // from what the kernel keeps
			for _, change := range []error{os.WriteFile(dir+"/new", nil, 0o600), os.Remove(dir + "/size-0"), os.Chmod(dir+"/size-0", 0o777)} {
				if !errors.Is(change, unix.EROFS) {
					t.Errorf("a change: %v", change)
				}
			}
			if _, err := os.Stat(dir + "/many/none"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("what is not there: %v", err)
			}
		})
	}
}

// TestServeSeeks goes back and forth in a directory and in a file.
func TestServeSeeks(t *testing.T) {
	tree := variedTree(t)
	image := filepath.Join(t.TempDir(), "image")
	if _, err := squashfs.Pack(t.Context(), tree, image, squashfs.WriteOptions{BlockSize: 4096}); err != nil {
		t.Fatal(err)
	}
	dir, _ := served(t, image)
	d, err := os.Open(dir + "/many")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, n := range []int{10, 1500, 4000} {
		if _, err := d.Seek(0, 0); err != nil {
			t.Fatal(err)
		}
		if names, err := d.Readdirnames(n); len(names) != n || err != nil {
			t.Errorf("%d names in place of %d: %v", len(names), n, err)
		}
	}
	f, err := os.Open(dir + "/size-2097152")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := noise(2 << 20)
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		at, n := r.IntN(len(want)), r.IntN(20_000)
		buf := make([]byte, n)
		got, _ := f.ReadAt(buf, int64(at))
		if wanted := want[at:min(len(want), at+n)]; got != len(wanted) || !bytes.Equal(buf[:got], wanted) {
			t.Fatalf("%d bytes at %d: got %d, or others", n, at, got)
		}
	}
}

func TestServeEnds(t *testing.T) {
	image := testImage(t)
	t.Run("by-a-signal-while-in-use", func(t *testing.T) {
		dir, end := served(t, image)
		f, err := os.Open(dir + "/data")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if entries, err := os.ReadDir(dir); len(entries) != 0 || err != nil {
			t.Errorf("left: %v, %v", entries, err)
		}
	})
	t.Run("by-umount", func(t *testing.T) {
		dir, end := served(t, image)
		unmount := proc.Cmd{Path: fuseHelper, Args: []string{"-u", dir}, Env: toolEnv()}
		if _, ok := proc.Look(fuseHelper); !ok {
			unmount = proc.Cmd{Path: "umount", Args: []string{dir}, Env: toolEnv()}
		}
		if err := unmount.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := end(); err != nil {
			t.Error(err)
		}
	})
}

// TestServeAfterKill mounts where a program that was killed may have left a mount
// that nobody can use.
func TestServeAfterKill(t *testing.T) {
	image, dir := testImage(t), t.TempDir()
	for range 3 {
		p := serving(t, image, dir)
		p.Signal(syscall.SIGKILL)
		p.Wait()
	}
	p := serving(t, image, dir)
	if got, err := os.ReadFile(dir + "/data"); string(got) != "content" {
		t.Errorf("%q, %v", got, err)
	}
	p.Signal(syscall.SIGTERM)
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
}

func TestServeRefuses(t *testing.T) {
	image := testImage(t)
	text := filepath.Join(t.TempDir(), "text")
	os.WriteFile(text, []byte("no image"), 0o600)
	for name, c := range map[string]struct {
		image, dir string
		kind       fault.Kind
	}{
		"no image":      {t.TempDir() + "/none", t.TempDir(), fault.NotFound},
		"not an image":  {text, t.TempDir(), fault.Invalid},
		"no directory":  {image, t.TempDir() + "/none", fault.NotFound},
		"a file":        {image, text, fault.Invalid},
		"of the system": {image, "/etc", fault.Invalid},
		"everybody's":   {image, "/tmp", fault.Invalid},
	} {
		if err := Serve(t.Context(), Served{Image: c.image, Dir: c.dir}); fault.KindOf(err) != c.kind {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestServeDamaged reads images that are damaged at random places: programs get
// errors, and the mount goes on and ends as any other.
func TestServeDamaged(t *testing.T) {
	data, err := os.ReadFile(testImage(t))
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(8, 9))
	errorsMet := 0
	for range 25 {
		damaged := bytes.Clone(data)
		for range 3 {
			damaged[96+r.IntN(600)] ^= byte(1 + r.UintN(255)) // behind the superblock
		}
		path := filepath.Join(t.TempDir(), "damaged")
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := squashfs.Open(path)
		if err != nil {
			continue
		}
		if _, err := newFilesystem(m, nil); err != nil {
			errorsMet++
			continue
		}
		dir, end := served(t, path)
		filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				_, err = os.ReadFile(path)
			}
			if err != nil {
				errorsMet++
			}
			return nil
		})
		if err := end(); err != nil {
			t.Fatal(err)
		}
	}
	if errorsMet == 0 {
		t.Error("no damage was met")
	}
}
