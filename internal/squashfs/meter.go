package squashfs

import (
	"sync"
	"time"

	"uenv-ci.dev/internal/event"
)

const meterInterval = 100 * time.Millisecond

// meter tells how far work on some bytes has come, now and then.
type meter struct {
	sink  event.Sink
	stage string
	total int64

	mu   sync.Mutex
	done int64
	told time.Time
}

func (m *meter) add(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done += bytes
	if now := time.Now(); now.Sub(m.told) > meterInterval {
		m.told = now
		m.sink.Progress(m.stage, m.done, m.total, "B")
	}
}

// finish tells that all is done.
func (m *meter) finish() {
	m.sink.Progress(m.stage, m.total, m.total, "B")
}
