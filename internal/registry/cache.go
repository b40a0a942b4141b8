package registry

import (
	"sync"

	"github.com/opencontainers/go-digest"
)

// maxCached bounds the manifests that one Repository remembers, in bytes.
const maxCached = 8 << 20

// manifestCache remembers verified manifests. The zero value is empty.
type manifestCache struct {
	mu    sync.Mutex
	bytes int
	data  map[digest.Digest][]byte
}

func (c *manifestCache) get(d digest.Digest) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	data, ok := c.data[d]
	return data, ok
}

// put adds verified content. A full cache is emptied first: what is needed again is
// fetched again.
func (c *manifestCache) put(d digest.Digest, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.data[d]; ok {
		return
	}
	if c.bytes += len(data); c.bytes > maxCached || c.data == nil {
		c.data, c.bytes = map[digest.Digest][]byte{}, len(data)
	}
	c.data[d] = data
}

func (c *manifestCache) drop(d digest.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes -= len(c.data[d])
	delete(c.data, d)
}

// blobSet remembers which blobs were seen in a repository. The zero value is
// empty. A registry that lost one of them refuses the manifest that needs it.
type blobSet struct {
	mu   sync.Mutex
	seen map[digest.Digest]bool
}

func (s *blobSet) has(d digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[d]
}

func (s *blobSet) add(d digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == nil {
		s.seen = map[digest.Digest]bool{}
	}
	s.seen[d] = true
}

func (s *blobSet) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = nil
}
