package registry

import (
	"context"
	"runtime"
	"syscall"
	"time"
)

// ramp is how the number of connections is found: each is tried for as long as look
// says, and only one that does not seem to pay is looked at for longer.
type ramp struct {
	steps []int
	look  time.Duration
}

// rampFor chooses by the time to the first byte. What one connection brings over a
// long way is often less than the way could carry, and every moment with too few of
// them counts; where it is near there is no hurry.
func rampFor(trip time.Duration) ramp {
	if trip >= farAway {
		return ramp{[]int{3, maxConnections}, 150 * time.Millisecond}
	}
	return ramp{[]int{2, 4, maxConnections}, patientLook}
}

const (
	patientLook = 500 * time.Millisecond
	// farAway is the time to the first byte from which on a way is long.
	farAway = 5 * time.Millisecond
	// beginTrips is how many round trips a new connection takes to begin: its own,
	// encryption, the request, and one to gather speed.
	beginTrips = 4
)

// worthwhile is the gain of rate that justifies more connections.
const worthwhile = 1.25

// steer starts workers: as many as were asked for, or one, and more as long as that
// pays.
func (t *transfer) steer(ctx context.Context, start func()) {
	if n := t.options.Connections; n > 0 {
		t.settle()
		t.want(min(n, maxConnections), start)
		return
	}
	defer t.settle()
	now, trip := 1, t.firstByte(ctx, func() { t.want(1, start) })
	r := rampFor(trip)
	rate, busy := t.measure(ctx, r.look)
	for _, n := range r.steps {
		if busy || t.over(ctx) {
			return
		}
		t.want(n, start)
		if trip >= farAway {
			t.measure(ctx, min(beginTrips*trip, patientLook))
		}
		faster, full := t.measure(ctx, r.look)
		if faster < rate*worthwhile && r.look < patientLook {
			faster, full = t.measure(ctx, patientLook)
		}
		if faster < rate*worthwhile {
			t.want(now, start)
			return
		}
		now, rate, busy = n, faster, full
	}
}

// firstByte starts and waits for the first chunk, and returns how long its first
// byte took: a round trip, and what the registry has to do.
func (t *transfer) firstByte(ctx context.Context, start func()) time.Duration {
	began := time.Now()
	start()
	t.mu.Lock()
	defer t.mu.Unlock()
	for ctx.Err() == nil && !t.hashed && t.begun.Load() == 0 {
		t.change.Wait()
	}
	return time.Unix(0, t.begun.Load()).Sub(began)
}

// count notes what has come.
func (t *transfer) count(n int) {
	if t.received.Add(int64(n)) == int64(n) {
		t.begun.Store(time.Now().UnixNano())
	}
}

// measure returns the rate of the next while, in bytes per second, and whether
// this machine determines it: hashing is behind, or half of the processors' time
// goes into the transfer, and more of it could not make it twice as fast.
func (t *transfer) measure(ctx context.Context, look time.Duration) (rate float64, busy bool) {
	before, since, used := t.received.Load(), time.Now(), processorTime()
	timer := time.AfterFunc(look, t.wake)
	defer timer.Stop()
	t.mu.Lock()
	t.held = 0
	for ctx.Err() == nil && !t.hashed && time.Since(since) < look {
		t.change.Wait()
	}
	held := int64(t.held)
	t.mu.Unlock()
	received, took := t.received.Load()-before, time.Since(since)
	used = processorTime() - used
	return float64(received) / took.Seconds(), held > received/2 || used*2 > took*time.Duration(runtime.GOMAXPROCS(0))
}

// processorTime returns what this process has used of the processors.
func processorTime() time.Duration {
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// settle tells that the number of workers stays what it is.
func (t *transfer) settle() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.settled = true
}

func (t *transfer) over(ctx context.Context) bool { return ctx.Err() != nil || t.complete() }
