package registrytest

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// Counter counts requests by method and kind of path, such as "GET blobs".
type Counter struct {
	mu    sync.Mutex
	seen  map[string]int
	bytes int64
}

// Middleware returns the handler that counts.
func (c *Counter) Middleware() Middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c.add(r)
			next.ServeHTTP(&countWriter{w, c}, r)
		})
	}
}

var pathKind = regexp.MustCompile(`/(blobs/uploads|blobs|manifests|referrers|tags)(?:/|$)`)

func (c *Counter) add(r *http.Request) {
	key := r.Method + " "
	if m := pathKind.FindStringSubmatch(r.URL.Path); m != nil {
		key += m[1]
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == nil {
		c.seen = map[string]int{}
	}
	c.seen[key]++
}

// Count returns how many requests had the given method and kind of path, such as
// "PUT manifests"; "" counts all.
func (c *Counter) Count(key string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if key != "" {
		return c.seen[key]
	}
	total := 0
	for _, n := range c.seen {
		total += n
	}
	return total
}

// Bytes returns how many bytes of bodies were sent to clients.
func (c *Counter) Bytes() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes
}

// String lists what was counted.
func (c *Counter) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	for key, n := range c.seen {
		b.WriteString(key + ": " + strconv.Itoa(n) + "\n")
	}
	return b.String()
}

// Reset forgets what was counted.
func (c *Counter) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen, c.bytes = nil, 0
}

type countWriter struct {
	http.ResponseWriter
	c *Counter
}

func (w *countWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *countWriter) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	w.c.mu.Lock()
	w.c.bytes += int64(n)
	w.c.mu.Unlock()
	return n, err
}
