package squashfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/proc"
)

// mksquashfs is the program of squashfs-tools that packs.
const mksquashfs = "mksquashfs"

// MksquashfsVersion returns what the bytes of images depend on that mksquashfs
// packs: "mksquashfs-4.5.1". The error's kind is NotFound if it is not installed.
func MksquashfsVersion(ctx context.Context) (string, error) {
	path, ok := proc.Look(mksquashfs)
	if !ok {
		return "", fault.WithHint(fault.New(fault.NotFound, "%s is not installed", mksquashfs), "apt-get install squashfs-tools")
	}
	out, err := proc.Cmd{Path: path, Args: []string{"-version"}, Env: mksquashfsEnv()}.Output(ctx)
	var exit *proc.ExitError
	if err != nil && !errors.As(err, &exit) { // some versions exit with 1 after it
		return "", err
	}
	_, after, _ := strings.Cut(string(out), "mksquashfs version ")
	version, _, _ := strings.Cut(after, " ")
	if version == "" || strings.ContainsFunc(version, unprintable) {
		return "", fmt.Errorf("%s does not tell its version: %q", mksquashfs, out)
	}
	return mksquashfs + "-" + version, nil
}

// mksquashfsEnv is without SOURCE_DATE_EPOCH, which mksquashfs takes for a second
// opinion on times, and refuses.
func mksquashfsEnv() []string { return []string{"LC_ALL=C", "PATH=" + os.Getenv("PATH")} }

// PackByMksquashfs is Pack done by mksquashfs, for who wants that: the file appears
// under its name only when it is complete, was read whole and is on disk. The
// options mean the same, except that nothing can be excluded.
func PackByMksquashfs(ctx context.Context, root, file string, o WriteOptions) (Summary, error) {
	summary, err := packByMksquashfs(ctx, root, file, o)
	if err != nil {
		return Summary{}, fmt.Errorf("by %s: %w", mksquashfs, err)
	}
	o.Events.Done(stage, "%d bytes from %d", summary.Size, summary.InputBytes)
	return summary, nil
}

func packByMksquashfs(ctx context.Context, root, file string, o WriteOptions) (s Summary, err error) {
	if o.Base != "" || o.KeepBlocks {
		return s, fault.New(fault.Usage, "only our own packer takes blocks from a base")
	}
	if len(o.Exclude) > 0 {
		return s, fault.New(fault.Usage, "nothing can be excluded, since its patterns mean other things than ours")
	}
	spec, err := o.complete()
	if err != nil {
		return s, err
	}
	version, err := MksquashfsVersion(ctx)
	if err != nil {
		return s, err
	}
	// It makes its file itself, so what is not complete is in a directory of its own.
	dir, err := os.MkdirTemp(filepath.Dir(file), "."+filepath.Base(file)+".*")
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	made := filepath.Join(dir, "image")
	o.Events.Start(stage, "%s by %s", root, version)
	c := proc.Cmd{Path: mksquashfs, Args: mksquashfsArgs(filepath.Clean(root), made, spec, o), Env: mksquashfsEnv(), Stdout: io.Discard}
	if err := c.Run(ctx); err != nil {
		return s, err
	}
	s = Summary{Codec: spec.codec.String(), CodecVersion: version, Level: spec.level, BlockSize: o.BlockSize}
	if err := s.finish(ctx, made); err != nil {
		return s, err
	}
	return s, commit(made, file)
}

func mksquashfsArgs(root, made string, spec encoderSpec, o WriteOptions) []string {
	if !strings.HasPrefix(root, "/") {
		root = "./" + root // it may begin with a dash
	}
	args := []string{
		root, made, "-noappend", "-no-recovery", "-no-progress", "-quiet",
		"-b", strconv.Itoa(o.BlockSize), "-processors", strconv.Itoa(o.Workers),
		"-mkfs-time", strconv.FormatInt(o.Time.Unix(), 10), "-all-time", strconv.FormatInt(o.ModTime.Unix(), 10),
	}
	if o.ForceOwner != nil {
		args = append(args, "-force-uid", fmt.Sprint(o.ForceOwner.UID), "-force-gid", fmt.Sprint(o.ForceOwner.GID))
	}
	if spec.codec == None {
		return append(args, "-comp", Gzip.String(), "-noI", "-noD", "-noF", "-noX")
	}
	return append(args, "-comp", spec.codec.String(), "-Xcompression-level", strconv.Itoa(spec.level))
}

// finish reads an image that was made, notes in it what made it, and fills in
// what is known of it.
func (s *Summary) finish(ctx context.Context, made string) error {
	f, err := os.OpenFile(made, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	m, err := NewReader(f, info.Size(), Limits{})
	if err != nil {
		return err
	}
	defer m.Close()
	if err := s.count(ctx, m); err != nil {
		return err
	}
	note := []byte(noteHead + s.Compressor() + "\n")
	end := (int64(m.sb.BytesUsed) + int64(len(note)) + imageAlign - 1) / imageAlign * imageAlign
	padding := bytes.Repeat([]byte{0}, int(end-int64(m.sb.BytesUsed)))
	copy(padding, note)
	if _, err := f.WriteAt(padding, int64(m.sb.BytesUsed)); err != nil {
		return explainFull(err)
	}
	if err := f.Sync(); err != nil {
		return explainFull(err)
	}
	s.Size = max(info.Size(), end)
	s.Digest, err = fileDigest(ctx, f, s.Size)
	return err
}

// count reads the image whole, and counts what is in it.
func (s *Summary) count(ctx context.Context, m *Image) error {
	v := newVerifier(m, nil)
	if err := v.run(ctx); err != nil {
		return fmt.Errorf("the image that was made is not right: %w", err)
	}
	for _, seen := range v.inodes {
		if seen.dir {
			s.Directories++
			continue
		}
		s.Files += int(seen.names)
		s.Links += int(seen.names) - 1
	}
	w := walker{m: m, directory: func(string, *inode) error { return nil }}
	counted := map[uint32]bool{}
	w.entry = func(_ string, _ *inode, _ dirent, i *inode) error {
		if i.kind == typeFile && !counted[i.number] {
			counted[i.number] = i.nlink > 1
			s.InputBytes += i.size
		}
		return nil
	}
	return w.walk(ctx)
}

// commit gives a file its name.
func commit(made, file string) error {
	if err := os.Chmod(made, 0o644); err != nil {
		return err
	}
	if err := os.Rename(made, file); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
