package registry

import (
	"context"
	"errors"
	"hash/crc32"
	"os"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"uenv-ci.dev/internal/fault"
)

// transfer is one running download. Workers fetch pieces, runs of chunks, and
// write them where they belong; one goroutine hashes the chunks in order behind
// them, from memory if they have just come and from the page cache otherwise.
type transfer struct {
	repository *Repository
	d          ocispec.Descriptor
	file       *os.File
	journal    *journal
	options    DownloadOptions
	limiter    *limiter
	meter      *meter
	received   atomic.Int64 // bytes, since the start
	begun      atomic.Int64 // Unix time in nanoseconds of the first of them

	mu       sync.Mutex
	change   *sync.Cond // of anything below
	state    []chunkState
	sums     []uint32 // of chunks that are done
	missing  int      // chunks that nobody has taken
	low      int      // no chunk before it is missing
	next     int      // the chunk to be hashed next
	handed   map[int][]byte
	free     [][]byte
	workers  int
	wanted   int  // workers that there should be
	settled  bool // and will be
	held     int  // bytes that had to wait to be handed over
	noRanges bool // the registry sends wholes only
	hashed   bool // all chunks
}

type chunkState uint8

const (
	chunkMissing chunkState = iota
	chunkTaken
	chunkDone
)

// handAhead is how many chunks wait in memory to be hashed, instead of being
// read again.
const handAhead = 8

// slack is how far beyond them a chunk waits for its turn. Those farther away
// belong to another worker, and who fetches what comes first must not be waited for.
const slack = 8

func newTransfer(p *Repository, d ocispec.Descriptor, f *os.File, j *journal, claims map[int]uint32, o DownloadOptions, m *meter) *transfer {
	n := int(chunksOf(d.Size))
	t := &transfer{
		repository: p, d: d, file: f, journal: j, options: o, limiter: newLimiter(o.Limit), meter: m,
		state: make([]chunkState, n), sums: make([]uint32, n), missing: n - len(claims), handed: map[int][]byte{},
	}
	t.change = sync.NewCond(&t.mu)
	m.done.Store(0) // it may have shown another process's progress
	for chunk, sum := range claims {
		t.state[chunk], t.sums[chunk] = chunkDone, sum
		m.done.Add(int64(t.length(chunk)))
	}
	return t
}

// length returns the size of a chunk; the last one may be shorter.
func (t *transfer) length(chunk int) int {
	return int(min(chunkSize, t.d.Size-int64(chunk)*chunkSize))
}

// complete tells whether all chunks were fetched and hashed.
func (t *transfer) complete() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.hashed
}

func (t *transfer) run(ctx context.Context) error {
	if t.meter.done.Load() > 0 {
		t.meter.events.Info(t.meter.stage, "going on after %d of %d bytes", t.meter.done.Load(), t.d.Size)
	}
	group, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, t.wake)()
	group.Go(func() error { return t.hash(ctx) })
	group.Go(func() error {
		t.steer(ctx, func() { group.Go(func() error { return t.work(ctx) }) })
		return nil
	})
	return group.Wait()
}

// wake makes everybody look at what changed.
func (t *transfer) wake() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.change.Broadcast()
}

// hash computes the digest of the file, in order, while it comes.
func (t *transfer) hash(ctx context.Context) error {
	sum := t.d.Digest.Algorithm().Hash()
	scratch := make([]byte, chunkSize)
	for chunk := 0; chunk < len(t.state); {
		data, err := t.await(ctx, chunk)
		if err != nil {
			return err
		}
		kept := data
		if data == nil {
			data = scratch[:t.length(chunk)]
			if _, err := t.file.ReadAt(data, int64(chunk)*chunkSize); err != nil {
				return err
			}
			if crc32.Checksum(data, crcTable) != t.sum(chunk) {
				t.reject(chunk)
				continue
			}
		}
		sum.Write(data)
		t.release(kept)
		chunk++
	}
	t.mu.Lock()
	t.hashed = true
	t.change.Broadcast()
	t.mu.Unlock()
	if got := digest.NewDigest(t.d.Digest.Algorithm(), sum); got != t.d.Digest {
		return fault.New(fault.Network, "%w: its digest is %s", errContent, got)
	}
	return nil
}

// await waits for a chunk and returns its content if it is still in memory.
func (t *transfer) await(ctx context.Context, chunk int) ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next = chunk
	t.change.Broadcast() // to who holds what comes after
	for t.state[chunk] != chunkDone {
		if ctx.Err() != nil {
			return nil, ended(ctx)
		}
		t.change.Wait()
	}
	data := t.handed[chunk]
	delete(t.handed, chunk)
	return data, nil
}

func (t *transfer) sum(chunk int) uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.sums[chunk]
}

// reject has a chunk fetched again that is not on disk as it was claimed.
func (t *transfer) reject(chunk int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.state[chunk] = chunkMissing
	t.missing++
	t.low = min(t.low, chunk)
	t.meter.done.Add(-int64(t.length(chunk)))
	t.change.Broadcast()
}

// buffer returns memory for one chunk.
func (t *transfer) buffer() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.free); n > 0 {
		b := t.free[n-1]
		t.free = t.free[:n-1]
		return b
	}
	return make([]byte, chunkSize)
}

func (t *transfer) release(b []byte) {
	if b == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.free = append(t.free, b[:chunkSize])
}

// keep claims a chunk that was written, and passes it on to be hashed.
func (t *transfer) keep(ctx context.Context, chunk int, data []byte, sum uint32) error {
	if err := t.journal.add(chunk, sum); err != nil {
		return err
	}
	t.mu.Lock()
	t.hold(ctx, chunk)
	if t.state[chunk] == chunkMissing { // given back by another worker meanwhile
		t.missing--
	}
	t.state[chunk], t.sums[chunk] = chunkDone, sum
	if chunk < t.next+handAhead {
		t.handed[chunk] = data
		data = nil
	}
	t.change.Broadcast()
	t.mu.Unlock()
	t.release(data)
	t.meter.add(int64(t.length(chunk)))
	return nil
}

// hold waits while hashing is behind, if the chunk can then be handed over. The
// transfer cannot end before all is hashed, and reading again would make that
// later.
func (t *transfer) hold(ctx context.Context, chunk int) {
	waits := func() bool {
		return ctx.Err() == nil && chunk >= t.next+handAhead && chunk < t.next+handAhead+slack && t.state[t.next] == chunkDone
	}
	if waits() {
		t.held += t.length(chunk)
	}
	for waits() {
		t.change.Wait()
	}
}

// want sets the number of workers. Those that are too many end by themselves.
func (t *transfer) want(n int, start func()) {
	t.mu.Lock()
	if t.noRanges {
		n = 1
	}
	t.wanted = n
	missing := max(0, n-t.workers)
	t.workers += missing
	t.change.Broadcast()
	t.mu.Unlock()
	for range missing {
		start()
	}
}

// work fetches pieces until there are none, or too many workers.
func (t *transfer) work(ctx context.Context) error {
	for {
		first, last, strict := t.take(ctx)
		if first == last {
			return nil
		}
		err := t.fetch(ctx, first, last, strict)
		t.giveBack(first, last)
		if errors.Is(err, errNoRanges) {
			t.meter.events.Info(t.meter.stage, "%s; fetching it in one stream", err)
			t.oneStream()
			continue
		}
		if err != nil {
			return err
		}
	}
}

// Bounds of what one request asks for, in chunks. A request costs a round trip; pieces
// too long leave nothing for others to take at the end, and as long as others may still
// come to help, that end is unknown.
const shortestPiece, tentativePiece, longestPiece = 4, 16, 64

// take waits for chunks to fetch and reserves a run of them. It returns an empty
// run when the worker is to end.
func (t *transfer) take(ctx context.Context) (first, last int, strict bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		switch {
		case ctx.Err() != nil, t.hashed, t.workers > t.wanted:
			t.workers--
			return 0, 0, false
		case t.missing > 0 && t.noRanges:
			t.reserve(0, len(t.state))
			return 0, len(t.state), false
		case t.missing > 0:
			for t.state[t.low] != chunkMissing {
				t.low++
			}
			first, last = t.low, t.low
			limit := first + t.pieceLength()
			for last < min(limit, len(t.state)) && t.state[last] == chunkMissing {
				last++
			}
			t.reserve(first, last)
			return first, last, true
		}
		t.change.Wait()
	}
}

// pieceLength returns how many chunks one request asks for: everything, where there is
// nobody to leave something to.
func (t *transfer) pieceLength() int {
	longest := longestPiece
	switch {
	case !t.settled:
		longest = tentativePiece
	case t.wanted == 1:
		return t.missing
	}
	return max(shortestPiece, min(longest, t.missing/(2*max(1, t.wanted))))
}

// reserve marks the missing chunks of a run as taken.
func (t *transfer) reserve(first, last int) {
	for i := first; i < last; i++ {
		if t.state[i] == chunkMissing {
			t.state[i] = chunkTaken
			t.missing--
		}
	}
}

// giveBack returns what was taken and not fetched.
func (t *transfer) giveBack(first, last int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := first; i < last; i++ {
		if t.state[i] == chunkTaken {
			t.state[i] = chunkMissing
			t.missing++
			t.low = min(t.low, i)
		}
	}
	t.change.Broadcast()
}

// oneStream makes do with a registry that cannot send parts.
func (t *transfer) oneStream() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.noRanges, t.wanted = true, 1
	t.change.Broadcast()
}
