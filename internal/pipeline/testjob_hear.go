package pipeline

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/event"
)

// hearing passes on what the program in a job says while it runs: lines of --log-json.
type hearing struct {
	file   string
	events event.Sink
	read   int64  // bytes of the file
	rest   []byte // of them, those of a line without its end
}

// atOnce is how much is read at one time, and the longest line that is understood.
const atOnce = 64 << 10 // bytes

// listen reads what has been written since.
func (h *hearing) listen() {
	// Without a sandbox a test may have put a pipe there, which nobody writes to.
	f, err := os.OpenFile(h.file, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return // nothing was said yet
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return
	}
	data := make([]byte, atOnce)
	for n := atOnce; n == atOnce && h.read < maxToldInside; {
		n, _ = f.ReadAt(data, h.read)
		h.read += int64(n)
		h.hear(data[:n])
	}
}

func (h *hearing) hear(data []byte) {
	h.rest = append(h.rest, data...)
	for {
		line, after, whole := bytes.Cut(h.rest, []byte("\n"))
		if !whole {
			break
		}
		h.tell(line)
		h.rest = after
	}
	if len(h.rest) > atOnce {
		h.rest = nil
	}
}

// tell passes on a message. Beginning and end of the tests are told by ourselves.
func (h *hearing) tell(line []byte) {
	var said struct {
		Stage, Message string
		Event          event.Kind
	}
	if json.Unmarshal(line, &said) != nil || said.Message == "" || !slices.Contains([]event.Kind{event.Info, event.Warning}, said.Event) {
		return
	}
	h.events.Emit(event.Event{Kind: said.Event, Stage: said.Stage, Message: strings.TrimPrefix(said.Message, said.Stage+": ")})
}
