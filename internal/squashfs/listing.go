package squashfs

import (
	"encoding/binary"
	"math"
)

// listing says where a directory's listing is.
type listing struct {
	block  uint64
	offset uint16
	size   int
	index  []indexEntry
}

// indexEntry lets a reader start in the middle of a long listing: at the header
// that stands at so many bytes, in the metadata block that starts at block.
type indexEntry struct {
	at    uint32
	block uint64
	name  string // of the first entry below the header
}

// listingWriter writes one listing: headers, each with up to 256 entries whose
// inodes are in one metadata block and have numbers close to each other.
type listingWriter struct {
	out *metaWriter
	l   listing

	entries []byte // below the present header
	count   int
	first   *node // the first of them; its number is the header's
	indexed int   // position of the last header that the index has, 0 the first
	jump    bool  // the present header goes into the index
	name    string
}

func writeListing(out *metaWriter, dir *node) listing {
	w := &listingWriter{out: out}
	w.l.block, w.l.offset = out.pos()
	for _, e := range dir.entries {
		w.add(e)
	}
	w.endRun()
	return w.l
}

func (w *listingWriter) add(e entry) {
	size := dirEntrySize + len(e.name)
	far := w.l.size+dirHeaderSize+len(w.entries)+size-w.indexed > metaSize
	if w.count > 0 && (far || w.count == dirRun || !w.near(e.node)) {
		w.endRun()
		if far && len(w.l.index) < math.MaxUint16 {
			w.jump, w.indexed = true, w.l.size
		}
	}
	if w.count == 0 {
		w.first, w.name = e.node, e.name
	}
	w.count++
	le := binary.LittleEndian
	w.entries = le.AppendUint16(w.entries, uint16(e.node.ref))
	w.entries = le.AppendUint16(w.entries, uint16(e.node.number-w.first.number))
	w.entries = le.AppendUint16(w.entries, e.node.direntType())
	w.entries = le.AppendUint16(w.entries, uint16(len(e.name)-1))
	w.entries = append(w.entries, e.name...)
}

// near tells whether n can stand below the present header.
func (w *listingWriter) near(n *node) bool {
	delta := int64(n.number) - int64(w.first.number)
	return n.ref>>16 == w.first.ref>>16 && delta >= math.MinInt16 && delta <= math.MaxInt16
}

func (w *listingWriter) endRun() {
	if w.count == 0 {
		return
	}
	if w.jump {
		block, _ := w.out.pos()
		w.l.index = append(w.l.index, indexEntry{uint32(w.l.size), block, w.name})
		w.jump = false
	}
	le := binary.LittleEndian
	head := le.AppendUint32(nil, uint32(w.count-1))
	head = le.AppendUint32(head, uint32(w.first.ref>>16))
	head = le.AppendUint32(head, w.first.number)
	w.out.write(head)
	w.out.write(w.entries)
	w.l.size += len(head) + len(w.entries)
	w.entries, w.count = w.entries[:0], 0
}
