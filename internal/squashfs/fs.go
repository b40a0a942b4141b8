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
		return &openDir{m: m, info: info, name: name}, nil
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
	i, err := m.resolve(name, true)
	if err != nil {
		return nil, pathError("readdir", name, err)
	}
	entries, err := m.entries(i)
	if err != nil {
		return nil, pathError("readdir", name, err)
	}
	return entries, nil
}

func (m *Image) entries(dir *inode) ([]fs.DirEntry, error) {
	if dir.kind != typeDir {
		return nil, errNotDir
	}
	var entries []fs.DirEntry
	err := m.list(dir, func(d dirent) error {
		entries = append(entries, &dirEntry{m, dir, d})
		return nil
	})
	return entries, err
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
	if !validPath(name) {
		return nil, fs.ErrInvalid
	}
	root, err := m.root()
	if err != nil {
		return nil, err
	}
	at := []*inode{root} // from the root to where we are
	todo := strings.Split(name, "/")
	for links := 0; len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		switch {
		case part == "." || part == "":
			continue
		case part == ".." && len(at) == 1:
			return nil, errLeadsOut
		case part == "..":
			at = at[:len(at)-1]
			continue
		}
		next, err := m.step(at[len(at)-1], part)
		if err != nil {
			return nil, err
		}
		if next.kind != typeSymlink || len(todo) == 0 && !follow {
			at = append(at, next)
			continue
		}
		if links++; links > maxLinksFollowed {
			return nil, errTooDeep
		}
		if path.IsAbs(next.target) {
			return nil, errLeadsOut
		}
		todo = append(strings.Split(next.target, "/"), todo...)
	}
	return at[len(at)-1], nil
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
	for part := range strings.SplitSeq(name, "/") {
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

// fileInfo implements fs.FileInfo.
type fileInfo struct {
	name string
	*inode
	stat Stat
}

func (m *Image) info(name string, i *inode) (*fileInfo, error) {
	owner, err := m.owner(i)
	if err != nil {
		return nil, err
	}
	s := Stat{Owner: owner, Inode: i.number, Links: i.nlink, Device: i.rdev, Target: i.target}
	if i.kind == typeFile {
		s.Stored = i.size - int64(min(i.sparse, uint64(i.size)))
	}
	return &fileInfo{name, i, s}, nil
}

func (f *fileInfo) Name() string       { return f.name }
func (f *fileInfo) Size() int64        { return f.size }
func (f *fileInfo) Mode() fs.FileMode  { return f.mode() }
func (f *fileInfo) ModTime() time.Time { return f.time() }
func (f *fileInfo) IsDir() bool        { return f.kind == typeDir }
func (f *fileInfo) Sys() any           { return &f.stat }

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
	i, err := e.m.child(e.dir, e.d)
	if err != nil {
		return nil, pathError("lstat", e.d.name, err)
	}
	info, err := e.m.info(e.d.name, i)
	if err != nil {
		return nil, pathError("lstat", e.d.name, err)
	}
	return info, nil
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
		entries, err := d.m.entries(d.info.inode)
		if err != nil {
			return nil, pathError("readdir", d.name, err)
		}
		d.entries, d.read = entries, true
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
