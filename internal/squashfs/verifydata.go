package squashfs

import (
	"context"
	"errors"
	"fmt"
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
		if c.hole(k) {
			holes += uint64(c.blockLen(k))
			continue
		}
		if err := v.stored(c.at[k], word, c.blockLen(k)); err != nil {
			return err
		}
	}
	if i.sparse > holes {
		return invalid("file", fmt.Errorf("%d bytes in holes, and %d claimed", holes, i.sparse))
	}
	if len(c.words) == c.blocks() {
		return nil
	}
	end := uint64(i.offset) + uint64(c.blockLen(len(c.words)))
	if end > uint64(v.m.sb.BlockSize) {
		return invalid("file", errors.New("it reaches past the end of its fragment"))
	}
	if i.fragment >= v.m.sb.Fragments {
		return invalid("file", fmt.Errorf("fragment %d of %d", i.fragment, v.m.sb.Fragments))
	}
	v.tails[i.fragment] = max(v.tails[i.fragment], uint32(end))
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
	for index := range v.m.sb.Fragments {
		at, word, err := v.m.fragmentEntry(index)
		if err != nil {
			return err
		}
		used := v.tails[index]
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
