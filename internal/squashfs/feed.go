package squashfs

import "context"

// batchBytes and batchFiles bound what one task reads of small files.
const (
	batchBytes = 128 << 10
	batchFiles = 128
)

// batch is a run of small files, read by one task.
type batch struct {
	nodes []*node
	sums  []sum
	data  []byte // the contents, one after the other
	ready chan struct{}
}

// feed has the workers read the small files ahead of the arranger, so that many
// of them are opened at once.
func (p *packer) feed(ctx context.Context) error {
	defer close(p.items)
	var pending []*node
	var bytes int64
	flush := func() error {
		if len(pending) == 0 {
			return nil
		}
		b := &batch{nodes: pending, ready: make(chan struct{})}
		pending, bytes = nil, 0
		return p.submitBatch(ctx, b)
	}
	for _, n := range p.tree.contents() {
		size := n.stamp.size
		switch {
		case size == 0:
			continue
		case !p.inFragment(size):
			if err := flush(); err != nil {
				return err
			}
			if err := p.submitLarge(ctx, n); err != nil {
				return err
			}
			continue
		case bytes+size > int64(p.pool.size) || len(pending) == batchFiles:
			if err := flush(); err != nil {
				return err
			}
		}
		pending, bytes = append(pending, n), bytes+size
	}
	return flush()
}

// inFragment tells whether content of that size shares a block with others.
func (p *packer) inFragment(size int64) bool { return size < int64(p.o.BlockSize) }

func (p *packer) submitBatch(ctx context.Context, b *batch) error {
	if err := send(ctx, p.items, item{batch: b}); err != nil {
		return err
	}
	return send(ctx, p.tasks, func(*worker) error {
		if err := p.readBatch(b); err != nil {
			return err
		}
		close(b.ready)
		return nil
	})
}

// firstSum is the sum of the first block of a large file.
type firstSum struct {
	sum   sum
	ready chan struct{}
}

// submitLarge has the first block of a file read ahead, if that may tell that
// another file has the same content.
func (p *packer) submitLarge(ctx context.Context, n *node) error {
	if p.sizes[n.stamp.size] == 1 {
		return send(ctx, p.items, item{large: n})
	}
	first := &firstSum{ready: make(chan struct{})}
	if err := send(ctx, p.items, item{large: n, first: first}); err != nil {
		return err
	}
	return send(ctx, p.tasks, func(w *worker) error {
		src, err := p.tree.openSource(n, 1)
		if err != nil {
			return err
		}
		if err := src.release(src.read(w.scratch, 0)); err != nil {
			return err
		}
		first.sum = p.hash.sum(w.scratch)
		close(first.ready)
		return nil
	})
}

func (p *packer) readBatch(b *batch) error {
	b.data = p.pool.get()
	b.sums = make([]sum, len(b.nodes))
	dirs := directories{tree: p.tree}
	defer dirs.close()
	for i, n := range b.nodes {
		s, err := dirs.open(n, 1)
		if err != nil {
			return err
		}
		start := len(b.data)
		b.data = b.data[:start+int(n.stamp.size)]
		if err := s.release(s.read(b.data[start:], 0)); err != nil {
			return err
		}
		if p.wantSum(n) {
			b.sums[i] = p.hash.sum(b.data[start:])
		}
	}
	return nil
}

// wantSum tells whether the content of a small file may be that of another one too,
// or will be checked once it is in its place.
func (p *packer) wantSum(n *node) bool { return p.checked || p.sizes[n.stamp.size] > 1 }
