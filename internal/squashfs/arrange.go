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
	node  *node
	first sum
	sums  []sum
	done  chan struct{} // closed when all sums are there
}

func (p *packer) arrange(ctx context.Context) error {
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
			return a.finish()
		case next.batch != nil:
			err = a.addBatch(next.batch)
		default:
			err = a.addLarge(next.large, next.first)
		}
		if err != nil {
			return err
		}
	}
}

// finish makes what fragments are left. Only now, not after an error, nobody sends
// to the channels any more.
func (a *arranger) finish() error {
	if err := a.leave(0); err != nil {
		return err
	}
	close(a.tasks)
	close(a.runs)
	return nil
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
	return a.pile(n, content, s)
}

// submit hands a run to the workers and, in this order, to the writer. The
// writer's channel comes first: its capacity bounds the buffers in use.
func (a *arranger) submit(blocks []*block, task func(*worker) error) error {
	r := &blockRun{blocks, make(chan struct{})}
	if err := send(a.ctx, a.runs, r); err != nil {
		return err
	}
	return send(a.ctx, a.tasks, func(w *worker) error {
		if err := task(w); err != nil {
			return err
		}
		close(r.ready)
		return nil
	})
}

// addLarge puts a file into blocks of its own, unless they are there already.
func (a *arranger) addLarge(n *node, first *firstSum) error {
	l := &laying{node: n, done: make(chan struct{})}
	if first != nil {
		if err := receive(a.ctx, first.ready); err != nil {
			return err
		}
		l.first = first.sum
		twin, err := a.findTwin(n, first.sum)
		if err != nil {
			return err
		}
		if twin != nil {
			n.file.twin = twin
			a.meter.add(n.stamp.size)
			return nil
		}
		l.sums = make([]sum, blockCount(n.stamp.size, a.o.BlockSize))
		a.large[n.stamp.size] = append(a.large[n.stamp.size], l)
	}
	return a.layBlocks(l)
}

func (a *arranger) layBlocks(l *laying) error {
	size, blockSize := l.node.stamp.size, int64(a.o.BlockSize)
	count := blockCount(size, a.o.BlockSize)
	src, err := a.openLarge(l.node, (count+runBlocks-1)/runBlocks, l.done)
	if err != nil {
		return err
	}
	l.node.file.words = make([]uint32, count)
	for first := 0; first < count; first += runBlocks {
		blocks := make([]*block, min(runBlocks, count-first))
		for k := range blocks {
			i := first + k
			blocks[k] = &block{owner: l.node, index: i, size: int(min(blockSize, size-int64(i)*blockSize))}
		}
		err := a.submit(blocks, func(w *worker) error {
			return src.release(a.readBlocks(w, src, blocks, l.sums))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// readBlocks reads some blocks of a large file and compresses them.
func (a *arranger) readBlocks(w *worker, src *source, blocks []*block, sums []sum) error {
	for _, b := range blocks {
		if err := a.readBlock(w, src, b, sums); err != nil {
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

// readBlock reads a block of a large file and compresses it. Its sum is kept if
// there are sums.
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
	if sums == nil && a.keyed() {
		b.sum = a.hash.sum(b.raw)
	}
	return a.encode(w, b)
}

// keyed tells whether blocks are identified by the sums of their content.
func (p *packer) keyed() bool { return p.base != nil || p.table != nil }

// encode makes b.data of b.raw, whose sum is known if it is of use: from the base
// if that has it, which spares the work and gives the same bytes. The buffer that
// is not written is free then.
func (p *packer) encode(w *worker, b *block) error {
	b.spare = p.pool.get()
	if err := p.makeData(w, b); err != nil {
		return err
	}
	unused := &b.raw
	if b.word&dataRaw != 0 {
		unused = &b.spare
	}
	p.pool.put(*unused)
	*unused = nil
	return nil
}

func (p *packer) makeData(w *worker, b *block) error {
	if p.base != nil {
		if data, known, ok := p.base.fetch(p.hash, b.sum, b.raw, b.spare); ok {
			b.data, b.word, b.store, b.copied = data, known.word, known.sum, true
			return nil
		}
	}
	if err := p.compress(w, b); err != nil {
		return err
	}
	if p.table != nil || p.checked {
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
	if len(packed) >= len(b.raw) {
		b.data, b.word = b.raw, uint32(len(b.raw))|dataRaw
		return nil
	}
	b.data, b.word = packed, uint32(len(packed))
	return p.compare(w, b)
}

// compare decodes a block that has just been compressed, and compares it with its
// source.
func (p *packer) compare(w *worker, b *block) error {
	if !p.checked {
		return nil
	}
	n, err := decodeSafely(w.encoder, w.scratch[:len(b.raw)], b.data)
	if err == nil && !bytes.Equal(w.scratch[:n], b.raw) {
		err = errOther
	}
	if err != nil {
		return fmt.Errorf("a block that %s compressed: %w", p.spec.version, err)
	}
	return nil
}

// findTwin returns a file laid before that has the same content, if there is
// one. The whole file is read for that only if its first block has been seen in
// a file of its size, and then it hardly ever has to be read again.
func (a *arranger) findTwin(n *node, first sum) (*node, error) {
	alike := slices.Clone(a.large[n.stamp.size])
	alike = slices.DeleteFunc(alike, func(l *laying) bool { return l.first != first })
	if len(alike) == 0 {
		return nil, nil
	}
	all, err := a.sumsOf(n)
	if err != nil {
		return nil, err
	}
	for _, l := range alike {
		if err := receive(a.ctx, l.done); err != nil {
			return nil, err
		}
		if slices.Equal(l.sums, all) {
			return l.node, nil
		}
	}
	return nil, nil
}

// sumsOf has the workers read the blocks of a file for their sums.
func (a *arranger) sumsOf(n *node) ([]sum, error) {
	count := blockCount(n.stamp.size, a.o.BlockSize)
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
