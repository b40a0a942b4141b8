package squashfs

import (
	"bytes"
	"context"
	"fmt"
	"slices"
)

// arranger decides the layout of the image's data. It runs on one goroutine.
type arranger struct {
	*packer
	ctx   context.Context
	small map[smallKey]*node  // files in fragments, by content
	large map[int64][]*laying // files in blocks, by size; only sizes that occur twice

	piles     piles  // small files that have no fragment yet
	fragments uint32 // how many were made
}

// smallKey identifies the content of a small file.
type smallKey struct {
	size int64
	sum  sum
}

// laying is a large file whose blocks are with the workers.
type laying struct {
	node *node
	sums []sum
	done chan struct{} // closed when all sums are there
}

func (p *packer) arrange(ctx context.Context) error {
	defer close(p.blocks)
	defer close(p.tasks)
	a := &arranger{packer: p, ctx: ctx, small: map[smallKey]*node{}, large: map[int64][]*laying{}, piles: newPiles(p.o.BlockSize)}
	p.weigh(p.tree.root)
	for {
		var next item
		var more bool
		select {
		case next, more = <-p.items:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		var err error
		switch {
		case !more:
			return a.leave(0)
		case next.batch != nil:
			err = a.addBatch(next.batch)
		default:
			err = a.addLarge(next.large)
		}
		if err != nil {
			return err
		}
	}
}

func (a *arranger) addBatch(b *batch) error {
	if err := receive(a.ctx, b.ready); err != nil {
		return err
	}
	rest := b.data
	for i, n := range b.nodes {
		content := rest[:n.stamp.size]
		rest = rest[n.stamp.size:]
		if err := a.addSmall(n, content, b.sums[i]); err != nil {
			return err
		}
	}
	a.pool.put(b.data)
	return nil
}

// addSmall puts a file into a fragment, unless one holds its content already.
func (a *arranger) addSmall(n *node, content []byte, s sum) error {
	key := smallKey{n.stamp.size, s}
	if a.wantSum(n) {
		if twin := a.small[key]; twin != nil {
			n.file.twin = twin
			a.meter.add(n.stamp.size)
			return nil
		}
		a.small[key] = n
	}
	if a.keepSums {
		n.file.sums = []sum{s}
	}
	return a.pile(n, content)
}

// submit hands a block to the workers and, in this order, to the writer. The
// writer's channel comes first: its capacity bounds the buffers in use.
func (a *arranger) submit(b *block, task func(*worker) error) error {
	if err := send(a.ctx, a.blocks, b); err != nil {
		return err
	}
	return send(a.ctx, a.tasks, func(w *worker) error {
		if err := task(w); err != nil {
			return err
		}
		close(b.ready)
		return nil
	})
}

// addLarge puts a file into blocks of its own, unless they are there already.
func (a *arranger) addLarge(n *node) error {
	l := &laying{node: n, done: make(chan struct{})}
	if a.wantSum(n) {
		l.sums = make([]sum, blockCount(n.stamp.size, a.o.BlockSize))
	}
	if a.sizes[n.stamp.size] > 1 {
		twin, err := a.findTwin(n)
		if err != nil {
			return err
		}
		if twin != nil {
			n.file.twin = twin
			a.meter.add(n.stamp.size)
			return nil
		}
		a.large[n.stamp.size] = append(a.large[n.stamp.size], l)
	}
	if a.keepSums {
		n.file.sums = l.sums
	}
	return a.layBlocks(l)
}

func (a *arranger) layBlocks(l *laying) error {
	size, blockSize := l.node.stamp.size, int64(a.o.BlockSize)
	count := blockCount(size, a.o.BlockSize)
	src, err := a.openLarge(l.node, count, l.done)
	if err != nil {
		return err
	}
	l.node.file.words = make([]uint32, count)
	for i := range count {
		off := int64(i) * blockSize
		b := &block{owner: l.node, index: i, size: int(min(blockSize, size-off)), ready: make(chan struct{})}
		err := a.submit(b, func(w *worker) error {
			return src.release(a.readBlock(w, src, b, l.sums))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// openLarge opens a file for so many tasks; done is closed after the last one.
func (a *arranger) openLarge(n *node, tasks int, done chan struct{}) (*source, error) {
	for s := range a.open {
		if s.left.Load() <= 0 {
			delete(a.open, s)
		}
	}
	src, err := a.tree.openSource(n, tasks)
	if err != nil {
		return nil, err
	}
	src.finished = func() { close(done) }
	a.open[src] = true
	return src, nil
}

// readBlock reads a block of a large file and compresses it.
func (a *arranger) readBlock(w *worker, src *source, b *block, sums []sum) error {
	off := int64(b.index) * int64(a.o.BlockSize)
	hole := b.owner.holes && src.hole(off, int64(b.size))
	if hole && sums == nil {
		return nil
	}
	b.raw = a.pool.get()[:b.size]
	if hole {
		clear(b.raw)
	} else if err := src.read(b.raw, off); err != nil {
		return err
	}
	if sums != nil {
		b.sum = a.hash.sum(b.raw)
		sums[b.index] = b.sum
	}
	if hole || isZero(b.raw) {
		return nil
	}
	return a.encode(w, b)
}

// encode makes b.data of b.raw, whose sum is known if it is of use: from the base
// if that has it, which spares the work and gives the same bytes.
func (p *packer) encode(w *worker, b *block) error {
	b.spare = p.pool.get()
	if p.base != nil {
		if data, known, ok := p.base.fetch(p.hash, b.sum, b.raw, b.spare); ok {
			b.data, b.word, b.store, b.copied = data, known.word, known.sum, true
			return nil
		}
	}
	if err := p.compress(w, b); err != nil {
		return err
	}
	if p.o.KeepBlocks {
		b.store = p.hash.sum(b.data)
	}
	return nil
}

// compress makes b.data of b.raw: compressed if that is smaller.
func (p *packer) compress(w *worker, b *block) error {
	packed, err := w.encoder.encode(b.spare, b.raw)
	if err != nil {
		return fmt.Errorf("compress: %w", err)
	}
	b.data, b.word = packed, uint32(len(packed))
	if len(packed) >= len(b.raw) {
		b.data, b.word = b.raw, uint32(len(b.raw))|dataRaw
	}
	return nil
}

// findTwin returns a file laid before that has the same content, if there is
// one. The whole file is read for that only if its first block has been seen in
// a file of its size, and then it hardly ever has to be read again.
func (a *arranger) findTwin(n *node) (*node, error) {
	var alike []*laying
	first, err := a.sumsOf(n, 1)
	if err != nil {
		return nil, err
	}
	for _, l := range a.large[n.stamp.size] {
		if err := receive(a.ctx, l.done); err != nil {
			return nil, err
		}
		if l.sums[0] == first[0] {
			alike = append(alike, l)
		}
	}
	if len(alike) == 0 {
		return nil, nil
	}
	all, err := a.sumsOf(n, blockCount(n.stamp.size, a.o.BlockSize))
	if err != nil {
		return nil, err
	}
	for _, l := range alike {
		if slices.Equal(l.sums, all) {
			return l.node, nil
		}
	}
	return nil, nil
}

// sumsOf has the workers read the first blocks of a file for their sums.
func (a *arranger) sumsOf(n *node, count int) ([]sum, error) {
	done := make(chan struct{})
	src, err := a.openLarge(n, count, done)
	if err != nil {
		return nil, err
	}
	sums := make([]sum, count)
	for i := range sums {
		err := send(a.ctx, a.tasks, func(w *worker) error {
			off := int64(i) * int64(a.o.BlockSize)
			b := w.scratch[:min(int64(a.o.BlockSize), n.stamp.size-off)]
			err := src.read(b, off)
			sums[i] = a.hash.sum(b)
			return src.release(err)
		})
		if err != nil {
			return nil, err
		}
	}
	return sums, receive(a.ctx, done)
}

func blockCount(size int64, blockSize int) int {
	return int((size + int64(blockSize) - 1) / int64(blockSize))
}

var zeros [4096]byte

func isZero(b []byte) bool {
	for len(b) > len(zeros) {
		if !bytes.Equal(b[:len(zeros)], zeros[:]) {
			return false
		}
		b = b[len(zeros):]
	}
	return bytes.Equal(b, zeros[:len(b)])
}
