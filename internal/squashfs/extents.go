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
	blocks, err := m.storedBlocks(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]Extent, len(blocks))
	for i, b := range blocks {
		all[i] = Extent{int64(b.at), int64(b.word &^ dataRaw)}
	}
	return all, nil
}

// storedBlocks lists blocks as Extents does, without their sums.
func (m *Image) storedBlocks(ctx context.Context) ([]storedBlock, error) {
	var all []storedBlock
	add := func(at uint64, word uint32) {
		if size := uint64(word &^ dataRaw); size > 0 && at < m.sb.BytesUsed && size <= m.sb.BytesUsed-at {
			all = append(all, storedBlock{at: at, word: word})
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
	slices.SortFunc(all, func(a, b storedBlock) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.word&^dataRaw, b.word&^dataRaw))
	})
	end := uint64(0)
	return slices.DeleteFunc(all, func(b storedBlock) bool {
		if b.at < end {
			return true
		}
		end = b.at + uint64(b.word&^dataRaw)
		return false
	}), nil
}
