package squashfs

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// packer turns a scanned tree into an image.
//
// Four kinds of goroutines work on it. The feeder has the workers read batches of
// small files ahead of time. The arranger walks all contents in their order; it
// alone decides what is a duplicate, what shares a fragment and which block
// follows which, and hands runs of blocks to the workers. The workers read and
// compress. The writer takes the runs in the arranger's order, waits for each and
// writes it. So the layout is the work of one goroutine, whatever the number of workers,
// and the memory is bounded by the capacity of two channels.
type packer struct {
	tree    *tree
	out     *output
	spec    encoderSpec
	o       WriteOptions
	hash    hasher
	summary Summary

	sizes     map[int64]int // how many files are that large
	fragments []fragmentEntry
	base      *base       // nil if there is none
	table     *blockTable // of the new image; of the writer

	checked bool                   // each block is decoded again and compared
	stored  map[uint64]storedBlock // what was written, by where it is; of the writer, if checked

	open  map[*source]bool // large files; of the arranger
	tasks chan func(*worker) error
	items chan item      // from the feeder to the arranger
	runs  chan *blockRun // from the arranger to the writer
	pool  bufferPool

	meter *meter // of input bytes that are in the image
}

// fragmentEntry says where a fragment block is, as on disk.
type fragmentEntry struct {
	Start  uint64
	Word   uint32
	Unused uint32
}

// item is the next thing for the arranger: a batch of small files or a large file.
type item struct {
	batch *batch
	large *node
	first *firstSum // of the large file, if another one is as large
}

// block is a piece of content on its way into the image.
type block struct {
	owner  *node // nil for a fragment
	index  int   // of the block in the file
	size   int   // of the content
	raw    []byte
	spare  []byte // takes the compressed content
	data   []byte // what is written: raw, spare, or nothing for zeros
	sum    sum    // of raw, if sums are kept
	store  sum    // of data, if blocks are checked or a table is kept
	copied bool   // data comes from the base
	word   uint32 // how the image describes it
}

// runBlocks is how many blocks of a file one task is for, at most: fewer tasks take
// less of the scheduler, more blocks more memory.
const runBlocks = 8

// blockRun is what one task makes.
type blockRun struct {
	blocks []*block
	ready  chan struct{}
}

// worker is the state of one working goroutine.
type worker struct {
	encoder encoder
	scratch []byte
}

// newPacker returns a packer. If checked is set, each block is decoded again once it
// was compressed, and check can tell whether all got into the image.
func newPacker(t *tree, out *output, spec encoderSpec, o WriteOptions, checked bool) *packer {
	p := &packer{tree: t, out: out, spec: spec, o: o, checked: checked, sizes: map[int64]int{}, stored: map[uint64]storedBlock{}, open: map[*source]bool{}}
	for _, n := range t.nodes {
		if n.isRegular() {
			p.sizes[n.stamp.size]++
		}
	}
	p.meter = &meter{sink: o.Events, stage: stage, total: t.inputBytes}
	window := 2*o.Workers + 2
	p.tasks = make(chan func(*worker) error, window)
	p.items = make(chan item, window)
	p.runs = make(chan *blockRun, window)
	p.pool = newBufferPool(window*runBlocks, max(o.BlockSize+o.BlockSize/256+512, batchBytes))
	return p
}

// pack writes the content of all files.
func (p *packer) pack(ctx context.Context) (err error) {
	key := newTableKey()
	if p.base != nil {
		key = p.base.table.key
	}
	if p.hash, err = newHasher(key); err != nil {
		return err
	}
	if p.o.KeepBlocks {
		p.table = &blockTable{key: key, blocks: map[sum]storedBlock{}}
	}
	g, ctx := errgroup.WithContext(ctx)
	for range p.o.Workers {
		g.Go(func() error { return p.work(ctx) })
	}
	g.Go(func() error { return p.feed(ctx) })
	g.Go(func() error { return p.arrange(ctx) })
	g.Go(func() error { return p.drain(ctx) })
	err = g.Wait()
	for s := range p.open { // all closed already, unless there was an error
		s.close()
	}
	return err
}

func (p *packer) work(ctx context.Context) error {
	encoder, err := p.spec.open()
	if err != nil {
		return err
	}
	defer encoder.close()
	w := &worker{encoder: encoder, scratch: make([]byte, p.o.BlockSize)}
	for {
		select {
		case task, more := <-p.tasks:
			if !more {
				return nil
			}
			if err := task(w); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// drain writes the blocks in their order.
func (p *packer) drain(ctx context.Context) error {
	for {
		var r *blockRun
		select {
		case next, more := <-p.runs:
			if !more {
				return nil
			}
			r = next
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := receive(ctx, r.ready); err != nil {
			return err
		}
		for _, b := range r.blocks {
			if err := p.place(b); err != nil {
				return err
			}
		}
	}
}

// place writes a block and records where it is.
func (p *packer) place(b *block) error {
	if b.owner == nil {
		p.fragments = append(p.fragments, fragmentEntry{Start: uint64(p.out.at), Word: b.word})
	} else {
		f := b.owner.file
		if b.index == 0 {
			f.start = p.out.at
		}
		f.words[b.index] = b.word
		if b.word == 0 {
			f.sparse += int64(b.size)
		}
	}
	if len(b.data) > 0 {
		p.note(b)
		if err := p.out.write(b.data); err != nil {
			return err
		}
	}
	p.pool.put(b.raw)
	p.pool.put(b.spare)
	p.meter.add(int64(b.size))
	return nil
}

// note records where a block is about to be written.
func (p *packer) note(b *block) {
	known := storedBlock{at: uint64(p.out.at), word: b.word, sum: b.store}
	if p.table != nil {
		p.table.blocks[b.sum] = known
	}
	if p.checked {
		p.stored[known.at] = known
	}
	if b.copied {
		p.summary.Reused += int64(len(b.data))
	}
}

// receive waits until c is closed.
func receive(ctx context.Context, c <-chan struct{}) error {
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// send puts v into a channel that others drain.
func send[T any](ctx context.Context, c chan<- T, v T) error {
	select {
	case c <- v:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// bufferPool keeps buffers of one capacity for reuse.
type bufferPool struct {
	free chan []byte
	size int
}

func newBufferPool(count, size int) bufferPool {
	return bufferPool{make(chan []byte, count), size}
}

// get returns an empty buffer.
func (p bufferPool) get() []byte {
	select {
	case b := <-p.free:
		return b[:0]
	default:
		return make([]byte, 0, p.size)
	}
}

func (p bufferPool) put(b []byte) {
	if cap(b) < p.size {
		return
	}
	select {
	case p.free <- b:
	default:
	}
}
