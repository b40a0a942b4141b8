package mount

import (
	"errors"
	"io/fs"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/squashfs"
)

// forever is how long the kernel may keep what it was told: an image never
// changes.
const forever = 365 * 24 * time.Hour

// filesystem answers the kernel's questions about an image. It holds nothing that
// grows with the image: the kernel names nodes by numbers that say where their
// inodes are.
type filesystem struct {
	fuse.RawFileSystem
	image  *squashfs.Image
	info   squashfs.Info
	root   uint64 // Ref of the root directory
	events event.Sink

	open     contents
	noOpen   bool // the kernel does without being asked to open files
	warnOnce sync.Once

	mu       sync.Mutex
	listings map[uint64]*openListing
	next     uint64
}

// openListing is an open directory.
type openListing struct {
	mu      sync.Mutex
	dir     squashfs.Node
	reader  *squashfs.Listing
	at      uint64          // entries read so far
	pending *squashfs.Entry // read but not yet told
	err     error           // that ended the listing
}

func newFilesystem(m *squashfs.Image, events event.Sink) (*filesystem, error) {
	root, err := m.Root()
	if err != nil {
		return nil, err
	}
	return &filesystem{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		image:         m, info: m.Info(), root: root.Ref(), events: events,
		open: contents{image: m}, listings: map[uint64]*openListing{},
	}, nil
}

func (f *filesystem) String() string { return "squashfs" }

// Init learns what the kernel can do.
func (f *filesystem) Init(s *fuse.Server) {
	f.noOpen = s.KernelSettings().Flags64()&fuse.CAP_NO_OPEN_SUPPORT != 0
}

// nodeID is the kernel's number of a node: it insists on 1 for the root, and 0 is
// none.
func (f *filesystem) nodeID(n squashfs.Node) uint64 {
	if n.Ref() == f.root {
		return fuse.FUSE_ROOT_ID
	}
	return n.Ref() + 2
}

func (f *filesystem) ref(id uint64) uint64 {
	if id == fuse.FUSE_ROOT_ID {
		return f.root
	}
	return id - 2
}

func (f *filesystem) node(id uint64) (squashfs.Node, error) { return f.image.Node(f.ref(id)) }

// status is what a program is told of an error. That an image is damaged is said
// once: the kernel has but a number for it.
func (f *filesystem) status(err error) fuse.Status {
	var number unix.Errno
	switch {
	case err == nil:
		return fuse.OK
	case errors.Is(err, fs.ErrNotExist):
		return fuse.ENOENT
	case errors.Is(err, fs.ErrInvalid):
		return fuse.EINVAL
	case errors.As(err, &number):
		return fuse.Status(number)
	}
	f.warnOnce.Do(func() { f.events.Warn(stage, "programs get an input/output error: %v", err) })
	return fuse.EIO
}

// Lookup implements fuse.RawFileSystem. That a name is not there is kept as well.
func (f *filesystem) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	dir, err := f.node(in.NodeId)
	if err != nil {
		return f.status(err)
	}
	n, err := dir.Lookup(name)
	if errors.Is(err, fs.ErrNotExist) {
		out.SetEntryTimeout(forever)
		return fuse.OK
	}
	if err == nil {
		err = f.entry(n, out)
	}
	return f.status(err)
}

func (f *filesystem) entry(n squashfs.Node, out *fuse.EntryOut) error {
	out.NodeId = f.nodeID(n)
	out.SetEntryTimeout(forever)
	out.SetAttrTimeout(forever)
	return f.attr(n, &out.Attr)
}

func (f *filesystem) attr(n squashfs.Node, out *fuse.Attr) error {
	a, err := n.Attr()
	if err != nil {
		return err
	}
	seconds := uint64(a.Time.Unix())
	*out = fuse.Attr{
		Ino: uint64(n.Number()), Size: uint64(a.Size), Blocks: (uint64(a.Stored) + 511) / 512, Blksize: uint32(f.info.BlockSize),
		Atime: seconds, Mtime: seconds, Ctime: seconds,
		Mode: typeBits(n.Type()) | uint32(a.Mode), Nlink: a.Links, Rdev: a.Device,
		Owner: fuse.Owner{Uid: a.UID, Gid: a.GID},
	}
	return nil
}

// typeBits are the type bits of a mode as stat(2) has them.
func typeBits(t fs.FileMode) uint32 {
	switch t {
	case fs.ModeDir:
		return unix.S_IFDIR
	case fs.ModeSymlink:
		return unix.S_IFLNK
	case fs.ModeDevice:
		return unix.S_IFBLK
	case fs.ModeDevice | fs.ModeCharDevice:
		return unix.S_IFCHR
	case fs.ModeNamedPipe:
		return unix.S_IFIFO
	case fs.ModeSocket:
		return unix.S_IFSOCK
	}
	return unix.S_IFREG
}

// GetAttr implements fuse.RawFileSystem.
func (f *filesystem) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	n, err := f.node(in.NodeId)
	if err == nil {
		out.SetTimeout(forever)
		err = f.attr(n, &out.Attr)
	}
	return f.status(err)
}

// Readlink implements fuse.RawFileSystem.
func (f *filesystem) Readlink(_ <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	n, err := f.node(in.NodeId)
	if err == nil && n.Type() != fs.ModeSymlink {
		err = fs.ErrInvalid
	}
	if err != nil {
		return nil, f.status(err)
	}
	return []byte(n.Target()), fuse.OK
}

// GetXAttr implements fuse.RawFileSystem.
func (f *filesystem) GetXAttr(_ <-chan struct{}, in *fuse.InHeader, name string, dest []byte) (uint32, fuse.Status) {
	all, status := f.xattrs(in.NodeId)
	if status != fuse.OK {
		return 0, status
	}
	for _, x := range all {
		if x.Name == name {
			return fill(dest, x.Value)
		}
	}
	return 0, fuse.ENODATA
}

// ListXAttr implements fuse.RawFileSystem.
func (f *filesystem) ListXAttr(_ <-chan struct{}, in *fuse.InHeader, dest []byte) (uint32, fuse.Status) {
	all, status := f.xattrs(in.NodeId)
	if status != fuse.OK {
		return 0, status
	}
	var names []byte
	for _, x := range all {
		names = append(append(names, x.Name...), 0)
	}
	return fill(dest, names)
}

func (f *filesystem) xattrs(id uint64) ([]squashfs.Xattr, fuse.Status) {
	if !f.image.HasXattrs() {
		return nil, fuse.ENOSYS // the kernel need not ask again
	}
	n, err := f.node(id)
	if err != nil {
		return nil, f.status(err)
	}
	all, err := n.Xattrs()
	return all, f.status(err)
}

// fill copies what was asked for, or says how large it is.
func fill(dest, data []byte) (uint32, fuse.Status) {
	switch {
	case len(dest) == 0:
		return uint32(len(data)), fuse.OK
	case len(dest) < len(data):
		return uint32(len(data)), fuse.ERANGE
	}
	return uint32(copy(dest, data)), fuse.OK
}

// Open implements fuse.RawFileSystem. A kernel that can do without is told not to
// ask, which saves it two questions for each file.
func (f *filesystem) Open(_ <-chan struct{}, _ *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if f.noOpen {
		return fuse.ENOSYS
	}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE
	return fuse.OK
}

// Read implements fuse.RawFileSystem.
func (f *filesystem) Read(_ <-chan struct{}, in *fuse.ReadIn, _ []byte) (fuse.ReadResult, fuse.Status) {
	c, err := f.open.get(f.ref(in.NodeId))
	if err != nil {
		return nil, f.status(err)
	}
	off := int64(in.Offset)
	if in.Size > 0 && off >= 0 {
		c.Ahead(off + int64(in.Size) - 1)
	}
	parts, err := c.Slices(off, int(in.Size))
	if err != nil {
		return nil, f.status(err)
	}
	if len(parts) == 1 {
		return fuse.ReadResultData(parts[0]), fuse.OK
	}
	return fuse.ReadResultVector(parts), fuse.OK
}

// Flush implements fuse.RawFileSystem: nothing was written.
func (f *filesystem) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status { return fuse.ENOSYS }

// StatFs implements fuse.RawFileSystem.
func (f *filesystem) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	size := uint32(f.info.BlockSize)
	out.Bsize, out.Frsize, out.NameLen = size, size, 255
	out.Blocks = uint64((f.info.BytesUsed + int64(size) - 1) / int64(size))
	out.Files = uint64(f.info.Inodes)
	return fuse.OK
}

// OpenDir implements fuse.RawFileSystem.
func (f *filesystem) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	n, err := f.node(in.NodeId)
	if err != nil {
		return f.status(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next++
	f.listings[f.next] = &openListing{dir: n}
	out.Fh, out.OpenFlags = f.next, fuse.FOPEN_KEEP_CACHE|fuse.FOPEN_CACHE_DIR
	return fuse.OK
}

// ReleaseDir implements fuse.RawFileSystem.
func (f *filesystem) ReleaseDir(in *fuse.ReleaseIn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.listings, in.Fh)
}

// ReadDir implements fuse.RawFileSystem.
func (f *filesystem) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.list(in, func(_ *openListing, e fuse.DirEntry, _ squashfs.Entry) (bool, error) {
		return out.AddDirEntry(e), nil
	})
}

// ReadDirPlus implements fuse.RawFileSystem.
func (f *filesystem) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return f.list(in, func(l *openListing, e fuse.DirEntry, found squashfs.Entry) (bool, error) {
		n, err := l.reader.Node(found)
		if err != nil {
			return false, err
		}
		place := out.AddDirLookupEntry(e)
		if place == nil {
			return false, nil
		}
		return true, f.entry(n, place)
	})
}

// list tells entries from an offset on, which is a number of entries, until tell
// has no more room.
func (f *filesystem) list(in *fuse.ReadIn, tell func(*openListing, fuse.DirEntry, squashfs.Entry) (bool, error)) fuse.Status {
	f.mu.Lock()
	l := f.listings[in.Fh]
	f.mu.Unlock()
	if l == nil {
		return fuse.EBADF
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.seek(in.Offset); err != nil {
		return f.status(err)
	}
	for first := true; ; first = false {
		e, err := l.peek()
		if err != nil || e == nil {
			return f.status(err)
		}
		room, err := tell(l, fuse.DirEntry{Name: e.Name, Ino: uint64(e.Number), Mode: typeBits(e.Type), Off: l.at + 1}, *e)
		if err != nil && first {
			return f.status(err)
		}
		if err != nil || !room {
			return fuse.OK // an error comes with the next question, after what was told
		}
		l.at, l.pending = l.at+1, nil
	}
}

// seek goes to an offset: mostly to where the listing is.
func (l *openListing) seek(offset uint64) error {
	if l.reader == nil || offset < l.at {
		reader, err := l.dir.List()
		if err != nil {
			return err
		}
		l.reader, l.at, l.pending, l.err = reader, 0, nil, nil
	}
	for l.at < offset {
		e, err := l.peek()
		if err != nil || e == nil {
			return err
		}
		l.at, l.pending = l.at+1, nil
	}
	return nil
}

// peek returns the next entry, nil at the end.
func (l *openListing) peek() (*squashfs.Entry, error) {
	if l.pending != nil || l.err != nil {
		return l.pending, l.err
	}
	e, more, err := l.reader.Next()
	if err == nil && more {
		l.pending = &e
	}
	l.err = err
	return l.pending, err
}
