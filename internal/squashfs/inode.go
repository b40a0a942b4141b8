package squashfs

import (
	"encoding/binary"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"
)

// inode is a file system object of an image.
type inode struct {
	ref    uint64
	kind   uint16 // basic type
	perm   uint16
	uid    uint16 // index into the id table
	gid    uint16
	mtime  uint32
	number uint32
	nlink  uint32
	xattr  uint32

	size   int64 // of a file's content or a directory's listing
	target string
	rdev   uint32

	// Of files.
	start    uint64
	sparse   uint64
	fragment uint32
	offset   uint32

	// Of directories.
	block      uint32
	listOffset uint16
	parent     uint32
	indexed    int

	rest position // of the block words of a file, or the index of a directory
}

// fields reads the numbers of an inode one after the other.
type fields struct {
	b []byte
}

func (f *fields) u16() uint16 {
	v := binary.LittleEndian.Uint16(f.b)
	f.b = f.b[2:]
	return v
}

func (f *fields) u32() uint32 {
	v := binary.LittleEndian.Uint32(f.b)
	f.b = f.b[4:]
	return v
}

func (f *fields) u64() uint64 {
	v := binary.LittleEndian.Uint64(f.b)
	f.b = f.b[8:]
	return v
}

// inodeSizes are the bytes that follow the common 16 of each type, up to what
// has no fixed size.
var inodeSizes = [...]int{
	typeDir: 16, typeFile: 16, typeSymlink: 8, typeBlockDevice: 8, typeCharDevice: 8, typeFifo: 4, typeSocket: 4,
	typeDir + extended: 24, typeFile + extended: 40, typeSymlink + extended: 8,
	typeBlockDevice + extended: 12, typeCharDevice + extended: 12, typeFifo + extended: 8, typeSocket + extended: 8,
}

const inodeHead = 16

// inode reads the inode at a reference.
func (m *Image) inode(ref uint64) (*inode, error) {
	i := new(inode)
	return i, m.readInode(i, ref)
}

func (m *Image) readInode(i *inode, ref uint64) error {
	c, err := m.cursor(&m.inodeTable, ref>>16, int(ref&0xffff))
	if err != nil {
		return err
	}
	head, err := c.take(inodeHead)
	if err != nil {
		return err
	}
	f := fields{head}
	full := f.u16()
	*i = inode{ref: ref, kind: full, perm: f.u16() & 0o7777, uid: f.u16(), gid: f.u16(), mtime: f.u32(), number: f.u32(), nlink: 1, xattr: noXattrs}
	if full == 0 || int(full) >= len(inodeSizes) {
		return invalid("inode", fmt.Errorf("type %d is not known", full))
	}
	if i.number == 0 || i.number > m.sb.Inodes {
		return invalid("inode", fmt.Errorf("number %d of %d", i.number, m.sb.Inodes))
	}
	body, err := c.take(inodeSizes[full])
	if err != nil {
		return err
	}
	if full > extended {
		i.kind -= extended
	}
	if err := i.parse(fields{body}, full > extended, &c); err != nil {
		return err
	}
	i.rest = c.position()
	return nil
}

func (i *inode) parse(f fields, long bool, c *cursor) error {
	switch i.kind {
	case typeDir:
		return i.parseDir(f, long)
	case typeFile:
		return i.parseFile(f, long)
	case typeSymlink:
		return i.parseSymlink(f, long, c)
	}
	i.nlink = f.u32()
	if i.kind == typeBlockDevice || i.kind == typeCharDevice {
		i.rdev = f.u32()
	}
	if long {
		i.xattr = f.u32()
	}
	return nil
}

func (i *inode) parseDir(f fields, long bool) error {
	if long {
		i.nlink, i.size, i.block, i.parent = f.u32(), int64(f.u32()), f.u32(), f.u32()
		i.indexed, i.listOffset, i.xattr = int(f.u16()), f.u16(), f.u32()
	} else {
		i.block, i.nlink, i.size, i.listOffset, i.parent = f.u32(), f.u32(), int64(f.u16()), f.u16(), f.u32()
	}
	if i.size < dirListingPadding {
		return invalid("directory", fmt.Errorf("size %d is too small", i.size))
	}
	i.size -= dirListingPadding
	return nil
}

func (i *inode) parseFile(f fields, long bool) error {
	if long {
		i.start, i.size, i.sparse = f.u64(), int64(f.u64()), f.u64()
		i.nlink, i.fragment, i.offset, i.xattr = f.u32(), f.u32(), f.u32(), f.u32()
	} else {
		i.start, i.fragment, i.offset, i.size = uint64(f.u32()), f.u32(), f.u32(), int64(f.u32())
	}
	if i.size < 0 {
		return invalid("file", fmt.Errorf("size %d is not possible", uint64(i.size)))
	}
	return nil
}

func (i *inode) parseSymlink(f fields, long bool, c *cursor) error {
	i.nlink = f.u32()
	size := f.u32()
	if size == 0 || size > maxTargetLen {
		return invalid("symbolic link", fmt.Errorf("its target has %d bytes", size))
	}
	target, err := c.take(int(size))
	if err != nil {
		return err
	}
	i.target, i.size = string(target), int64(size)
	if long {
		tail, err := c.take(4)
		if err != nil {
			return err
		}
		i.xattr = binary.LittleEndian.Uint32(tail)
	}
	return nil
}

// words reads the size words of a file's blocks.
func (m *Image) words(i *inode) ([]uint32, error) {
	blockSize := int64(m.sb.BlockSize)
	count := i.size / blockSize
	if i.fragment == noFragment && i.size%blockSize != 0 {
		count++
	}
	if count > int64(m.limits.FileBlocks) {
		return nil, invalid("file", fmt.Errorf("%d blocks are more than the limit of %d", count, m.limits.FileBlocks))
	}
	if count == 0 {
		return nil, nil
	}
	c, err := m.cursor(&m.inodeTable, i.rest.block, i.rest.offset)
	if err != nil {
		return nil, err
	}
	words := make([]uint32, 0, min(count, metaSize/4))
	for left := int(count); left > 0; {
		n := min(left, metaSize/4)
		raw, err := c.take(4 * n)
		if err != nil {
			return nil, err
		}
		for ; len(raw) > 0; raw = raw[4:] {
			words = append(words, binary.LittleEndian.Uint32(raw))
		}
		left -= n
	}
	return words, nil
}

// fileModes are the type bits of each inode type.
var fileModes = [...]fs.FileMode{
	typeDir: fs.ModeDir, typeFile: 0, typeSymlink: fs.ModeSymlink, typeBlockDevice: fs.ModeDevice,
	typeCharDevice: fs.ModeDevice | fs.ModeCharDevice, typeFifo: fs.ModeNamedPipe, typeSocket: fs.ModeSocket,
}

func (i *inode) mode() fs.FileMode {
	mode := fs.FileMode(i.perm&0o777) | fileModes[i.kind]
	if i.perm&unix.S_ISUID != 0 {
		mode |= fs.ModeSetuid
	}
	if i.perm&unix.S_ISGID != 0 {
		mode |= fs.ModeSetgid
	}
	if i.perm&unix.S_ISVTX != 0 {
		mode |= fs.ModeSticky
	}
	return mode
}

func timeOf(seconds uint32) time.Time { return time.Unix(int64(seconds), 0).UTC() }

// owner returns the user and the group of an inode.
func (m *Image) owner(i *inode) (Owner, error) {
	ids, err := m.ids()
	if err != nil {
		return Owner{}, err
	}
	if int(i.uid) >= len(ids) || int(i.gid) >= len(ids) {
		return Owner{}, invalid("inode", fmt.Errorf("owner %d:%d of %d", i.uid, i.gid, len(ids)))
	}
	return Owner{ids[i.uid], ids[i.gid]}, nil
}
