package registry

import (
	"cmp"
	"context"
	"fmt"
	"hash/crc32"
	"io"

	"uenv-ci.dev/internal/fault"
)

// errNoRanges means that the registry does not support range requests.
var errNoRanges = fault.New(fault.Refused, "the registry does not support range requests")

// arrival is a chunk that has come and is not yet in the file.
type arrival struct {
	chunk int
	data  []byte
	sum   uint32
}

// readAhead is how many chunks wait to be written, shared by all workers.
const readAhead = 8

// step is how much is read or written at a time, in bytes: little enough to be in the
// processor's cache still when its checksum is computed, and to be done before Go's
// scheduler takes the call for one that waits, and wakes threads for nothing.
const step = 64 << 10

// fetch gets a run of chunks. They are read and written at the same time, so that
// the registry need not wait for the file.
func (t *transfer) fetch(ctx context.Context, first, last int, strict bool) error {
	reading, stop := context.WithCancel(ctx)
	defer stop()
	arrived := make(chan arrival, t.ahead())
	var failed error
	go func() {
		defer close(arrived)
		failed = t.receive(reading, first, last, strict, arrived)
	}()
	var unwritten error
	for a := range arrived {
		if unwritten == nil {
			if unwritten = t.save(ctx, a); unwritten == nil {
				continue
			}
			stop()
		}
		t.release(a.data)
	}
	return cmp.Or(unwritten, failed)
}

// ahead is a worker's share of readAhead.
func (t *transfer) ahead() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return readAhead / max(1, t.wanted)
}

// save writes a chunk and claims it. After an error its buffer is still the caller's.
func (t *transfer) save(ctx context.Context, a arrival) error {
	for at := 0; at < len(a.data); at += step {
		part := a.data[at:min(at+step, len(a.data))]
		if _, err := t.file.WriteAt(part, int64(a.chunk)*chunkSize+int64(at)); err != nil {
			return fmt.Errorf("chunk at %d: %w", int64(a.chunk)*chunkSize, err)
		}
	}
	return t.keep(ctx, a.chunk, a.data, a.sum)
}

// receive reads a run of chunks. In a single stream those that are there already
// pass by unused.
func (t *transfer) receive(ctx context.Context, first, last int, strict bool, arrived chan<- arrival) error {
	r := &resumer{
		ctx: ctx, store: t.repository.store, d: t.d, options: t.repository.registry.retry, strict: strict,
		offset: int64(first) * chunkSize, end: min(int64(last)*chunkSize, t.d.Size),
	}
	if err := r.start(); err != nil {
		return err
	}
	defer r.Close()
	for chunk := first; chunk < last; chunk++ {
		data := t.buffer()[:t.length(chunk)]
		sum, err := t.receiveChunk(ctx, r, data)
		if err != nil {
			t.release(data)
			return fmt.Errorf("chunk at %d: %w", int64(chunk)*chunkSize, err)
		}
		if t.needed(chunk) {
			arrived <- arrival{chunk, data, sum}
		} else {
			t.release(data)
		}
	}
	return nil
}

// receiveChunk fills data and returns its checksum.
func (t *transfer) receiveChunk(ctx context.Context, r io.Reader, data []byte) (sum uint32, err error) {
	for at := 0; at < len(data); at += step {
		part := data[at:min(at+step, len(data))]
		if err := t.limiter.readFull(ctx, r, part); err != nil {
			return 0, err
		}
		t.count(len(part))
		sum = crc32.Update(sum, crcTable, part)
	}
	return sum, nil
}

func (t *transfer) needed(chunk int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state[chunk] != chunkDone
}
