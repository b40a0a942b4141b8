package localrepo

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"time"

	"uenv-ci.dev/internal/event"
)

// ownerSize bounds what the owner of a lock writes into the lock file for those
// who wait. The uenv client writes nothing there and reads nothing.
const ownerSize = 256

// reportEvery is how often an owner tells how far it is.
const reportEvery = 250 * time.Millisecond

// owner is who has a lock and how far its work is.
type owner struct {
	pid         int
	host        string
	stage       string // "" before anything was reported
	done, total int64  // bytes
}

// String names the owner for people.
func (o owner) String() string {
	if !o.known() {
		return "another process"
	}
	return fmt.Sprintf("process %d on %s", o.pid, o.host)
}

func (o owner) known() bool { return o.pid > 0 }

// report tells a waiter how far the owner is.
func (o owner) report(events event.Sink) {
	if o.stage != "" {
		events.Progress(o.stage, o.done, o.total, "B")
	}
}

// encode writes one line, filled up with blanks: it is overwritten in place.
func (o owner) encode() []byte {
	line := fmt.Sprintf("%d %s %s %d %d", o.pid, o.host, o.stage, o.done, o.total)
	if o.stage == "" {
		line = fmt.Sprintf("%d %s", o.pid, o.host)
	}
	if len(line) >= ownerSize {
		return nil
	}
	return []byte(line + strings.Repeat(" ", ownerSize-1-len(line)) + "\n")
}

// ownerOf reads what the owner of a lock file has written; the zero value if that
// is nothing that we know.
func ownerOf(file *os.File) owner {
	var o owner
	data := make([]byte, ownerSize)
	n, _ := file.ReadAt(data, 0)
	line := string(bytes.TrimSpace(data[:n]))
	if n, _ := fmt.Sscanf(line, "%d %s %s %d %d", &o.pid, &o.host, &o.stage, &o.done, &o.total); n == 5 && o.done >= 0 && o.total >= 0 {
		return o
	}
	if n, _ := fmt.Sscanf(line, "%d %s", &o.pid, &o.host); n == 2 && o.pid > 0 {
		return owner{pid: o.pid, host: o.host}
	}
	return owner{}
}

// claim writes who has the lock. That is for display: failing does no harm. It
// also makes the file young, which keeps Prune from removing it.
func (l *Lock) claim() {
	host, err := os.Hostname()
	if err != nil || strings.ContainsAny(host, " \t\n") {
		host = "unknown"
	}
	l.owner = owner{pid: os.Getpid(), host: host}
	l.write()
}

// Report tells those who wait for the lock how far its owner is, in bytes. It may
// be called as often as there is progress, by several goroutines.
func (l *Lock) Report(stage string, done, total int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.Sub(l.reported) >= reportEvery || done == total {
		l.reported = now
		l.owner.stage, l.owner.done, l.owner.total = stage, done, total
		l.write()
	}
}

func (l *Lock) write() {
	if data := l.owner.encode(); data != nil && l.file != nil {
		_, _ = l.file.WriteAt(data, 0)
	}
}
