package registry

import (
	"io"
	"sync/atomic"
	"time"

	"uenv-ci.dev/internal/event"
)

// progressStep is the least time between two events of one transfer.
const progressStep = 100 * time.Millisecond

// meter tells how a transfer goes, not too often.
type meter struct {
	events event.Sink
	stage  string
	total  int64
	done   atomic.Int64
	next   atomic.Int64 // Unix time in nanoseconds of the next event
}

func (m *meter) add(n int64) {
	done := m.done.Add(n)
	if m.events == nil {
		return
	}
	now := time.Now().UnixNano()
	next := m.next.Load()
	if done == m.total || now >= next && m.next.CompareAndSwap(next, now+int64(progressStep)) {
		m.events.Progress(m.stage, done, m.total, "B")
	}
}

// set tells how far somebody else got.
func (m *meter) set(done int64) {
	m.done.Store(0)
	m.add(done)
}

// counted returns an opener whose content reports how far it was read.
func (p *Repository) counted(l Layer) opener {
	return func() (io.ReadCloser, error) {
		rc, err := l.Open()
		if err != nil || p.registry.events == nil {
			return rc, err
		}
		return &countedReader{rc, &meter{events: p.registry.events, stage: "upload", total: l.Descriptor.Size}}, nil
	}
}

type countedReader struct {
	io.ReadCloser
	meter *meter
}

func (r *countedReader) Read(b []byte) (int, error) {
	n, err := r.ReadCloser.Read(b)
	if n > 0 {
		r.meter.add(int64(n))
	}
	return n, err
}
