package squashfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/crc64"

	"github.com/ulikunitz/xz/lzma"
)

// xzStream is what the head of an xz stream says, by the specification of the
// .xz file format, version 1.2.
type xzStream struct {
	checkType  byte
	dictionary int
	data       []byte // LZMA2 data, and what follows it
	headerSize int    // of the block, for its padding
}

const (
	xzStreamHeader = 12
	xzLZMA2        = 0x21
	xzCheckCRC32   = 1
	xzCheckCRC64   = 4
)

var (
	xzMagic    = []byte{0xfd, '7', 'z', 'X', 'Z', 0, 0}
	errXzShort = errors.New("xz stream is truncated")
)

// parseXz reads the stream header and the header of its only block.
func parseXz(src []byte) (xzStream, error) {
	var s xzStream
	if len(src) < xzStreamHeader+2 || !bytes.HasPrefix(src, xzMagic) {
		return s, errors.New("not an xz stream")
	}
	s.checkType = src[7]
	block := src[xzStreamHeader:]
	s.headerSize = (int(block[0]) + 1) * 4
	if block[0] == 0 || s.headerSize > len(block) {
		return s, errXzShort
	}
	head := block[:s.headerSize-4]
	if crc32.ChecksumIEEE(head) != binary.LittleEndian.Uint32(block[len(head):]) {
		return s, errors.New("xz block header is damaged")
	}
	s.data = block[s.headerSize:]
	return s, s.parseFilters(head)
}

func (s *xzStream) parseFilters(head []byte) error {
	flags, rest := head[1], head[2:]
	for _, present := range []byte{0x40, 0x80} { // compressed and uncompressed size
		if flags&present != 0 {
			_, n := binary.Uvarint(rest)
			if n <= 0 {
				return errXzShort
			}
			rest = rest[n:]
		}
	}
	if len(rest) < 3 {
		return errXzShort
	}
	if flags&0x03 != 0 || rest[0] != xzLZMA2 || rest[1] != 1 {
		return errors.New("xz filters other than LZMA2 (mksquashfs -Xbcj) cannot be read")
	}
	size, err := lzma.DecodeDictCap(rest[2])
	if err != nil || size > maxBlockSize {
		return fmt.Errorf("xz dictionary of %d bytes is larger than any block", size)
	}
	s.dictionary = int(size)
	return nil
}

// check compares the checksum behind the data, which took so many bytes.
func (s *xzStream) check(content []byte, taken int) error {
	tail := s.data[taken:]
	if pad := -(s.headerSize + taken) & 3; pad <= len(tail) {
		tail = tail[pad:]
	}
	switch s.checkType {
	case xzCheckCRC32:
		if len(tail) < 4 || binary.LittleEndian.Uint32(tail) != crc32.ChecksumIEEE(content) {
			return errors.New("checksum does not match")
		}
	case xzCheckCRC64:
		if len(tail) < 8 || binary.LittleEndian.Uint64(tail) != crc64.Checksum(content, crc64.MakeTable(crc64.ECMA)) {
			return errors.New("checksum does not match")
		}
	}
	return nil
}
