package squashfs

import (
	"errors"
	"fmt"
	"io"
)

// content gives access to the content of a file.
type content struct {
	m     *Image
	i     *inode
	words []uint32
	at    []uint64 // where each block is stored
}

func (m *Image) content(i *inode) (*content, error) {
	words, err := m.words(i)
	if err != nil {
		return nil, err
	}
	c := &content{m: m, i: i, words: words, at: make([]uint64, len(words))}
	next := i.start
	for k, word := range words {
		c.at[k] = next
		next += uint64(word &^ dataRaw)
	}
	return c, nil
}

// blocks returns how many blocks the content has, its fragment included.
func (c *content) blocks() int { return blockCount(c.i.size, int(c.m.sb.BlockSize)) }

// blockLen returns the size of a block's content.
func (c *content) blockLen(k int) int {
	blockSize := int64(c.m.sb.BlockSize)
	return int(min(blockSize, c.i.size-int64(k)*blockSize))
}

// hole tells whether a block is nothing but zeros that are not stored.
func (c *content) hole(k int) bool { return k < len(c.words) && c.words[k]&^dataRaw == 0 }

// read fills dst, which has the block's size, with a block.
func (c *content) read(k int, dst []byte) error {
	switch {
	case c.hole(k):
		clear(dst)
		return nil
	case k >= len(c.words):
		tail, err := c.tail()
		copy(dst, tail)
		return err
	}
	n, err := c.m.readStored(c.at[k], c.words[k], dst)
	if err == nil && n != len(dst) {
		err = invalid("file", fmt.Errorf("a block of %d bytes in place of %d", n, len(dst)))
	}
	return err
}

// key names a block that is stored in the cache.
func (c *content) key(k int) blockKey { return blockKey{int64(c.at[k]), c.words[k]} }

// cached returns a block that is stored, or the fragment, through the cache.
func (c *content) cached(k int) ([]byte, error) {
	if k >= len(c.words) {
		return c.tail()
	}
	data, err := c.m.cachedBlock(c.at[k], c.words[k], c.blockLen(k))
	if err == nil && len(data) != c.blockLen(k) {
		err = invalid("file", fmt.Errorf("a block of %d bytes in place of %d", len(data), c.blockLen(k)))
	}
	return data, err
}

// tail returns the end of the content, which a fragment block holds.
func (c *content) tail() ([]byte, error) {
	size := c.blockLen(len(c.words))
	block, err := c.m.fragment(c.i.fragment)
	if err != nil {
		return nil, err
	}
	if uint64(c.i.offset)+uint64(size) > uint64(len(block)) {
		return nil, invalid("file", errors.New("it reaches past the end of its fragment"))
	}
	return block[c.i.offset:][:size], nil
}

// readAt reads as io.ReaderAt does. It is safe for concurrent use.
func (c *content) readAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	done := 0
	for len(p) > 0 && off < c.i.size {
		k, skip := int(off/int64(c.m.sb.BlockSize)), int(off%int64(c.m.sb.BlockSize))
		size := c.blockLen(k)
		n := min(len(p), size-skip)
		switch {
		case c.hole(k):
			clear(p[:n])
		case n == size:
			if err := c.read(k, p[:n]); err != nil {
				return done, err
			}
		default:
			block, err := c.cached(k)
			if err != nil {
				return done, err
			}
			copy(p[:n], block[skip:])
		}
		p, off, done = p[n:], off+int64(n), done+n
	}
	if len(p) > 0 {
		return done, io.EOF
	}
	return done, nil
}

// fragment returns the content of a fragment block.
func (m *Image) fragment(index uint32) ([]byte, error) {
	at, word, err := m.fragmentEntry(index)
	if err != nil {
		return nil, err
	}
	return m.cachedBlock(at, word, int(m.sb.BlockSize))
}

func (m *Image) fragmentEntry(index uint32) (at uint64, word uint32, err error) {
	t, err := m.fragments()
	if err != nil {
		return 0, 0, err
	}
	entry, err := t.get(index)
	if err != nil {
		return 0, 0, err
	}
	f := fields{entry}
	return f.u64(), f.u32(), nil
}

// cachedBlock returns the content of a stored block of up to limit bytes.
func (m *Image) cachedBlock(at uint64, word uint32, limit int) ([]byte, error) {
	data, _, err := m.data.get(blockKey{int64(at), word}, func() ([]byte, int64, error) {
		dst := make([]byte, limit)
		n, err := m.readStored(at, word, dst)
		return dst[:n], 0, err
	})
	return data, err
}

// readStored reads a block that is stored at an offset of the image and returns
// the size of its content.
func (m *Image) readStored(at uint64, word uint32, dst []byte) (int, error) {
	size := int(word &^ dataRaw)
	if size == 0 || size > int(m.sb.BlockSize) || at < superblockSize || at > m.sb.InodeTable || at+uint64(size) > m.sb.InodeTable {
		return 0, invalid("block", fmt.Errorf("%d bytes at %d are not where data can be", size, at))
	}
	if word&dataRaw != 0 {
		if size > len(dst) {
			return 0, invalid("block", errTooLong)
		}
		return size, m.readAt(dst[:size], int64(at))
	}
	raw := m.buffer(size)
	defer m.buffers.Put(raw)
	if err := m.readAt(*raw, int64(at)); err != nil {
		return 0, err
	}
	n, err := decodeSafely(m.decoder, dst, *raw)
	if err != nil {
		return 0, invalid("block", fmt.Errorf("at %d: %w", at, err))
	}
	return n, nil
}
