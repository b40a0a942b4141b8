package squashfs

import "fmt"

// piles gathers small files into fragment blocks.
//
// A block holds files of one directory, or of several close to each other, and
// directories share one only if they are small. So what changes in a directory
// changes few blocks, and none beyond: each block is a function of the few
// directories in it, not of all that comes before. Blocks are less full for
// that, but made of what is alike, which makes up for it: see bench/squashfs.
type piles struct {
	limit int // bytes in a block
	own   int // bytes of a directory that deserve a block of their own
	open  []*pile
}

// pile is what is gathered of a directory and has no block yet.
type pile struct {
	dir   *node
	nodes []*node // their offsets are within data
	sums  []sum   // of their contents, if those are checked
	data  []byte
}

// ownShare says which part of a block a directory must fill to get one of its own:
// a smaller part makes upgrades cheaper and images larger.
const ownShare = 4

func newPiles(limit int) piles {
	return piles{limit: limit, own: limit / ownShare}
}

// weigh notes for each directory how many bytes of small files are in it and
// below.
func (p *packer) weigh(dir *node) int64 {
	for _, e := range dir.entries {
		switch n := e.node; {
		case n.isDir():
			dir.small += p.weigh(n)
		case n.parent == dir && n.name == e.name && n.isRegular() && p.inFragment(n.stamp.size):
			dir.small += n.stamp.size
		}
	}
	return dir.small
}

// pileOf returns the pile of a directory. All directories that are not above it
// are complete then, since contents come depth first.
func (a *arranger) pileOf(dir *node) (*pile, error) {
	if last := len(a.piles.open) - 1; last >= 0 && a.piles.open[last].dir == dir {
		return a.piles.open[last], nil
	}
	var path []*node // from dir to the root
	for n := dir; n != nil; n = n.parent {
		path = append(path, n)
	}
	common := 0
	for common < len(a.piles.open) && common < len(path) && a.piles.open[common].dir == path[len(path)-1-common] {
		common++
	}
	if err := a.leave(common); err != nil {
		return nil, err
	}
	for depth := common; depth < len(path); depth++ {
		a.piles.open = append(a.piles.open, &pile{dir: path[len(path)-1-depth]})
	}
	return a.piles.open[len(path)-1], nil
}

// leave completes directories until no more than depth are open.
func (a *arranger) leave(depth int) error {
	for len(a.piles.open) > depth {
		last := len(a.piles.open) - 1
		done := a.piles.open[last]
		a.piles.open = a.piles.open[:last]
		var above *pile
		if last > 0 {
			above = a.piles.open[last-1]
		}
		if err := a.settle(done, above); err != nil {
			return err
		}
	}
	return nil
}

// settle finds a place for what is left of a directory: with the one above, if
// all of that fits into one block or this is too little for a block.
func (a *arranger) settle(done, above *pile) error {
	if above == nil || len(done.data) >= a.piles.own && above.dir.small > int64(a.piles.limit) {
		return a.cut(done)
	}
	if len(above.data)+len(done.data) > a.piles.limit {
		if err := a.cut(above); err != nil {
			return err
		}
	}
	if len(above.nodes) == 0 {
		above.nodes, above.sums, above.data = done.nodes, done.sums, done.data
		return nil
	}
	for _, n := range done.nodes {
		n.file.offset += uint32(len(above.data))
	}
	above.nodes = append(above.nodes, done.nodes...)
	above.sums = append(above.sums, done.sums...)
	above.data = append(above.data, done.data...)
	a.pool.put(done.data)
	return nil
}

// pile puts a small file, whose content has that sum, on the pile of its directory.
func (a *arranger) pile(n *node, content []byte, s sum) error {
	p, err := a.pileOf(n.parent)
	if err != nil {
		return err
	}
	if len(p.data)+len(content) > a.piles.limit {
		if err := a.cut(p); err != nil {
			return err
		}
	}
	if p.data == nil {
		p.data = a.pool.get()
	}
	n.file.offset = uint32(len(p.data))
	p.nodes = append(p.nodes, n)
	p.sums = append(p.sums, s)
	p.data = append(p.data, content...)
	return nil
}

// cut makes a fragment block of a pile.
func (a *arranger) cut(p *pile) error {
	if len(p.nodes) == 0 {
		return nil
	}
	if a.fragments == noFragment-1 {
		return fmt.Errorf("the tree needs more than %d fragments", a.fragments)
	}
	for _, n := range p.nodes {
		n.file.fragment = a.fragments
	}
	a.fragments++
	b := &block{size: len(p.data), raw: p.data}
	nodes, sums := p.nodes, p.sums
	p.nodes, p.sums, p.data = nil, nil, nil
	return a.submit([]*block{b}, func(w *worker) error {
		if err := a.holds(b.raw, nodes, sums); err != nil {
			return err
		}
		if a.keyed() {
			b.sum = a.hash.sum(b.raw)
		}
		return a.encode(w, b)
	})
}

// holds checks that the content of files is where a fragment is to have it.
func (a *arranger) holds(fragment []byte, nodes []*node, sums []sum) error {
	if !a.checked {
		return nil
	}
	for i, n := range nodes {
		if a.hash.sum(fragment[n.file.offset:][:n.stamp.size]) != sums[i] {
			return fmt.Errorf("%q in its fragment: %w", n.relative(), errOther)
		}
	}
	return nil
}
