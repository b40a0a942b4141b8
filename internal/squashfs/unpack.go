package squashfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
)

// unpackStage is the name under which unpacking emits its events.
const unpackStage = "unpack"

// UnpackOptions says how an image is unpacked. The zero value is the careful
// way, right for images of others.
type UnpackOptions struct {
	// From is the directory of the image whose content is unpacked; "" is all.
	From string

	// Preserve keeps owners, setuid and setgid bits, device nodes and extended
	// attributes outside of user.*, which mostly takes root.
	Preserve bool

	MaxBytes int64 // of file content, holes not counted; 0 is no limit
	Workers  int   // 0 is one for each processor
	Events   event.Sink
}

// Unpack writes the tree of an image into the directory dst, which is made if it
// does not exist and must be empty otherwise. Modes, times, hard links, symbolic
// links, holes and user.* attributes are kept. Nothing is written outside of dst,
// whatever the image says. After an error what was written is removed.
func Unpack(ctx context.Context, m *Image, dst string, o UnpackOptions) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("unpack to %s: %w", dst, err)
		}
	}()
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	remove, err := prepareEmpty(dst)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(explainFull(err), remove())
		}
	}()
	top, err := os.OpenRoot(dst)
	if err != nil {
		return err
	}
	defer top.Close()
	dir, err := top.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	u := &unpacker{m: m, o: o, top: top, topFD: int(dir.Fd()), first: map[uint32]string{}}
	u.meter = &meter{sink: o.Events, stage: unpackStage}
	return u.run(ctx)
}

// prepareEmpty makes sure that dst is an empty directory, and returns how to
// undo what is done to it.
func prepareEmpty(dst string) (undo func() error, err error) {
	switch err := os.Mkdir(dst, 0o700); {
	case err == nil:
		return func() error { return os.RemoveAll(dst) }, nil
	case !errors.Is(err, fs.ErrExist):
		return nil, err
	}
	d, err := os.Open(dst)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	if _, err := d.Readdirnames(1); err != io.EOF {
		return nil, fault.Wrap(fault.Usage, errors.Join(err, fs.ErrExist), "the directory is not empty")
	}
	if err := d.Chmod(0o700); err != nil { // nobody else shall write to it meanwhile
		return nil, err
	}
	return func() error { return removeContent(dst) }, nil
}

func removeContent(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".")
	for _, e := range entries {
		err = errors.Join(err, root.RemoveAll(e.Name()))
	}
	return err
}

// unpacker unpacks one image. The walk makes directories and all that has no
// content; workers make files. What can be done only when all files are there
// comes last: hard links, and modes and times of directories.
type unpacker struct {
	m     *Image
	o     UnpackOptions
	top   *os.Root
	topFD int
	group *errgroup.Group
	files chan pendingFile
	ctx   context.Context
	meter *meter

	at    *place
	first map[uint32]string // path of each file with several names, by inode
	links [][2]string       // old and new path
	dirs  []pendingDir

	written  atomic.Int64
	skipped  int         // device nodes
	noXattrs atomic.Bool // the file system took none
}

// pendingFile is a file that is yet to be made.
type pendingFile struct {
	at      *place
	path    string // of its directory
	name    string
	content *content
}

// filesAhead is how many files may wait. Each may hold its directory open.
const filesAhead = 64

func (u *unpacker) run(ctx context.Context) error {
	u.o.Events.Start(unpackStage, "%d inodes", u.m.sb.Inodes)
	from, err := u.from()
	if err != nil {
		return err
	}
	if err := u.walk(ctx, from); err != nil {
		return err
	}
	if err := u.finish(ctx); err != nil {
		return err
	}
	if u.skipped > 0 {
		u.o.Events.Warn(unpackStage, "%d device nodes were left out", u.skipped)
	}
	if u.noXattrs.Load() {
		u.o.Events.Warn(unpackStage, "the file system takes no extended attributes: they were left out")
	}
	u.o.Events.Done(unpackStage, "%d bytes", u.written.Load())
	return nil
}

// walk goes through the image while workers make files. They are few and stay: a
// goroutine for each small file would cost as much as the file.
func (u *unpacker) walk(ctx context.Context, from *inode) error {
	u.group, u.ctx = errgroup.WithContext(ctx)
	u.files = make(chan pendingFile, filesAhead)
	for range u.o.Workers {
		u.group.Go(u.work)
	}
	w := walker{m: u.m, from: from, directory: u.directory, entry: u.entry}
	err := w.walk(u.ctx)
	u.at.release()
	close(u.files)
	if waited := u.group.Wait(); waited != nil {
		err = waited
	}
	for f := range u.files { // after an error
		f.at.release()
	}
	return err
}

// work makes files until there are no more.
func (u *unpacker) work() error {
	for f := range u.files {
		err := u.write(f.at, f.name, f.content)
		f.at.release()
		if err != nil {
			return fmt.Errorf("%q: %w", "/"+join(f.path, f.name), err)
		}
	}
	return nil
}

// from returns the directory whose content is unpacked.
func (u *unpacker) from() (*inode, error) {
	if u.o.From == "" {
		return u.m.root()
	}
	dir, err := u.m.resolve(u.o.From, false)
	if err == nil && dir.kind != typeDir {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, pathError("open", u.o.From, err)
	}
	return dir, nil
}

// directory goes into a directory, which its parent's listing has made. Its final
// mode comes last: it may forbid to write.
func (u *unpacker) directory(path string, dir *inode) (err error) {
	u.at.release()
	u.at, err = u.open(path)
	u.dirs = append(u.dirs, pendingDir{path, dir})
	return err
}

func (u *unpacker) entry(path string, _ *inode, d dirent, i *inode) error {
	switch i.kind {
	case typeDir:
		return u.at.mkdir(d.name)
	case typeFile:
		return u.file(path, d.name, i)
	case typeBlockDevice, typeCharDevice:
		if !u.o.Preserve {
			u.skipped++
			return nil
		}
	}
	if u.linked(path, d.name, i) {
		return nil
	}
	if err := u.at.special(d.name, i); err != nil {
		return err
	}
	return u.attributes(u.at, d.name, -1, i)
}

// linked tells whether an inode is there under another name already. If so the
// name is noted to be linked to it.
func (u *unpacker) linked(path, name string, i *inode) bool {
	if i.nlink < 2 {
		return false
	}
	full := join(path, name)
	if first, ok := u.first[i.number]; ok {
		u.links = append(u.links, [2]string{first, full})
		return true
	}
	u.first[i.number] = full
	return false
}

// file has workers make a file.
func (u *unpacker) file(path, name string, i *inode) error {
	if u.linked(path, name, i) {
		return nil
	}
	c, err := u.m.content(i)
	if err != nil {
		return err
	}
	f := pendingFile{u.at.retain(), path, name, c}
	select {
	case u.files <- f:
		return nil
	case <-u.ctx.Done():
		f.at.release()
		return context.Cause(u.ctx)
	}
}

// write makes a file.
func (u *unpacker) write(at *place, name string, c *content) error {
	if u.ctx.Err() != nil {
		return context.Cause(u.ctx)
	}
	fd, err := at.create(name)
	if err != nil {
		return err
	}
	if err := u.fill(fd, c); err != nil {
		unix.Close(fd)
		return err
	}
	if err := u.attributes(at, name, fd, c.i); err != nil {
		unix.Close(fd)
		return err
	}
	return unix.Close(fd)
}

// fill writes the content of a file, leaving holes where there are.
func (u *unpacker) fill(fd int, c *content) error {
	buf := u.m.buffer(int(u.m.sb.BlockSize))
	defer u.m.buffers.Put(buf)
	for k := range c.blocks() {
		if c.hole(k) {
			continue
		}
		if u.ctx.Err() != nil {
			return context.Cause(u.ctx)
		}
		part := (*buf)[:c.blockLen(k)]
		if err := u.allow(len(part)); err != nil {
			return err
		}
		if err := c.read(k, part); err != nil {
			return err
		}
		if err := writeAt(fd, part, int64(k)*int64(u.m.sb.BlockSize)); err != nil {
			return err
		}
		u.meter.add(int64(len(part)))
	}
	if last := c.blocks() - 1; last >= 0 && c.hole(last) {
		return retry(func() error { return unix.Ftruncate(fd, c.i.size) })
	}
	return nil
}

func writeAt(fd int, b []byte, off int64) error {
	for len(b) > 0 {
		n, err := unix.Pwrite(fd, b, off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

// allow counts bytes against the limit.
func (u *unpacker) allow(bytes int) error {
	if total := u.written.Add(int64(bytes)); u.o.MaxBytes > 0 && total > u.o.MaxBytes {
		return fault.New(fault.Refused, "the image holds more than %d bytes", u.o.MaxBytes)
	}
	return nil
}

// finish makes hard links and gives directories their modes and times.
func (u *unpacker) finish(ctx context.Context) error {
	for _, l := range u.links {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := u.top.Link(l[0], l[1]); err != nil {
			return err
		}
	}
	for k := len(u.dirs) - 1; k >= 0; k-- { // those inside first
		if err := u.finishDir(u.dirs[k]); err != nil {
			return fmt.Errorf("%q: %w", "/"+u.dirs[k].path, err)
		}
	}
	return nil
}

func (u *unpacker) finishDir(d pendingDir) error {
	at, err := u.open(d.path)
	if err != nil {
		return err
	}
	defer at.release()
	return u.attributes(at, ".", at.fd, d.dir)
}
