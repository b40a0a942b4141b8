package squashfs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// file checks a file and has its blocks checked.
func (v *verifier) file(i *inode) error {
	c, err := v.m.content(i)
	if err != nil {
		return err
	}
	if v.expect != nil {
		if err := v.expect.file(i, c.words); err != nil {
			return err
		}
	}
	holes := uint64(0)
	for k, word := range c.words {
		if word == dataRaw {
			return invalid("file", errors.New("a block that is stored and has no bytes"))
		}
		if c.hole(k) {
			holes += uint64(c.blockLen(k))
			continue
		}
		if err := v.stored(c.at[k], word, c.blockLen(k)); err != nil {
			return err
		}
	}
	// Some write no number, and none leaves a block out.
	if i.sparse > holes || i.sparse > 0 && holes-i.sparse >= uint64(v.m.sb.BlockSize) {
		return invalid("file", fmt.Errorf("%d bytes in holes, and %d claimed", holes, i.sparse))
	}
	if len(c.words) == c.blocks() {
		return nil
	}
	size := uint32(c.blockLen(len(c.words)))
	if end := uint64(i.offset) + uint64(size); end > uint64(v.m.sb.BlockSize) {
		return invalid("file", errors.New("it reaches past the end of its fragment"))
	}
	if i.fragment >= v.m.sb.Fragments {
		return invalid("file", fmt.Errorf("fragment %d of %d", i.fragment, v.m.sb.Fragments))
	}
	v.tails = append(v.tails, tail{i.fragment, i.offset, size})
	return nil
}

// stored has a data block checked, unless it was met before.
func (v *verifier) stored(at uint64, word uint32, size int) error {
	if known, seen := v.blocks[at]; seen {
		if known != word {
			return invalid("block", fmt.Errorf("the one at %d has two sizes", at))
		}
		return nil
	}
	v.blocks[at] = word
	return v.decode(at, word, func(content []byte) error {
		if len(content) != size {
			return invalid("file", fmt.Errorf("the block at %d holds %d bytes in place of %d", at, len(content), size))
		}
		if v.expect != nil {
			return v.expect.block(at, content)
		}
		return nil
	})
}

// fragments checks all fragment blocks, and that they hold what files use.
func (v *verifier) fragments() error {
	ends, err := v.tailEnds()
	if err != nil {
		return err
	}
	for index := range v.m.sb.Fragments {
		at, word, err := v.m.fragmentEntry(index)
		if err != nil {
			return err
		}
		if known, seen := v.blocks[at]; seen && known != word {
			return invalid("fragment", fmt.Errorf("number %d has two sizes", index))
		}
		v.blocks[at] = word
		used := ends[index]
		err = v.decode(at, word, func(content []byte) error {
			if int(used) > len(content) {
				return invalid("fragment", fmt.Errorf("number %d holds %d bytes, files use %d", index, len(content), used))
			}
			if v.expect != nil {
				return v.expect.fragment(index, content)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// tailEnds returns how much of each fragment files use. No two of them share a part
// but those that share all.
func (v *verifier) tailEnds() (map[uint32]uint32, error) {
	slices.SortFunc(v.tails, func(a, b tail) int {
		return cmp.Or(cmp.Compare(a.fragment, b.fragment), cmp.Compare(a.offset, b.offset), cmp.Compare(a.size, b.size))
	})
	ends := map[uint32]uint32{}
	for k, t := range v.tails {
		if k > 0 && t == v.tails[k-1] {
			continue
		}
		if t.offset < ends[t.fragment] {
			return nil, invalid("file", fmt.Errorf("two have parts of one another in fragment %d", t.fragment))
		}
		ends[t.fragment] = t.offset + t.size
	}
	return ends, nil
}

// overlaps checks that no two blocks have bytes in common: what is stored once
// and used twice is the same block.
func (v *verifier) overlaps() error {
	end := uint64(0)
	for _, at := range slices.Sorted(maps.Keys(v.blocks)) {
		if at < end {
			return invalid("block", fmt.Errorf("the one at %d begins inside of another", at))
		}
		end = at + uint64(v.blocks[at]&^dataRaw)
	}
	return nil
}

// decode reads a block on another goroutine and has its content checked there.
func (v *verifier) decode(at uint64, word uint32, check func([]byte) error) error {
	if v.ctx.Err() != nil {
		return context.Cause(v.ctx)
	}
	v.group.Go(func() error {
		if v.expect != nil {
			if known, err := v.expect.copied(at, word); known || err != nil {
				return err
			}
		}
		buf, _ := v.buffers.Get().(*[]byte)
		if buf == nil {
			b := make([]byte, v.m.sb.BlockSize)
			buf = &b
		}
		defer v.buffers.Put(buf)
		n, err := v.m.readStored(at, word, *buf)
		if err != nil {
			return err
		}
		v.meter.add(int64(word &^ dataRaw))
		return check((*buf)[:n])
	})
	return nil
}
