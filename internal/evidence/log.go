package evidence

import (
	"fmt"
	"os"
	"sync"
)

// Limits of what is kept of the tests' output, in bytes. Evidence is to be read;
// a test that prints gigabytes must not fill the registry.
const (
	logHead = 2 << 20
	logTail = 2 << 20
)

// boundedLog writes a file that keeps the beginning and the end of what is
// written to it, by several goroutines at once.
type boundedLog struct {
	mu      sync.Mutex
	file    *os.File
	head    int    // bytes that may still be written at once
	tail    []byte // a ring of the last bytes after the head
	at      int    // where the ring's next byte goes
	skipped int64  // bytes that went into the ring
}

func newLog(path string) (*boundedLog, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("create log: %w", err)
	}
	return &boundedLog{file: f, head: logHead}, nil
}

// Write implements io.Writer.
func (l *boundedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.file.Write(p[:min(len(p), l.head)])
	l.head -= n
	if err != nil {
		return n, err
	}
	for rest := p[n:]; len(rest) > 0; {
		if len(l.tail) < logTail {
			k := min(len(rest), logTail-len(l.tail))
			l.tail = append(l.tail, rest[:k]...)
			l.skipped, rest = l.skipped+int64(k), rest[k:]
			continue
		}
		k := copy(l.tail[l.at:], rest)
		l.at = (l.at + k) % logTail
		l.skipped, rest = l.skipped+int64(k), rest[k:]
	}
	return len(p), nil
}

// Close writes the end of what was written and closes the file.
func (l *boundedLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if gone := l.skipped - int64(len(l.tail)); gone > 0 {
		fmt.Fprintf(l.file, "\n[uenv-ci: %d bytes are left out here]\n", gone)
	}
	for _, part := range [][]byte{l.tail[l.at:], l.tail[:l.at]} {
		if _, err := l.file.Write(part); err != nil {
			l.file.Close()
			return fmt.Errorf("write log: %w", err)
		}
	}
	return l.file.Close()
}
