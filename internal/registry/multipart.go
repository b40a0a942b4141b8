package registry

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
)

// ranges asks for many parts of a blob by one request (RFC 9110, section 14.2).
// Registries on Go's file server send them; object storage mostly does not.
func (h *hosted) ranges(ctx context.Context, d ocispec.Descriptor, spans []Span) (*multiparts, error) {
	req, err := http.NewRequestWithContext(h.pull(ctx), http.MethodGet, h.url("blobs", d.Digest.String()), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept-Encoding", "identity")
	var text strings.Builder
	for i, s := range spans {
		if i > 0 {
			text.WriteByte(',')
		}
		fmt.Fprintf(&text, "%d-%d", s.Offset, s.end()-1)
	}
	req.Header.Set("Range", "bytes="+text.String())
	resp, err := h.request(req, http.StatusPartialContent)
	if err != nil {
		return nil, err
	}
	kind, parameters, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/byteranges" || parameters["boundary"] == "" || resp.Header.Get("Content-Encoding") != "" {
		resp.Body.Close()
		return nil, fault.New(fault.Network, "%w: its answer is of type %q", errRange, clean(resp.Header.Get("Content-Type")))
	}
	body := &answer{resp.Body, h.server.host}
	return &multiparts{body: body, r: bufio.NewReaderSize(body, partHeader), size: d.Size, boundary: []byte("--" + parameters["boundary"])}, nil
}

// partHeader bounds a line before a part, in bytes, and is what is read ahead.
const partHeader = 16 << 10

// partLines bounds how many lines there are before a part.
const partLines = 32

// multiparts is an answer of many parts. Each is read to its end before the next.
type multiparts struct {
	body     io.Closer
	r        *bufio.Reader
	size     int64 // of the blob
	boundary []byte
	left     int64 // of the present part
}

// next goes to the next part, which must be the given one.
func (m *multiparts) next(s Span) error {
	begun, ranged := false, false
	for range partLines {
		line, err := m.r.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			break
		}
		if err != nil {
			return broken(err, "before the part at %d", s.Offset)
		}
		line = bytes.TrimRight(line, "\r\n")
		switch {
		case !begun && bytes.HasPrefix(line, m.boundary) && bytes.HasPrefix(line[len(m.boundary):], []byte("--")):
			return fault.New(fault.Network, "%w: fewer parts come than were asked for", errRange)
		case !begun:
			begun = bytes.Equal(bytes.TrimRight(line, " \t"), m.boundary)
		case len(line) == 0 && ranged:
			m.left = s.Length
			return nil
		case len(line) == 0:
			return fault.New(fault.Network, "%w: a part does not say which it is", errRange)
		default:
			name, value, _ := strings.Cut(string(line), ":")
			if !strings.EqualFold(name, "Content-Range") {
				continue
			}
			first, last, total, err := parseContentRange(strings.TrimSpace(value))
			if err != nil || first != s.Offset || last != s.end()-1 || total >= 0 && total != m.size {
				return fault.New(fault.Network, "%w: a part is %q of %d bytes, asked for %d from %d on", errRange, clean(value), m.size, s.Length, s.Offset)
			}
			ranged = true
		}
	}
	return fault.New(fault.Network, "%w: no part begins where one must", errRange)
}

// Read reads the present part.
func (m *multiparts) Read(b []byte) (int, error) {
	if m.left == 0 {
		return 0, io.EOF
	}
	n, err := m.r.Read(b[:min(int64(len(b)), m.left)])
	m.left -= int64(n)
	if n > 0 {
		return n, nil
	}
	return 0, broken(err, "%d bytes before the end of a part", m.left)
}

// broken tells where an answer ended that was not at its end.
func broken(err error, format string, args ...any) error {
	if errors.Is(err, io.EOF) {
		return fault.New(fault.Network, "the connection ended "+format+": %w", append(args, io.ErrUnexpectedEOF)...)
	}
	return err
}

func (m *multiparts) Close() error { return m.body.Close() }
