package registrytest

import (
	"context"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"
)

// Fault is something that goes wrong with a request. It may pass the request on
// to next.
type Fault func(w http.ResponseWriter, r *http.Request, next http.Handler)

// Rule says which requests a fault befalls.
type Rule struct {
	Method string // "" is any
	Path   string // regular expression found in the path; "" is any
	Skip   int    // let so many of them through first
	Times  int    // then break so many; 0 is all
	Fault  Fault
}

// Faults breaks requests by the first rule that fits and is not used up.
func Faults(rules ...Rule) Middleware {
	var mu sync.Mutex
	seen := make([]int, len(rules))
	paths := make([]*regexp.Regexp, len(rules))
	for i, rule := range rules {
		paths[i] = regexp.MustCompile(rule.Path)
	}
	choose := func(r *http.Request) Fault {
		mu.Lock()
		defer mu.Unlock()
		for i, rule := range rules {
			if rule.Method != "" && rule.Method != r.Method || !paths[i].MatchString(r.URL.Path) {
				continue
			}
			seen[i]++
			if n := seen[i] - rule.Skip; n > 0 && (rule.Times == 0 || n <= rule.Times) {
				return rule.Fault
			}
		}
		return nil
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if fault := choose(r); fault != nil {
				fault(w, r, next)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// Status answers with a status, and headers given as "Name: value".
func Status(code int, headers ...string) Fault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			w.Header().Set(name, value)
		}
		w.WriteHeader(code)
	}
}

// HTML answers as a login page or a proxy does.
func HTML(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write([]byte("<!DOCTYPE html><title>Log in</title>"))
}

// Reset closes the connection before anything is answered.
func Reset(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
	hangUp(r)
	panic(http.ErrAbortHandler)
}

// ResetAfter lets n bytes of the body through, then resets the connection.
func ResetAfter(n int64) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(&cutWriter{ResponseWriter: w, left: n}, r)
	}
}

// HangUpAfter is ResetAfter, but the connection is reset, not ended in order: what
// is on its way is lost as well.
func HangUpAfter(n int64) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(&cutWriter{ResponseWriter: w, left: n, end: func() { hangUp(r) }}, r)
	}
}

// StallAfter lets n bytes of the body through, then nothing until the client goes
// away or the server closes. A client that has got all it waits for goes away too: if
// it sent its next request instead, it could not be seen to go later.
func StallAfter(n int64) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		w.Header().Set("Connection", "close")
		next.ServeHTTP(&cutWriter{ResponseWriter: w, left: n, end: func() { <-r.Context().Done() }}, r)
	}
}

// stallLimit bounds how long a stalled upload lasts: a server that does not read
// cannot see the client go away.
const stallLimit = 2 * time.Second

// StallUploadAfter reads n bytes of the request, then nothing more, and does not
// answer.
func StallUploadAfter(n int64) Fault {
	return func(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
		_, _ = io.CopyN(io.Discard, r.Body, n)
		select {
		case <-r.Context().Done():
		case <-time.After(stallLimit):
		}
		panic(http.ErrAbortHandler)
	}
}

// ResetUploadAfter reads n bytes of the request, then resets the connection.
func ResetUploadAfter(n int64) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		r.Body = &cutBody{r.Body, r, n}
		next.ServeHTTP(w, r)
	}
}

// FlipBit changes one bit of the body's byte at offset.
func FlipBit(offset int64) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(&flipWriter{ResponseWriter: w, at: offset}, r)
	}
}

// IgnoreRange answers ranges with the whole.
func IgnoreRange(w http.ResponseWriter, r *http.Request, next http.Handler) {
	r.Header.Del("Range")
	next.ServeHTTP(w, r)
}

// WrongRange answers ranges with another one.
func WrongRange(w http.ResponseWriter, r *http.Request, next http.Handler) {
	if r.Header.Get("Range") != "" {
		r.Header.Set("Range", "bytes=0-0")
	}
	next.ServeHTTP(w, r)
}

// Header changes a header of the answer.
func Header(name, value string) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(&headerWriter{ResponseWriter: w, name: name, value: value}, r)
	}
}

// Redirect sends the client elsewhere with the same path and query.
func Redirect(base string) Fault {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		http.Redirect(w, r, base+r.URL.RequestURI(), http.StatusTemporaryRedirect)
	}
}

type connKey struct{}

// withConn lets handlers find the connection of a request.
func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// hangUp resets the connection of a request instead of ending it in order.
func hangUp(r *http.Request) {
	c, ok := r.Context().Value(connKey{}).(net.Conn)
	if !ok {
		return
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	c.Close()
}

// cutWriter ends the connection within the body.
type cutWriter struct {
	http.ResponseWriter
	left int64
	end  func() // what happens then; nil is nothing
}

// Unwrap lets http.ResponseController through; so do those of the other writers.
func (c *cutWriter) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func (c *cutWriter) Write(b []byte) (int, error) {
	if int64(len(b)) < c.left {
		c.left -= int64(len(b))
		return c.ResponseWriter.Write(b)
	}
	_, _ = c.ResponseWriter.Write(b[:c.left])
	_ = http.NewResponseController(c.ResponseWriter).Flush()
	if c.end != nil {
		c.end()
	}
	panic(http.ErrAbortHandler)
}

type cutBody struct {
	io.ReadCloser
	r    *http.Request
	left int64
}

func (c *cutBody) Read(b []byte) (int, error) {
	if c.left <= 0 {
		hangUp(c.r)
		return 0, io.ErrUnexpectedEOF
	}
	n, err := c.ReadCloser.Read(b[:min(int64(len(b)), c.left)])
	c.left -= int64(n)
	return n, err
}

type flipWriter struct {
	http.ResponseWriter
	at int64
}

func (f *flipWriter) Unwrap() http.ResponseWriter { return f.ResponseWriter }

func (f *flipWriter) Write(b []byte) (int, error) {
	if f.at >= 0 && f.at < int64(len(b)) {
		b = append([]byte(nil), b...)
		b[f.at] ^= 1
	}
	f.at -= int64(len(b))
	return f.ResponseWriter.Write(b)
}

type headerWriter struct {
	http.ResponseWriter
	name, value string
}

func (h *headerWriter) Unwrap() http.ResponseWriter { return h.ResponseWriter }

func (h *headerWriter) WriteHeader(code int) {
	h.ResponseWriter.Header().Set(h.name, h.value)
	h.ResponseWriter.WriteHeader(code)
}

func (h *headerWriter) Write(b []byte) (int, error) {
	h.ResponseWriter.Header().Set(h.name, h.value)
	return h.ResponseWriter.Write(b)
}

// Slow lets a body through in pieces of n bytes, each after wait returns.
func Slow(n int, wait func()) Fault {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		next.ServeHTTP(&slowWriter{w, n, wait}, r)
	}
}

type slowWriter struct {
	http.ResponseWriter
	n    int
	wait func()
}

func (s *slowWriter) Unwrap() http.ResponseWriter { return s.ResponseWriter }

func (s *slowWriter) Write(b []byte) (int, error) {
	written := 0
	for len(b) > 0 {
		s.wait()
		n, err := s.ResponseWriter.Write(b[:min(s.n, len(b))])
		written += n
		if err != nil {
			return written, err
		}
		_ = http.NewResponseController(s.ResponseWriter).Flush()
		b = b[n:]
	}
	return written, nil
}
