package squashfs

import (
	"crypto/sha256"
	"fmt"
	"testing"
)

// fragmentSums returns the sums and the total content size of all fragment blocks.
func fragmentSums(t *testing.T, image string) (sums map[[32]byte]int, total int) {
	t.Helper()
	m := openImage(t, image)
	sums = map[[32]byte]int{}
	for i := range m.sb.Fragments {
		data, err := m.fragment(i)
		if err != nil {
			t.Fatal(err)
		}
		sums[sha256.Sum256(data)] = len(data)
		total += len(data)
	}
	return sums, total
}

// TestChangesStayLocal changes some directories of many, in content and size, and
// expects few fragment blocks to change.
func TestChangesStayLocal(t *testing.T) {
	const packages, dirs = 10, 20
	grow := func(changed bool) (root string, bytes int) {
		g := newTree(t)
		for p := range packages {
			for d := range dirs {
				hit := (p*dirs+d)%20 == 7
				for f := range 5 {
					size, seed := 300+d*400+f*50, uint64(p<<16|d<<8|f)
					if hit && changed {
						size, seed = size*5/4, seed+1<<32
					}
					if hit {
						bytes += size
					}
					g.file(fmt.Sprintf("package-%d/dir%d/file%d", p, d, f), text(size, seed))
				}
			}
		}
		return g.root, bytes
	}
	o := WriteOptions{BlockSize: 16 << 10}
	before, _ := grow(false)
	after, bytes := grow(true)
	first, _ := packTree(t, before, o)
	second, _ := packTree(t, after, o)
	old, _ := fragmentSums(t, first)
	now, total := fragmentSums(t, second)
	fresh := 0
	for sum, size := range now {
		if old[sum] == 0 {
			fresh += size
		}
	}
	if fresh < bytes || fresh > bytes*3/2 {
		t.Errorf("%d bytes of files changed, so did fragments of %d bytes of %d", bytes, fresh, total)
	}
}

// TestFragmentsAreFull bounds the number of blocks that close directories cost.
func TestFragmentsAreFull(t *testing.T) {
	g := newTree(t)
	for i := range 400 {
		g.file(fmt.Sprintf("p%d/q%d/r%d/f", i%2, i%10, i), text(i*7, uint64(i)))
	}
	o := WriteOptions{BlockSize: 16 << 10}
	image, _ := packTree(t, g.root, o)
	sums, total := fragmentSums(t, image)
	if least := total / o.BlockSize; len(sums) > 2*least {
		t.Errorf("%d fragment blocks for %d bytes", len(sums), total)
	}
	checkAll(t, image, g.root)
}
