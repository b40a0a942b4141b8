package squashfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"uenv-ci.dev/internal/fault"
)

// Limits bound what reading an image may take, however the image was made. Zero
// fields have the defaults that are named.
type Limits struct {
	CacheBytes int64 // decoded data blocks that are kept: 16 MiB
	MetaBytes  int64 // decoded metadata blocks that are kept: 8 MiB
	DirEntries int   // in one directory: 1,048,576
	Entries    int   // that Verify and Unpack go through: 16,777,216
	FileBlocks int   // of one file: 16,777,216, which is 2 TiB in blocks of 128 KiB
	ReadFile   int64 // bytes that ReadFile returns: 256 MiB
}

func (l Limits) orDefaults() Limits {
	if l.CacheBytes == 0 {
		l.CacheBytes = 16 << 20
	}
	if l.MetaBytes == 0 {
		l.MetaBytes = 8 << 20
	}
	if l.DirEntries == 0 {
		l.DirEntries = 1 << 20
	}
	if l.Entries == 0 {
		l.Entries = 1 << 24
	}
	if l.FileBlocks == 0 {
		l.FileBlocks = 1 << 24
	}
	if l.ReadFile == 0 {
		l.ReadFile = 256 << 20
	}
	return l
}

// Image is a squashfs image that is open for reading. It implements fs.FS,
// fs.ReadDirFS, fs.ReadFileFS, fs.StatFS and fs.ReadLinkFS, and is safe for
// concurrent use. It reads only what is asked for: opening takes two reads, a
// file its directories' metadata and its own blocks.
type Image struct {
	r       io.ReaderAt
	closer  io.Closer
	sb      superblock
	codec   Codec
	level   int
	limits  Limits
	decoder decoder

	meta    *blockCache
	data    *blockCache
	buffers sync.Pool // of *[]byte for compressed blocks
	drafts  sync.Pool // of *draft

	inodeTable     table
	directoryTable table
	fragments      func() (lookupTable, error)
	ids            func() ([]uint32, error)
	xattrs         func() (xattrTable, error)

	readAhead
	paths pathCache

	mu   sync.Mutex
	dirs map[uint32]claimed // the directories met so far, by inode number
}

// Info describes an image as a whole.
type Info struct {
	Codec     Codec     `json:"codec"`
	Level     int       `json:"level,omitempty"` // 0 if the image does not say
	BlockSize int       `json:"block_size"`
	Time      time.Time `json:"time"`
	Inodes    int       `json:"inodes"`
	Fragments int       `json:"fragments"`
	BytesUsed int64     `json:"bytes_used"` // without the padding at the end
	Xattrs    bool      `json:"xattrs"`     // it has a table of extended attributes
}

// Open opens an image file.
func Open(path string) (*Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	m, err := NewReader(f, info.Size(), Limits{})
	if err != nil {
		f.Close()
		return nil, fault.Wrap(fault.KindOf(err), err, "%s", path)
	}
	m.closer = f
	return m, nil
}

// NewReader opens an image of so many bytes. An error's kind is Invalid if the
// image is at fault.
func NewReader(r io.ReaderAt, size int64, l Limits) (*Image, error) {
	head := make([]byte, superblockSize+metaHeader+8)
	n, err := r.ReadAt(head, 0)
	if n < superblockSize && err != nil && err != io.EOF {
		return nil, fmt.Errorf("read superblock: %w", err)
	}
	sb, err := parseSuperblock(head[:n])
	if err == nil {
		err = sb.checkLayout(size)
	}
	if err != nil {
		return nil, invalid("superblock", err)
	}
	m := &Image{r: r, sb: sb, limits: l.orDefaults(), dirs: map[uint32]claimed{}, readAhead: newReadAhead()}
	if m.codec, err = codecOf(sb.Compressor); err != nil {
		return nil, invalid("superblock", err)
	}
	if m.decoder, err = newDecoder(m.codec); err != nil {
		return nil, err
	}
	if raw := uint16(flagRawData | flagRawInodes); sb.Flags&raw == raw {
		m.codec = None
	}
	m.level = levelOf(m.codec, sb.Flags, head[superblockSize:n])
	m.meta, m.data = newBlockCache(m.limits.MetaBytes), newBlockCache(m.limits.CacheBytes)
	m.prepareTables()
	return m, nil
}

// levelOf reads the compression level from the codec's options.
func levelOf(c Codec, flags uint16, options []byte) int {
	if flags&flagCodecOptions == 0 {
		return map[Codec]int{Zstd: 15, Gzip: 9}[c] // not recorded: the default of mksquashfs
	}
	if c == Zstd || c == Gzip {
		if len(options) >= metaHeader+4 {
			return int(binary.LittleEndian.Uint32(options[metaHeader:]))
		}
	}
	return 0
}

// checkLayout checks that the tables are inside the image, in their order.
func (s *superblock) checkLayout(size int64) error {
	if s.BytesUsed < superblockSize || s.BytesUsed > uint64(size) {
		return fmt.Errorf("the image has %d bytes and claims %d: it is truncated", size, s.BytesUsed)
	}
	last := uint64(superblockSize)
	for _, t := range []struct {
		name     string
		at       uint64
		optional bool
	}{
		{"inode", s.InodeTable, false},
		{"directory", s.DirectoryTable, false},
		{"fragment", s.FragmentTable, true},
		{"export", s.ExportTable, true},
		{"id", s.IDTable, false},
		{"extended attribute", s.XattrTable, true},
	} {
		if t.optional && t.at == noTable {
			continue
		}
		if t.at < last || t.at > s.BytesUsed {
			return fmt.Errorf("the %s table is not where it can be", t.name)
		}
		last = t.at
	}
	if s.IDs == 0 {
		return errors.New("no owners")
	}
	return nil
}

// Info returns what the superblock says.
func (m *Image) Info() Info {
	return Info{
		Codec: m.codec, Level: m.level, BlockSize: int(m.sb.BlockSize),
		Time:   time.Unix(int64(m.sb.Time), 0).UTC(),
		Inodes: int(m.sb.Inodes), Fragments: int(m.sb.Fragments),
		BytesUsed: int64(m.sb.BytesUsed), Xattrs: m.sb.XattrTable != noTable,
	}
}

// Close releases what the image holds, and closes the file if Open opened it.
func (m *Image) Close() error {
	m.running.Wait()
	m.decoder.close()
	if m.closer == nil {
		return nil
	}
	return m.closer.Close()
}

// invalid says which part of an image is wrong.
func invalid(part string, err error) error {
	return fault.Wrap(fault.Invalid, err, "squashfs %s", part)
}

// Tables says where an image's metadata is, for who reads it over a slow link.
type Tables struct {
	Start     int64 // of the inode table; data lies before
	Listings  int64 // start of the directory table, which follows the inodes
	Pointers  int64 // start of the list that leads to the fragment table; 0 without one
	Fragments int64 // and its end
}

// Tables returns where the metadata is.
func (m *Image) Tables() Tables {
	t := Tables{Start: int64(m.sb.InodeTable), Listings: int64(m.sb.DirectoryTable)}
	if m.sb.FragmentTable != noTable {
		t.Pointers = int64(m.sb.FragmentTable)
		perBlock := uint64(metaSize / fragmentEntrySize)
		t.Fragments = int64(m.sb.FragmentTable + (uint64(m.sb.Fragments)+perBlock-1)/perBlock*pointerSize)
	}
	return t
}
