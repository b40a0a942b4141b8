package squashfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"time"
)

// maxLinksFollowed is how many symbolic links a name may lead through, as on
// Linux.
const maxLinksFollowed = 40

var (
	_ fs.ReadDirFS  = (*Image)(nil)
	_ fs.ReadFileFS = (*Image)(nil)
	_ fs.StatFS     = (*Image)(nil)
	_ fs.ReadLinkFS = (*Image)(nil)
)

// Open opens a file or directory. Symbolic links are followed inside the image;
// one that is absolute or leads out of it does not exist. Unlike fs.ValidPath,
// names need not be UTF-8.
func (m *Image) Open(name string) (fs.File, error) {
	i, err := m.resolve(name, true)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	info, err := m.info(path.Base(name), i)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	switch i.kind {
	case typeDir:
		return &openDir{m: m, dir: i, info: info, name: name}, nil
	case typeFile:
		c, err := m.content(i)
		if err != nil {
			return nil, pathError("open", name, err)
		}
		return &File{content: c, info: info, name: name}, nil
	}
	return special{info, name}, nil
}

// Stat describes a file, following symbolic links as Open does. The Sys method
// of what it returns gives a *Stat.
func (m *Image) Stat(name string) (fs.FileInfo, error) { return m.stat("stat", name, true) }

// Lstat describes a file, or a symbolic link itself.
func (m *Image) Lstat(name string) (fs.FileInfo, error) { return m.stat("lstat", name, false) }

func (m *Image) stat(op, name string, follow bool) (fs.FileInfo, error) {
	i, err := m.resolve(name, follow)
	if err != nil {
		return nil, pathError(op, name, err)
	}
	info, err := m.info(path.Base(name), i)
	if err != nil {
		return nil, pathError(op, name, err)
	}
	return info, nil
}

// ReadLink returns the target of a symbolic link.
func (m *Image) ReadLink(name string) (string, error) {
	i, err := m.resolve(name, false)
	if err == nil && i.kind != typeSymlink {
		err = fs.ErrInvalid
	}
	if err != nil {
		return "", pathError("readlink", name, err)
	}
	return i.target, nil
}

// ReadDir lists a directory in the order of names.
func (m *Image) ReadDir(name string) ([]fs.DirEntry, error) {
	if m.closer != nil { // of a file: elsewhere a read may be a request
		m.metaBlocks.CompareAndSwap(0, 4)
	}
	i, direct, err := m.lookUp(name, true)
	if err != nil {
		return nil, pathError("readdir", name, err)
	}
	entries, err := m.entries(i)
	if err != nil {
		return nil, pathError("readdir", name, err)
	}
	if direct { // what is in it is asked for next
		m.paths.keep(name, i, entries)
	}
	return dirEntries(entries), nil
}

// dirEntries returns a listing as others know it. The slice is theirs.
func dirEntries(entries []dirEntry) []fs.DirEntry {
	list := make([]fs.DirEntry, len(entries))
	for k := range entries {
		list[k] = &entries[k]
	}
	return list
}

func (m *Image) entries(dir *inode) ([]dirEntry, error) {
	if dir.kind != typeDir {
		return nil, errNotDir
	}
	l, err := m.listing(dir, 0, uint64(dir.block), int(dir.listOffset))
	if err != nil {
		return nil, err
	}
	t, _ := m.drafts.Get().(*draft)
	if t == nil {
		t = new(draft)
	}
	defer m.drafts.Put(t)
	t.found, t.ends, t.names = t.found[:0], t.ends[:0], t.names[:0]
	for {
		d, name, err := l.entry()
		if err != nil {
			return nil, err
		}
		if name == nil {
			return t.entries(m, dir), nil
		}
		t.found, t.names = append(t.found, d), append(t.names, name...)
		t.ends = append(t.ends, len(t.names))
	}
}

// draft is a listing that is being read: entries, and their names one after the
// other.
type draft struct {
	found []dirent
	ends  []int
	names []byte
}

// entries returns the listing in two pieces of memory, however long it is.
func (t *draft) entries(m *Image, dir *inode) []dirEntry {
	all, names := make([]dirEntry, len(t.found)), string(t.names)
	start := 0
	for k, d := range t.found {
		d.name, start = names[start:t.ends[k]], t.ends[k]
		all[k] = dirEntry{m, dir, d}
	}
	return all
}

// ReadFile returns the content of a file, if it is not beyond Limits.ReadFile.
func (m *Image) ReadFile(name string) ([]byte, error) {
	i, err := m.resolve(name, true)
	if err != nil {
		return nil, pathError("read", name, err)
	}
	if i.kind != typeFile {
		return nil, pathError("read", name, fs.ErrInvalid)
	}
	if i.size > m.limits.ReadFile {
		return nil, pathError("read", name, invalid("file", fmt.Errorf("%d bytes are more than the limit of %d", i.size, m.limits.ReadFile)))
	}
	c, err := m.content(i)
	if err != nil {
		return nil, pathError("read", name, err)
	}
	data := make([]byte, i.size)
	if _, err := c.readAt(data, 0); err != nil {
		return nil, pathError("read", name, err)
	}
	return data, nil
}

var (
	errNotDir   = errors.New("not a directory")
	errTooDeep  = errors.New("too many levels of symbolic links")
	errLeadsOut = fmt.Errorf("it leads out of the image: %w", fs.ErrNotExist)
)

func pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// resolve finds the inode of a slash-separated path. A symbolic link at its end
// is followed only if asked for.
func (m *Image) resolve(name string, follow bool) (*inode, error) {
	i, direct, err := m.lookUp(name, follow)
	if err == nil && direct && i.kind == typeDir {
		m.paths.keep(name, i, nil)
	}
	return i, err
}

// lookUp is resolve for who keeps the path. It tells whether that leads through no
// symbolic link.
func (m *Image) lookUp(name string, follow bool) (i *inode, direct bool, err error) {
	if !validPath(name) {
		return nil, false, fs.ErrInvalid
	}
	i, err = m.resolveNear(name)
	if err != nil || i == nil || follow && i.kind == typeSymlink {
		return m.resolveFar(name, follow)
	}
	return i, true, nil
}

// resolveNear finds what is in a directory that was met lately, as all is that a
// walk asks for; nothing if it was not.
func (m *Image) resolveNear(name string) (*inode, error) {
	if k := m.paths.get(name); k.inode != nil {
		return k.inode, nil
	}
	dir, base := ".", name
	if cut := strings.LastIndexByte(name, '/'); cut >= 0 {
		dir, base = name[:cut], name[cut+1:]
	}
	k := m.paths.get(dir)
	if k.inode == nil {
		return nil, nil
	}
	if d, found := k.find(base); found {
		return m.child(k.inode, d)
	}
	return m.step(k.inode, base)
}

// resolveFar goes from the root, through symbolic links.
func (m *Image) resolveFar(name string, follow bool) (i *inode, direct bool, err error) {
	root, err := m.root()
	if err != nil {
		return nil, false, err
	}
	at := []*inode{root} // from the root to where we are
	todo := strings.Split(name, "/")
	links := 0
	for len(todo) > 0 {
		part := todo[0]
		todo = todo[1:]
		switch {
		case part == "." || part == "":
			continue
		case part == ".." && len(at) == 1:
			return nil, false, errLeadsOut
		case part == "..":
			at = at[:len(at)-1]
			continue
		}
		next, err := m.step(at[len(at)-1], part)
		if err != nil {
			return nil, false, err
		}
		if next.kind != typeSymlink || len(todo) == 0 && !follow {
			at = append(at, next)
			if links == 0 && next.kind == typeDir && len(todo) > 0 { // what is near it is asked for next
				m.paths.keep(strings.TrimSuffix(name, "/"+strings.Join(todo, "/")), next, nil)
			}
			continue
		}
		if links++; links > maxLinksFollowed {
			return nil, false, errTooDeep
		}
		if path.IsAbs(next.target) {
			return nil, false, errLeadsOut
		}
		todo = append(strings.Split(next.target, "/"), todo...)
	}
	return at[len(at)-1], links == 0, nil
}

func (m *Image) step(dir *inode, name string) (*inode, error) {
	if dir.kind != typeDir {
		return nil, errNotDir
	}
	d, found, err := m.find(dir, name)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, fs.ErrNotExist
	}
	return m.child(dir, d)
}

// validPath is fs.ValidPath for names that are any bytes.
func validPath(name string) bool {
	if name == "." {
		return true
	}
	for more := true; more; {
		var part string
		part, name, more = strings.Cut(name, "/")
		if part == "" || part == "." || part == ".." {
			return false
		}
	}
	return true
}

// Stat is what an image says of a file beyond fs.FileInfo.
type Stat struct {
	Owner
	Inode  uint32
	Links  uint32
	Device uint32 // of a device node, as the kernel encodes it
	Target string // of a symbolic link
	Stored int64  // bytes that are not in holes
}

func (i *inode) stat(owner Owner) Stat {
	s := Stat{Owner: owner, Inode: i.number, Links: i.nlink, Device: i.rdev, Target: i.target}
	if i.kind == typeFile {
		s.Stored = i.size - int64(min(i.sparse, uint64(i.size)))
	}
	return s
}

// fileInfo implements fs.FileInfo. It is what a walk takes most memory for, so it
// has no more of an inode than it tells.
type fileInfo struct {
	name string
	size int64
	mode fs.FileMode
	time uint32
	sys  Stat
}

func (m *Image) info(name string, i *inode) (*fileInfo, error) {
	owner, err := m.owner(i)
	if err != nil {
		return nil, err
	}
	return &fileInfo{name, i.size, i.mode(), i.mtime, i.stat(owner)}, nil
}

func (f *fileInfo) Name() string       { return f.name }
func (f *fileInfo) Size() int64        { return f.size }
func (f *fileInfo) Mode() fs.FileMode  { return f.mode }
func (f *fileInfo) ModTime() time.Time { return timeOf(f.time) }
func (f *fileInfo) IsDir() bool        { return f.mode.IsDir() }
func (f *fileInfo) Sys() any           { s := f.sys; return &s }

// dirEntry implements fs.DirEntry. It reads the inode only when asked.
type dirEntry struct {
	m   *Image
	dir *inode
	d   dirent
}

func (e *dirEntry) Name() string      { return e.d.name }
func (e *dirEntry) IsDir() bool       { return e.d.kind == typeDir }
func (e *dirEntry) Type() fs.FileMode { return fileModes[e.d.kind] }
func (e *dirEntry) String() string    { return fs.FormatDirEntry(e) }

func (e *dirEntry) Info() (fs.FileInfo, error) {
	var i inode
	if err := e.m.readChild(&i, e.dir, e.d); err != nil {
		return nil, pathError("lstat", e.d.name, err)
	}
	f, err := e.m.info(e.d.name, &i)
	if err != nil {
		return nil, pathError("lstat", e.d.name, err)
	}
	return f, nil
}

// special is an open device, fifo or socket, of which nothing can be read.
type special struct {
	info *fileInfo
	name string
}

func (s special) Stat() (fs.FileInfo, error) { return s.info, nil }
func (s special) Close() error               { return nil }
func (s special) Read([]byte) (int, error) {
	return 0, pathError("read", s.name, fs.ErrInvalid)
}

// openDir is an open directory.
type openDir struct {
	m       *Image
	dir     *inode
	info    *fileInfo
	name    string
	entries []fs.DirEntry // not yet returned
	read    bool
}

func (d *openDir) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *openDir) Close() error               { return nil }
func (d *openDir) Read([]byte) (int, error) {
	return 0, pathError("read", d.name, errors.New("is a directory"))
}

// ReadDir implements fs.ReadDirFile.
func (d *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if !d.read {
		entries, err := d.m.entries(d.dir)
		if err != nil {
			return nil, pathError("readdir", d.name, err)
		}
		d.entries, d.read = dirEntries(entries), true
	}
	if n > 0 && len(d.entries) == 0 {
		return nil, io.EOF
	}
	if n <= 0 || n > len(d.entries) {
		n = len(d.entries)
	}
	list := d.entries[:n:n]
	d.entries = d.entries[n:]
	return list, nil
}
