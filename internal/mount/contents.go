package mount

import (
	"container/list"
	"sync"

	"uenv-ci.dev/internal/squashfs"
)

// maxContents bounds the tables of blocks that are kept of files that are being
// read, in bytes; the last one is kept in any case.
const maxContents = 8 << 20

// contents keeps the contents of the files that were read last.
type contents struct {
	image *squashfs.Image

	mu    sync.Mutex
	used  int
	items map[uint64]*list.Element // of *keptContent
	order list.List                // the last one first
}

type keptContent struct {
	ref     uint64
	content *squashfs.Content
}

// get returns the content of the file that ref names.
func (c *contents) get(ref uint64) (*squashfs.Content, error) {
	c.mu.Lock()
	if e := c.items[ref]; e != nil {
		c.order.MoveToFront(e)
		c.mu.Unlock()
		return e.Value.(*keptContent).content, nil
	}
	c.mu.Unlock()
	n, err := c.image.Node(ref)
	if err != nil {
		return nil, err
	}
	content, err := n.Content()
	if err != nil {
		return nil, err
	}
	c.keep(ref, content)
	return content, nil
}

func (c *contents) keep(ref uint64, content *squashfs.Content) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.items == nil {
		c.items = map[uint64]*list.Element{}
	}
	if c.items[ref] != nil { // another reader was first
		return
	}
	c.items[ref] = c.order.PushFront(&keptContent{ref, content})
	c.used += content.Cost()
	for c.used > maxContents && c.order.Len() > 1 {
		old := c.order.Remove(c.order.Back()).(*keptContent)
		delete(c.items, old.ref)
		c.used -= old.content.Cost()
	}
}
