package main

import (
	"cmp"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// unit is what is taken together: files of one directory.
type unit struct {
	amount
	files []string
	order uint32
}

const (
	unitBytes  = 8 << 20 // in a unit at most, unless that is one file
	blockBytes = 128 << 10
	packSample = 3 // of so many blocks one is compressed to learn the size of all
)

// units lists what a tree can be made of, in an order that depends on names only
// and has nothing to do with kinds.
func (t tree) units() ([]unit, error) {
	var all []unit
	open := map[string]int{} // by directory
	err := filepath.WalkDir("/usr", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return fs.SkipDir
		}
		if d.IsDir() {
			return nil
		}
		info, err := d.Info()
		if err != nil || !t.fits(info) {
			return nil
		}
		u, ok := open[filepath.Dir(name)]
		if !ok || all[u].bytes+info.Size() > unitBytes {
			u = len(all)
			open[filepath.Dir(name)] = u
			all = append(all, unit{order: orderOf(name)})
		}
		all[u].files = append(all[u].files, name)
		all[u].bytes += info.Size()
		return nil
	})
	slices.SortFunc(all, func(a, b unit) int {
		return cmp.Or(cmp.Compare(a.order, b.order), strings.Compare(a.files[0], b.files[0]))
	})
	return all, err
}

func (t tree) fits(info fs.FileInfo) bool {
	switch info.Mode().Type() {
	case 0:
		return t.largest == 0 || info.Size() <= t.largest
	case fs.ModeSymlink:
		return t.largest == 0
	}
	return false
}

// orderOf spreads names evenly: FNV alone leaves those that differ at their ends
// side by side.
func orderOf(name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(name))
	n := h.Sum32()
	n ^= n >> 16
	n *= 0x85ebca6b
	return n ^ n>>13
}

// weigh finds out what a unit would add to the tree.
func (g *grower) weigh(u *unit) {
	u.amount = amount{entries: 1} // the directory
	var small []byte
	for _, name := range u.files {
		info, err := os.Lstat(name)
		if err != nil {
			continue
		}
		u.entries++
		if !info.Mode().IsRegular() {
			continue
		}
		data, err := g.read(name)
		if err != nil {
			continue
		}
		u.bytes += int64(len(data))
		switch {
		case g.seen[hashOf(data)]:
		case len(data) < blockBytes:
			small = append(small, data...)
		default:
			u.packed += g.packedSize(data)
		}
	}
	u.packed += g.packedSize(small)
}

// packedSize estimates what a writer of squashfs makes of some content.
func (g *grower) packedSize(data []byte) int64 {
	var sample, packed int64
	for i, block := range slices.Collect(slices.Chunk(data, blockBytes)) {
		if i%packSample == 0 {
			sample += int64(len(block))
			packed += int64(min(len(g.encoder.EncodeAll(block, nil)), len(block)))
		}
	}
	if sample == 0 {
		return 0
	}
	return packed * int64(len(data)) / sample
}

func newEncoder() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false), zstd.WithWindowSize(blockBytes))
}
