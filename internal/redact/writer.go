package redact

import (
	"bytes"
	"cmp"
	"io"
	"strings"
)

// Writer passes on what is written to it without secrets, and calls Line for every
// line. Flush ends it.
type Writer struct {
	*Redactor
	Out  io.Writer
	Line func(string) // may be nil
	Err  error        // of the first write that failed

	rest []byte
}

// maxLine is how long a line may be before it is passed on in parts.
const maxLine = 64 << 10

// Write implements io.Writer. A secret that is written in parts is found as long as its line is.
func (w *Writer) Write(b []byte) (int, error) {
	end := bytes.LastIndexByte(b, '\n') + 1
	if end > 0 {
		end += len(w.rest)
	}
	w.rest = append(w.rest, b...)
	if end == 0 && len(w.rest) > maxLine+w.longest {
		// What is at the end may be the beginning of a secret.
		w.rest = []byte(w.Text(string(w.rest)))
		end = max(len(w.rest)-w.longest, 0)
	}
	if err := w.pass(end); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Flush passes on what does not end in a line break.
func (w *Writer) Flush() error { return w.pass(len(w.rest)) }

// pass passes on the beginning of what is there.
func (w *Writer) pass(end int) error {
	if end == 0 {
		return nil
	}
	text := w.Text(string(w.rest[:end]))
	w.rest = append(w.rest[:0], w.rest[end:]...)
	if w.Line != nil {
		for line := range strings.Lines(text) {
			w.Line(strings.TrimSuffix(line, "\n"))
		}
	}
	_, err := io.WriteString(w.Out, text)
	w.Err = cmp.Or(w.Err, err)
	return err
}
