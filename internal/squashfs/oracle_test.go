package squashfs

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	diskfile "github.com/diskfs/go-diskfs/backend/file"
	diskfs "github.com/diskfs/go-diskfs/filesystem/squashfs"

	"uenv-ci.dev/internal/proc"
)

// run runs a program and fails the test if it fails.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	var out bytes.Buffer
	c := proc.Cmd{Path: name, Args: args, Env: os.Environ(), Stdout: &out, Stderr: &out}
	if err := c.Run(context.Background()); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out.String())
	}
	return out.String()
}

func has(t *testing.T, program, from string) bool {
	t.Helper()
	_, ok := proc.Look(program)
	if !ok {
		t.Logf("%s not installed (apt-get install %s): not compared with it", program, from)
	}
	return ok
}

// checkAll compares an image with the tree it was made of, through every reader
// that is at hand.
func checkAll(t *testing.T, image, root string) {
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
	checkUnsquashfs(t, image, want)
	checkMounted(t, image, want)
}

func checkUnsquashfs(t *testing.T, image string, want listingOf) {
	t.Helper()
	if !has(t, "unsquashfs", "squashfs-tools") {
		return
	}
	dst := filepath.Join(tempDir(t), "unsquashed")
	out := run(t, "sh", "-c", `umask 0 && exec unsquashfs -q -n -d "$0" "$1"`, dst, image)
	if out = strings.TrimSpace(out); out != "" {
		t.Logf("unsquashfs: %s", out)
	}
	got, err := describeDir(dst)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "unsquashfs", got, want)
}

// checkMounted compares what the kernel and squashfuse show of an image, mounted
// in a private mount namespace.
func checkMounted(t *testing.T, image string, want listingOf) {
	t.Helper()
	if !isRoot() {
		t.Log("not root: not mounted")
		return
	}
	mounts := map[string]string{"kernel": `mount -t squashfs -o loop,ro "$1" "$2"`}
	if has(t, "squashfuse", "squashfuse") && exists("/dev/fuse") {
		mounts["squashfuse"] = `squashfuse "$1" "$2"`
	}
	for name, command := range mounts {
		at := tempDir(t)
		script := command + ` || exit 77; "$0" -test.run='^TestDescribeMounted$'; code=$?; umount "$2"; exit $code`
		c := proc.Cmd{
			Path: "unshare", Args: []string{"--mount", "--propagation", "private", "sh", "-c", script, os.Args[0], image, at},
			Env: append(os.Environ(), "SQUASHFS_TEST_DESCRIBE="+at),
		}
		out, err := c.Output(context.Background())
		if exit, ok := err.(*proc.ExitError); ok && exit.Code == 77 && mountingImpossible(t) {
			t.Logf("%s: cannot mount here: %v", name, exit.Stderr)
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		var got listingOf
		if err := json.NewDecoder(bytes.NewReader(out)).Decode(&got); err != nil {
			t.Fatalf("%s: %v in %q", name, err, out)
		}
		same(t, name, got, escaped(want))
	}
}

// mountingImpossible tells whether not even an image of mksquashfs can be mounted.
func mountingImpossible(t *testing.T) bool {
	t.Helper()
	return !exists("/dev/loop-control") || !supports(t, "squashfs")
}

func supports(t *testing.T, name string) bool {
	t.Helper()
	data, err := os.ReadFile("/proc/filesystems")
	return err == nil && bytes.Contains(data, []byte("\t"+name+"\n"))
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// escaped is what is left of a listing after it went through JSON.
func escaped(l listingOf) listingOf {
	data, _ := json.Marshal(l)
	var back listingOf
	json.Unmarshal(data, &back)
	return back
}

// TestDescribeMounted is no test: checkMounted runs it where the image is mounted.
func TestDescribeMounted(t *testing.T) {
	dir := os.Getenv("SQUASHFS_TEST_DESCRIBE")
	if dir == "" {
		t.Skip("run by other tests")
	}
	l, err := describeDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	json.NewEncoder(os.Stdout).Encode(l)
}

func TestMixedTree(t *testing.T) {
	g := mixedTree(t)
	for name, o := range map[string]WriteOptions{
		"zstd":       {},
		"zstd-19-4K": {Level: 19, BlockSize: 4096},
		"gzip-1M":    {Codec: Gzip, BlockSize: 1 << 20},
		"none":       {Codec: None},
	} {
		t.Run(name, func(t *testing.T) {
			o.Time = testTime
			image, summary := packTree(t, g.root, o)
			checkAll(t, image, g.root)
			if summary.Links != 2 || summary.Directories != 5 {
				t.Errorf("%+v", summary)
			}
			info := openImage(t, image).Info()
			if info.Codec != o.Codec || info.BlockSize != summary.BlockSize || !info.Time.Equal(testTime) || o.Codec != None && info.Level != summary.Level {
				t.Errorf("%+v", info)
			}
		})
	}
}

// TestSecondReader reads an image with another Go library.
func TestSecondReader(t *testing.T) {
	g := newTree(t)
	for i := range 250 {
		g.file(filepath.Join("d", string(rune('a'+i%26)), "f"+strings.Repeat("x", i)), text(i*700, uint64(i)))
	}
	image, summary := packTree(t, g.root, WriteOptions{})
	b, err := diskfile.OpenFromPath(image, true)
	if err != nil {
		t.Fatal(err)
	}
	other, err := diskfs.Read(b, summary.Size, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	m := openImage(t, image)
	files := 0
	err = fs.WalkDir(m, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		want, err := m.ReadFile(name)
		if err != nil {
			return err
		}
		f, err := other.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		got, err := io.ReadAll(f)
		if !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes in place of %d", name, len(got), len(want))
		}
		return err
	})
	if err != nil || files != 250 {
		t.Fatalf("%d files, %v", files, err)
	}
}
