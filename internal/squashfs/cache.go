package squashfs

import (
	"container/list"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// blockKey names a block as the image does. The word is part of it since only a
// hostile image describes one place in two ways.
type blockKey struct {
	at   int64  // offset in the image
	word uint32 // size word of a data block, 0 of a metadata block
}

// blockCache keeps decoded blocks up to a number of bytes. What it hands out is
// shared: nobody may write to it.
type blockCache struct {
	mu    sync.Mutex
	limit int64
	used  int64
	items map[blockKey]*list.Element // of *cachedBlock
	order *list.List                 // most recently used first

	// Some of those used last, available without the lock. They may have been dropped
	// in the meantime, so this adds to the limit: for small blocks only.
	front [frontBlocks]atomic.Pointer[cachedBlock]
}

// frontBlocks is enough for the inodes and listings of some neighbours.
const frontBlocks = 32

// cachedBlock is decoded once, by whoever asks first; the others wait.
type cachedBlock struct {
	key   blockKey
	ready sync.Once
	data  []byte
	next  int64 // offset in the image of what follows the block
	err   error
	cost  int64
}

func newBlockCache(limit int64) *blockCache {
	return &blockCache{limit: limit, items: map[blockKey]*list.Element{}, order: list.New()}
}

// get returns a block, which load decodes if it is not there.
func (c *blockCache) get(key blockKey, load func() (data []byte, next int64, err error)) ([]byte, int64, error) {
	b := c.block(key, load)
	if b.err == nil && len(b.data) <= metaSize {
		c.slot(key).Store(b)
	}
	return b.data, b.next, b.err
}

// block is get for blocks that are not used yet.
func (c *blockCache) block(key blockKey, load func() (data []byte, next int64, err error)) *cachedBlock {
	c.mu.Lock()
	element := c.items[key]
	if element == nil {
		element = c.order.PushFront(&cachedBlock{key: key})
		c.items[key] = element
	} else {
		c.order.MoveToFront(element)
	}
	c.mu.Unlock()
	b := element.Value.(*cachedBlock)
	b.ready.Do(func() {
		b.data, b.next, b.err = load()
		c.account(element, b)
	})
	return b
}

// recent returns a small block that was used lately, or nothing.
func (c *blockCache) recent(key blockKey) (data []byte, next int64, err error) {
	if b := c.slot(key).Load(); b != nil && b.key == key {
		return b.data, b.next, nil
	}
	return nil, 0, nil
}

// slot is where a block stands in front. Blocks begin anywhere, so all bits count.
func (c *blockCache) slot(key blockKey) *atomic.Pointer[cachedBlock] {
	return &c.front[uint64(key.at)*0x9e3779b97f4a7c15>>32%frontBlocks]
}

// has tells whether a block is there, or being loaded.
func (c *blockCache) has(key blockKey) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.items[key] != nil
}

// account counts a block that was loaded, and makes room for it. A block that
// could not be loaded is forgotten: the cause may pass.
func (c *blockCache) account(element *list.Element, b *cachedBlock) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.items[b.key] != element { // dropped while it was being loaded
		return
	}
	if b.err != nil {
		c.remove(element)
		return
	}
	b.cost = int64(cap(b.data)) + 128
	c.used += b.cost
	for c.used > c.limit && c.order.Back() != element {
		c.remove(c.order.Back())
	}
}

func (c *blockCache) remove(element *list.Element) {
	b := c.order.Remove(element).(*cachedBlock)
	c.used -= b.cost
	delete(c.items, b.key)
}

// Bounds of what is known: directories by their paths, and entries of their listings.
const maxPaths, maxListed = 1024, 32 << 10

// knownDir is a directory that was met lately.
type knownDir struct {
	*inode
	listing []dirEntry // in order, if it was listed
}

// find returns an entry of the listing.
func (k knownDir) find(name string) (dirent, bool) {
	i, found := slices.BinarySearchFunc(k.listing, name, func(e dirEntry, name string) int { return strings.Compare(e.d.name, name) })
	if !found {
		return dirent{}, false
	}
	return k.listing[i].d, true
}

// pathCache knows directories that were met lately. When there are too many, those
// that were not asked for since that was so before are forgotten.
type pathCache struct {
	mu          sync.Mutex
	dirs, older map[string]knownDir
	listed      int // entries of all listings in dirs
}

func (c *pathCache) get(path string) knownDir {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.find(path)
}

// keep remembers a directory, and its listing if there is one that is not long.
func (c *pathCache) keep(path string, dir *inode, listing []dirEntry) {
	if len(listing) > maxListed/8 {
		listing = nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.find(path); old.inode == nil || old.listing == nil && listing != nil {
		c.put(path, knownDir{dir, listing})
	}
}

func (c *pathCache) find(path string) knownDir {
	k, known := c.dirs[path]
	if !known {
		if k, known = c.older[path]; known {
			c.put(path, k)
		}
	}
	return k
}

func (c *pathCache) put(path string, k knownDir) {
	if c.dirs == nil {
		c.dirs, c.older = map[string]knownDir{}, map[string]knownDir{}
	}
	if len(c.dirs) >= maxPaths/2 || c.listed+len(k.listing) > maxListed/2 {
		clear(c.older) // keeping its room
		c.dirs, c.older, c.listed = c.older, c.dirs, 0
	}
	c.listed += len(k.listing)
	c.dirs[path] = k
}
