// Package squashfs writes and reads squashfs 4.0 images.
//
// The writer is parallel and deterministic: the bytes of an image depend on the
// content of the tree and on the options, not on the number of workers, on
// times, on the order of directory entries or on the umask. The reader works
// over any io.ReaderAt, implements io/fs, and holds every image for hostile.
//
// The format is that of the kernel's Documentation/filesystems/squashfs.rst.
// All numbers are little-endian. An image is a superblock, the compressed data
// and fragment blocks, and then the tables: inodes, directories, fragments,
// export, ids, extended attributes.
package squashfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
)

const (
	magic          = 0x73717368
	superblockSize = 96
	imageAlign     = 4096 // a kernel mount needs whole blocks of this size

	metaSize    = 8192    // content of one metadata block
	metaRaw     = 1 << 15 // in a metadata block's header: stored, not compressed
	dataRaw     = 1 << 24 // in a data block's size word: stored, not compressed
	metaHeader  = 2
	pointerSize = 8

	minBlockSize     = 4 << 10
	maxBlockSize     = 1 << 20
	defaultBlockSize = 128 << 10

	noFragment = ^uint32(0)
	noXattrs   = ^uint32(0)
	noTable    = ^uint64(0)

	fragmentEntrySize = 16
	idEntrySize       = 4
	exportEntrySize   = 8
	xattrEntrySize    = 16
	xattrHeaderSize   = 16

	dirHeaderSize     = 12
	dirEntrySize      = 8
	dirIndexSize      = 12
	dirRun            = 256 // entries below one directory header
	dirListingPadding = 3   // a directory's size counts "." and "..", which are not stored
	maxNameLen        = 255
	maxTargetLen      = 65535
	maxIDs            = 65535
	maxLinks          = 65535
)

// Flags of the superblock.
const (
	flagRawInodes    = 1 << 0
	flagRawData      = 1 << 1
	flagRawFragments = 1 << 3
	flagNoFragments  = 1 << 4
	flagDuplicates   = 1 << 6
	flagExportable   = 1 << 7
	flagRawXattrs    = 1 << 8
	flagNoXattrs     = 1 << 9
	flagCodecOptions = 1 << 10
	flagRawIDs       = 1 << 11
)

// Inode types. The extended type of each is seven more than the basic one.
const (
	typeDir = iota + 1
	typeFile
	typeSymlink
	typeBlockDevice
	typeCharDevice
	typeFifo
	typeSocket
	extended = 7
)

// superblock is the head of an image, in the order of its fields on disk.
type superblock struct {
	Magic          uint32
	Inodes         uint32
	Time           uint32
	BlockSize      uint32
	Fragments      uint32
	Compressor     uint16
	BlockLog       uint16
	Flags          uint16
	IDs            uint16
	Major, Minor   uint16
	Root           uint64
	BytesUsed      uint64
	IDTable        uint64
	XattrTable     uint64
	InodeTable     uint64
	DirectoryTable uint64
	FragmentTable  uint64
	ExportTable    uint64
}

func (s *superblock) marshal() []byte {
	var b bytes.Buffer
	b.Grow(superblockSize)
	binary.Write(&b, binary.LittleEndian, s) // cannot fail: fixed size, memory
	return b.Bytes()
}

func parseSuperblock(data []byte) (superblock, error) {
	var s superblock
	if _, err := binary.Decode(data, binary.LittleEndian, &s); err != nil {
		return s, fmt.Errorf("%d bytes are too few for a superblock", len(data))
	}
	switch {
	case s.Magic != magic:
		return s, fmt.Errorf("not a squashfs image: magic number %#x", s.Magic)
	case s.Major != 4 || s.Minor != 0:
		return s, fmt.Errorf("squashfs version %d.%d, only 4.0 is supported", s.Major, s.Minor)
	case !validBlockSize(int(s.BlockSize)) || s.BlockLog != uint16(bits.TrailingZeros32(s.BlockSize)):
		return s, fmt.Errorf("block size %d (log %d) is not valid", s.BlockSize, s.BlockLog)
	}
	return s, nil
}

func validBlockSize(n int) bool {
	return n >= minBlockSize && n <= maxBlockSize && n&(n-1) == 0
}
