package squashfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
)

// check reads the image back that was written and compares it with the tree as
// it was scanned and with the sums of what was read: names, inodes, and the
// content of every file.
func (p *packer) check(ctx context.Context) error {
	m, err := NewReader(p.out.file, p.summary.Size, Limits{})
	if err != nil {
		return err
	}
	defer m.Close()
	if int(m.sb.Inodes) != len(p.tree.nodes) {
		return fmt.Errorf("superblock: %w", errOther)
	}
	c := &checker{tree: p.tree, hash: p.hash, m: m, sums: map[uint64]sum{}, tails: map[uint32][]*node{}, known: p.copied}
	for _, n := range p.tree.nodes {
		c.add(n)
	}
	m.limits.Entries = max(m.limits.Entries, len(p.tree.nodes)+p.tree.links)
	m.limits.DirEntries = m.limits.Entries
	if err := newVerifier(m, c).run(ctx); err != nil {
		return fmt.Errorf("the image that was written is not right: %w", err)
	}
	return nil
}

// checker is what the image of a tree ought to hold.
type checker struct {
	tree *tree
	hash hasher
	m    *Image

	sums    map[uint64]sum         // of data blocks, by where they are stored
	tails   map[uint32][]*node     // files in each fragment
	known   map[uint64]storedBlock // blocks from the base
	entries int
}

// add notes where the content of a file ought to be.
func (c *checker) add(n *node) {
	if n.file == nil || n.file.twin != nil {
		return
	}
	f := n.file
	if f.fragment != noFragment {
		c.tails[f.fragment] = append(c.tails[f.fragment], n)
		return
	}
	at := uint64(f.start)
	for k, word := range f.words {
		if word != 0 {
			c.sums[at] = f.sums[k]
		}
		at += uint64(word &^ dataRaw)
	}
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

func (c *checker) block(at uint64, content []byte) error {
	if want, ok := c.sums[at]; !ok || c.hash.sum(content) != want {
		return fmt.Errorf("block at %d: %w", at, errOther)
	}
	return nil
}

// copied compares a block that came from the base, which had it decoded and
// compared when it was packed itself, with the stored form that it had there.
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

func (c *checker) fragment(index uint32, content []byte) error {
	for _, n := range c.tails[index] {
		if int64(n.file.offset)+n.stamp.size > int64(len(content)) || c.hash.sum(content[n.file.offset:][:n.stamp.size]) != n.file.sums[0] {
			return fmt.Errorf("%q: %w", n.relative(), errOther)
		}
	}
	return nil
}
