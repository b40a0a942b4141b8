package squashfs

import (
	"encoding/binary"
	"fmt"
)

// metaWriter collects a table, compressing it in blocks of 8 KiB as it grows.
type metaWriter struct {
	encoder encoder
	block   []byte // not yet compressed, always less than a whole block
	spare   []byte
	out     []byte   // compressed blocks with their headers
	starts  []uint64 // of the blocks in out
	err     error    // the first of all, for the end
}

func newMetaWriter(e encoder) *metaWriter { return &metaWriter{encoder: e} }

// pos returns where the next byte goes: the start of its block in the table and
// the offset in the block's content. Block starts are known in time because
// each block is compressed as soon as it is full.
func (m *metaWriter) pos() (block uint64, offset uint16) {
	return uint64(len(m.out)), uint16(len(m.block))
}

// ref is pos in the form in which the image stores it.
func (m *metaWriter) ref() uint64 {
	block, offset := m.pos()
	return block<<16 | uint64(offset)
}

func (m *metaWriter) write(data []byte) {
	for len(data) > 0 {
		n := min(metaSize-len(m.block), len(data))
		m.block = append(m.block, data[:n]...)
		data = data[n:]
		if len(m.block) == metaSize {
			m.flush()
		}
	}
}

// flush ends the present block, if there is anything in it.
func (m *metaWriter) flush() {
	if len(m.block) == 0 {
		return
	}
	packed, err := m.encoder.encode(m.spare, m.block)
	if err != nil && m.err == nil {
		m.err = fmt.Errorf("compress metadata: %w", err)
	}
	m.starts = append(m.starts, uint64(len(m.out)))
	if len(packed) < len(m.block) {
		m.out = binary.LittleEndian.AppendUint16(m.out, uint16(len(packed)))
		m.out = append(m.out, packed...)
	} else {
		m.out = binary.LittleEndian.AppendUint16(m.out, uint16(len(m.block))|metaRaw)
		m.out = append(m.out, m.block...)
	}
	m.block = m.block[:0]
}

// finish writes the table to the image and returns where it starts.
func (m *metaWriter) finish(out *output) (start uint64, err error) {
	m.flush()
	if m.err != nil {
		return 0, m.err
	}
	start = uint64(out.at)
	return start, out.write(m.out)
}

// writeLookup writes a table of fixed-size entries: its blocks, then head, then
// a pointer to each block. It returns where head is, or the pointers without one.
func writeLookup(out *output, e encoder, entries []byte, head []byte) (uint64, error) {
	m := newMetaWriter(e)
	m.write(entries)
	start, err := m.finish(out)
	if err != nil {
		return 0, err
	}
	tail := head
	for _, block := range m.starts {
		tail = binary.LittleEndian.AppendUint64(tail, start+block)
	}
	at := uint64(out.at)
	return at, out.write(tail)
}
