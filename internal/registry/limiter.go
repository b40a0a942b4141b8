package registry

import (
	"context"
	"io"
	"sync"
	"time"
)

// limiter bounds the rate of all readers that share it. A nil limiter does not.
type limiter struct {
	rate int64 // bytes per second

	mu   sync.Mutex
	free time.Time // when the next byte may be read
}

func newLimiter(rate int64) *limiter {
	if rate <= 0 {
		return nil
	}
	return &limiter{rate: rate}
}

// limitedRead is how much is read before waiting, in bytes.
const limitedRead = 32 << 10

// readFull is io.ReadFull at the limited rate.
func (l *limiter) readFull(ctx context.Context, r io.Reader, b []byte) error {
	if l == nil {
		_, err := io.ReadFull(r, b)
		return err
	}
	for len(b) > 0 {
		n, err := io.ReadFull(r, b[:min(len(b), limitedRead)])
		if err != nil {
			return err
		}
		b = b[n:]
		if err := pause(ctx, l.reserve(n)); err != nil {
			return err
		}
	}
	return nil
}

// reserve books n bytes and returns how long to wait for them.
func (l *limiter) reserve(n int) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(time.Duration(float64(n) / float64(l.rate) * float64(time.Second)))
	return l.free.Sub(now)
}
