package squashfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
)

// check reads the image back that was written and compares it with the tree as it
// was scanned and with what was handed to the file system: names, inodes, which
// blocks are whose, and every stored block. That those decode to what was read of
// the tree was seen when they were made.
func (p *packer) check(ctx context.Context) error {
	m, err := NewReader(p.out.file, p.summary.Size, Limits{})
	if err != nil {
		return err
	}
	defer m.Close()
	if int(m.sb.Inodes) != len(p.tree.nodes) {
		return fmt.Errorf("superblock: %w", errOther)
	}
	c := &checker{tree: p.tree, hash: p.hash, m: m, known: p.stored}
	m.limits.Entries = max(m.limits.Entries, len(p.tree.nodes)+p.tree.links)
	m.limits.DirEntries = m.limits.Entries
	err = newVerifier(m, c).run(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("check the image that was written: %w", err)
	case err != nil:
		return fmt.Errorf("the image that was written is not right: %w", err)
	}
	return nil
}

// checker is what the image of a tree ought to hold.
type checker struct {
	tree    *tree
	hash    hasher
	m       *Image
	known   map[uint64]storedBlock // by where they ought to be
	entries int
}

var errOther = errors.New("it is not what was packed")

func (c *checker) directory(dir *inode) error {
	c.entries = 0
	if dir.number == 1 {
		return c.same(c.tree.root, dir)
	}
	return nil
}

func (c *checker) entry(dir *inode, d dirent, i *inode) error {
	want := c.tree.nodes[dir.number-1].entries
	if c.entries >= len(want) || want[c.entries].name != d.name || want[c.entries].node.number != d.number {
		return fmt.Errorf("%q: %w", d.name, errOther)
	}
	c.entries++
	if err := c.same(c.tree.nodes[d.number-1], i); err != nil {
		return fmt.Errorf("%q: %w", d.name, err)
	}
	return nil
}

// same compares an inode with the node it was made of.
func (c *checker) same(n *node, i *inode) error {
	owner, err := c.m.owner(i)
	if err != nil {
		return err
	}
	ok := i.kind == n.direntType() && uint32(i.perm) == n.mode&0o7777 && owner == Owner{n.uid, n.gid} &&
		i.nlink == n.nlink && i.target == n.target
	if n.isRegular() {
		ok = ok && i.size == n.stamp.size
	}
	if !ok {
		return errOther
	}
	xattrs, err := c.m.xattrsOf(i)
	if err != nil {
		return err
	}
	equal := func(a, b xattr) bool { return a.name == b.name && bytes.Equal(a.value, b.value) }
	if !slices.EqualFunc(xattrs, n.xattrs, equal) {
		return errOther
	}
	return nil
}

func (c *checker) file(i *inode, words []uint32) error {
	f := c.tree.nodes[i.number-1].file
	if f.twin != nil {
		f = f.twin.file
	}
	if int64(i.start) != f.start || !slices.Equal(words, f.words) || i.fragment != f.fragment || i.offset != f.offset {
		return errOther
	}
	return nil
}

// block is called for a block that is not known.
func (c *checker) block(at uint64, _ []byte) error {
	return fmt.Errorf("block at %d: %w", at, errOther)
}

// copied compares a block with the stored form that it ought to have.
func (c *checker) copied(at uint64, word uint32) (bool, error) {
	known, ok := c.known[at]
	if !ok || word != known.word {
		return false, nil
	}
	stored := c.m.buffer(int(word &^ dataRaw))
	defer c.m.buffers.Put(stored)
	if err := c.m.readAt(*stored, int64(at)); err != nil {
		return false, err
	}
	if c.hash.sum(*stored) != known.sum {
		return false, fmt.Errorf("block at %d: %w", at, errOther)
	}
	return true, nil
}

// fragment is called for a fragment block that is not known.
func (c *checker) fragment(index uint32, _ []byte) error {
	return fmt.Errorf("fragment %d: %w", index, errOther)
}
