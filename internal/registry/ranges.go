package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"uenv-ci.dev/internal/fault"
)

// Bounds of one request for parts of a blob. The ranges' text must fit in the
// header that servers accept, 8 KiB mostly.
const (
	mostAtOnce   = 128     // ranges
	longestBatch = 4 << 20 // bytes
	probeBatch   = 8       // ranges of the first request, on which the others wait
)

// workerTime is how long the rest should take one connection, by what the first
// request took, for there to be one more: they cost the registry memory and time.
const workerTime = time.Second

// Fetch gets parts of the blob from the registry, in the order of the blob, no
// faster than the download may be: many with each request where the registry can
// send them, else near ones with what is between them, if that takes less time than
// another request and is no more than spare bytes in all. It has kind Refused where
// the registry sends no parts.
func (f *Filling) Fetch(ctx context.Context, spans []Span, spare int64, connections int) error {
	q := &rangeQueue{f: f}
	q.many, _ = f.t.repository.store.(multiRanger)
	for _, s := range spans {
		for _, m := range f.missing(s) {
			for ; m.Length > longestBatch; m = (Span{m.Offset + longestBatch, m.Length - longestBatch}) {
				q.left = append(q.left, Span{m.Offset, longestBatch})
			}
			q.left = append(q.left, m)
		}
	}
	q.affordable = affordableGap(q.left, spare)
	before, began := sizeOf(q.left), time.Now()
	if err := q.fetch(ctx, q.take(probeBatch)); err != nil {
		return err
	}
	fitting := fittingWorkers(time.Since(began), before, sizeOf(q.left))
	group, ctx := errgroup.WithContext(ctx)
	for range min(cmp.Or(connections, fitting), maxConnections) {
		group.Go(func() error {
			for {
				batch := q.take(mostAtOnce)
				if len(batch) == 0 {
					return nil
				}
				if err := q.fetch(ctx, batch); err != nil {
					return err
				}
			}
		})
	}
	return group.Wait()
}

// size is how much there is to fetch.
type size struct{ ranges, bytes int64 }

func sizeOf(spans []Span) size {
	n := size{ranges: int64(len(spans))}
	for _, s := range spans {
		n.bytes += s.Length
	}
	return n
}

// fittingWorkers is how many connections the rest is worth, if a part of it took so
// long.
func fittingWorkers(took time.Duration, before, left size) int {
	ranges, bytes := before.ranges-left.ranges, before.bytes-left.bytes
	if ranges == 0 || bytes == 0 {
		return 1
	}
	times := max(float64(left.ranges)/float64(ranges), float64(left.bytes)/float64(bytes))
	return 1 + int(min(took.Seconds()*times/workerTime.Seconds(), maxConnections))
}

// affordableGap returns the greatest length for which all gaps between spans that are
// no longer come to at most spare bytes together.
func affordableGap(spans []Span, spare int64) int64 {
	var gaps []int64
	for i := 1; i < len(spans); i++ {
		gaps = append(gaps, spans[i].Offset-spans[i-1].end())
	}
	slices.Sort(gaps)
	longest := int64(0)
	for _, g := range gaps {
		if spare -= g; spare < 0 {
			return g - 1
		}
		longest = g
	}
	return longest
}

// rangeQueue is what is to be fetched.
type rangeQueue struct {
	f          *Filling
	affordable int64

	mu   sync.Mutex
	many multiRanger // nil where each request gets one range
	left []Span
	cost requestCost
}

// take returns what the next request is to fetch, nothing when all is taken.
func (q *rangeQueue) take(most int) []Span {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.many == nil {
		most = len(q.left)
	}
	n, bytes := 0, int64(0)
	for n < min(most, len(q.left)) && (n == 0 || bytes+q.left[n].Length <= longestBatch) {
		if q.many == nil && n > 0 && q.left[n].Offset-q.left[n-1].end() > min(q.affordable, q.cost.worth()) {
			break
		}
		bytes += q.left[n].Length
		n++
	}
	batch := q.left[:n]
	q.left = q.left[n:]
	return batch
}

// fetch gets a batch by one request, and again what of it did not come.
func (q *rangeQueue) fetch(ctx context.Context, batch []Span) error {
	retry := q.f.t.repository.registry.retry
	for failures := 0; len(batch) > 0; {
		many := q.multi()
		if many == nil || len(batch) == 1 {
			return q.fetchRuns(ctx, batch)
		}
		done, err := q.fetchMany(ctx, many, batch)
		if batch = batch[done:]; done > 0 {
			failures = 0
		}
		switch {
		case ctx.Err() != nil:
			return ended(ctx)
		case err == nil:
		case errors.Is(err, errRange), errors.Is(err, errNotOpened):
			batch = q.single(batch)
		default:
			if failures++; fault.KindOf(err) != fault.Network || failures >= retry.attempts() {
				return err
			}
			if err := pause(ctx, backOff(failures, retry)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (q *rangeQueue) multi() multiRanger {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.many
}

// single makes do with one range for each request, and gives back all of a batch
// but the first.
func (q *rangeQueue) single(batch []Span) []Span {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.many = nil
	q.left = slices.Concat(batch[1:], q.left)
	slices.SortFunc(q.left, func(a, b Span) int { return cmp.Compare(a.Offset, b.Offset) })
	return batch[:1]
}

// errNotOpened marks requests for many ranges that a registry does not answer, for
// whatever reason: those for one range will show it.
var errNotOpened = errors.New("the registry does not send several ranges at once")

// fetchMany gets a batch as the parts of one answer, and returns how many of them
// came.
func (q *rangeQueue) fetchMany(ctx context.Context, many multiRanger, batch []Span) (done int, err error) {
	parts, err := many.ranges(ctx, q.f.t.d, batch)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errNotOpened, err)
	}
	defer parts.Close()
	for i, s := range batch {
		if err := parts.next(s); err != nil {
			return i, err
		}
		if err := q.f.receive(ctx, parts, s); err != nil {
			return i, err
		}
	}
	return len(batch), nil
}

// fetchRuns gets spans as one range each, or together with others that are near.
func (q *rangeQueue) fetchRuns(ctx context.Context, batch []Span) error {
	for len(batch) > 0 {
		n := 1
		for n < len(batch) && batch[n].Offset-batch[n-1].end() <= min(q.affordable, q.cost.worth()) {
			n++
		}
		if err := q.fetchRun(ctx, batch[:n]); err != nil {
			return err
		}
		batch = batch[n:]
	}
	return nil
}

// fetchRun gets spans as one range. What is between them passes by unused.
func (q *rangeQueue) fetchRun(ctx context.Context, spans []Span) error {
	whole := Span{spans[0].Offset, spans[len(spans)-1].end() - spans[0].Offset}
	r := &resumer{
		ctx: ctx, store: q.f.t.repository.store, d: q.f.t.d, options: q.f.t.repository.registry.retry, strict: true,
		offset: whole.Offset, end: whole.end(),
	}
	asked := time.Now()
	if err := r.start(); err != nil {
		return err
	}
	defer r.Close()
	answered := time.Now()
	at := whole.Offset
	for _, s := range spans {
		if _, err := io.CopyN(io.Discard, r, s.Offset-at); err != nil {
			return err
		}
		if err := q.f.receive(ctx, r, s); err != nil {
			return err
		}
		at = s.end()
	}
	q.cost.add(answered.Sub(asked), time.Since(answered), whole.Length)
	return nil
}

// receive reads a span, writes it where it belongs and notes it as a whole: one
// that breaks off comes again.
func (f *Filling) receive(ctx context.Context, r io.Reader, s Span) error {
	data := f.t.buffer()
	defer f.t.release(data)
	for at := s.Offset; at < s.end(); {
		part := data[:min(s.end()-at, int64(len(data)))]
		if err := f.t.limiter.readFull(ctx, r, part); err != nil {
			return fmt.Errorf("part at %d: %w", at, err)
		}
		if _, err := f.t.file.WriteAt(part, at); err != nil {
			return err
		}
		at += int64(len(part))
	}
	return f.wroteSpan(ctx, s)
}

// requestCost is what requests have cost, measured as they go.
type requestCost struct {
	mu      sync.Mutex
	latency time.Duration // until the answer began, all together
	moving  time.Duration // from then on
	n       int64         // requests
	bytes   int64
}

func (c *requestCost) add(latency, moving time.Duration, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.latency, c.moving = c.latency+latency, c.moving+moving
	c.n, c.bytes = c.n+1, c.bytes+bytes
}

// worth returns how many bytes come in the time that another request takes before
// its first; 0 as long as that is not known.
func (c *requestCost) worth() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.moving <= 0 {
		return 0
	}
	return int64(float64(c.latency) / float64(c.n) * float64(c.bytes) / float64(c.moving))
}

// multiRanger is a store that can send many parts of a blob at once, perhaps.
type multiRanger interface {
	// ranges opens parts of a blob, in order, which come one after the other.
	ranges(ctx context.Context, d ocispec.Descriptor, spans []Span) (*multiparts, error)
}
