package squashfs

import (
	"cmp"
	"context"
	"slices"
)

// Extent is where a block is stored in an image, in bytes.
type Extent struct{ Offset, Length int64 }

// Extents lists the stored data and fragment blocks of an image in the order of
// their offsets, each once. Blocks that another one overlaps are left out.
func (m *Image) Extents(ctx context.Context) ([]Extent, error) {
	var all []Extent
	add := func(at uint64, word uint32) {
		if size := int64(word &^ dataRaw); size > 0 && at < m.sb.BytesUsed && uint64(size) <= m.sb.BytesUsed-at {
			all = append(all, Extent{int64(at), size})
		}
	}
	w := walker{
		m:         m,
		directory: func(string, *inode) error { return nil },
		entry: func(_ string, _ *inode, _ dirent, i *inode) error {
			if i.kind != typeFile {
				return nil
			}
			words, err := m.words(i)
			at := i.start
			for _, word := range words {
				add(at, word)
				at += uint64(word &^ dataRaw)
			}
			return err
		},
	}
	if err := w.walk(ctx); err != nil {
		return nil, err
	}
	for index := range m.sb.Fragments {
		at, word, err := m.fragmentEntry(index)
		if err != nil {
			return nil, err
		}
		add(at, word)
	}
	slices.SortFunc(all, func(a, b Extent) int {
		return cmp.Or(cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Length, b.Length))
	})
	end := int64(0)
	return slices.DeleteFunc(all, func(e Extent) bool {
		if e.Offset < end {
			return true
		}
		end = e.Offset + e.Length
		return false
	}), nil
}
