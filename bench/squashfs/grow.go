package main

import (
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// tree is made of files of /usr, so that it has about the entries, the bytes and the
// packed size of a tree of real software that was measured once. Those three decide
// what packing costs; that other files have them here is what is left of the
// difference. How close it came is printed, and what mksquashfs makes of it when it
// is packed. The estimate while growing sees each unit alone, so it is higher than
// that by 2 % for A and 13 % for B; the numbers here have that added.
type tree struct {
	name    string
	want    amount
	largest int64 // file; 0 is any
}

var trees = []tree{
	{name: "A", want: amount{50_000, 1_870e6, 572.9e6 * 1.02}},
	{name: "B", want: amount{100_000, 347e6, 113.2e6 * 1.13}, largest: 24 << 10},
}

// amount is how much there is of something.
type amount struct {
	entries int
	bytes   int64
	packed  int64 // with zstd, in blocks of 128 KiB
}

func (a amount) plus(b amount) amount {
	return amount{a.entries + b.entries, a.bytes + b.bytes, a.packed + b.packed}
}

// unlike tells how far a is from having the proportions of b.
func (a amount) unlike(b amount) float64 {
	entries := float64(a.entries) / float64(b.entries)
	return math.Abs(float64(a.bytes)/float64(b.bytes)-entries) + math.Abs(float64(a.packed)/float64(b.packed)-entries)
}

// candidates is how many units are looked at for the next one to take.
const candidates = 16

// grow takes units in an order that mixes kinds: of the next few always the one
// that brings the tree nearest to what it is to be like, and drops the one that
// would lead it farthest away. If all were used before there was enough, it starts
// again with copies that differ, or duplicate removal would take them away.
func (t tree) grow(dst string) error {
	if _, err := os.Stat(dst); err == nil {
		return nil
	}
	units, err := t.units()
	if err != nil {
		return err
	}
	encoder, err := newEncoder()
	if err != nil {
		return err
	}
	defer encoder.Close()
	g := &grower{tree: t, dst: dst, encoder: encoder, made: map[string]bool{}, seen: map[uint64]bool{}}
	for round := 0; round < 4 && !g.enough(); round++ {
		g.round = round
		if err := g.take(units); err != nil {
			return err
		}
	}
	_, err = fmt.Printf("tree %s has %d entries (to be %d), %.0f MB (%.0f), packs to about %.0f MB (%.0f)\n", t.name,
		g.has.entries, t.want.entries, float64(g.has.bytes)/1e6, float64(t.want.bytes)/1e6, float64(g.has.packed)/1e6, float64(t.want.packed)/1e6)
	return err
}

// grower is a tree while it grows.
type grower struct {
	tree
	dst     string
	encoder *zstd.Encoder
	round   int
	has     amount
	made    map[string]bool // directories
	seen    map[uint64]bool // contents, by a hash
}

func (g *grower) enough() bool {
	return g.has.entries >= g.want.entries || g.has.bytes >= g.want.bytes
}

func (g *grower) take(units []unit) error {
	var near []unit
	for !g.enough() && (len(near) > 0 || len(units) > 0) {
		for len(near) < candidates && len(units) > 0 {
			next := units[0]
			units = units[1:]
			if g.weigh(&next); next.entries > 1 {
				near = append(near, next)
			}
		}
		slices.SortFunc(near, func(a, b unit) int {
			return cmp.Compare(g.has.plus(a.amount).unlike(g.want), g.has.plus(b.amount).unlike(g.want))
		})
		if len(near) == 0 {
			break
		}
		if err := g.copy(near[0]); err != nil {
			return err
		}
		near = near[1:max(1, len(near)-1)]
	}
	return nil
}

// copy puts a unit into the tree.
func (g *grower) copy(u unit) error {
	for _, name := range u.files {
		if g.enough() {
			break
		}
		to := filepath.Join(g.dst, fmt.Sprintf("copy%d", g.round), name)
		if err := g.mkdir(filepath.Dir(to)); err != nil {
			return err
		}
		size, err := g.copyEntry(name, to)
		if err != nil {
			continue // unreadable, or a kind that is not copied
		}
		g.has.entries++
		g.has.bytes += size
	}
	g.has.packed += u.packed
	return nil
}

func (g *grower) mkdir(name string) error {
	if g.made[name] || len(name) <= len(g.dst) {
		return os.MkdirAll(name, 0o755)
	}
	if err := g.mkdir(filepath.Dir(name)); err != nil {
		return err
	}
	g.made[name] = true
	g.has.entries++
	return os.Mkdir(name, 0o755)
}

// copyEntry copies a file or link and returns its size.
func (g *grower) copyEntry(from, to string) (int64, error) {
	info, err := os.Lstat(from)
	if err != nil {
		return 0, err
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return 0, err
		}
		return 0, os.Symlink(target, to)
	case info.Mode().IsRegular():
		data, err := g.read(from)
		if err != nil {
			return 0, err
		}
		g.seen[hashOf(data)] = true
		return int64(len(data)), os.WriteFile(to, data, info.Mode().Perm())
	}
	return 0, errors.ErrUnsupported
}

// read returns the content that a file has in this round.
func (g *grower) read(name string) ([]byte, error) {
	data, err := os.ReadFile(name)
	for i := 0; g.round > 0 && i < len(data); i += 1000 {
		data[i] += byte(g.round)
	}
	return data, err
}

func hashOf(data []byte) uint64 {
	h := fnv.New64a()
	h.Write(data)
	return h.Sum64()
}
