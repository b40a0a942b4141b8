package squashfs

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// growRandom makes a tree of everything, with sizes around every boundary.
func growRandom(g grower, r *rand.Rand, blockSize int) {
	dirs, files := []string{""}, []string{}
	for i := range 1 + r.IntN(60) {
		dir := dirs[r.IntN(len(dirs))]
		name := filepath.Join(dir, randomName(r, i))
		switch kind := r.IntN(20); {
		case kind < 4:
			g.dir(name)
			dirs = append(dirs, name)
			g.must(os.Chmod(g.path(name), os.FileMode(0o700|r.IntN(0o100))))
		case kind < 6:
			g.link(strings.Repeat("../x", r.IntN(30))+"t", name)
		case kind == 6 && len(files) > 0:
			g.hardLink(files[r.IntN(len(files))], name)
		case kind == 7:
			g.must(unix.Mkfifo(g.path(name), uint32(r.IntN(0o1000))))
		case kind == 8:
			growHoled(g, r, name, blockSize)
			files = append(files, name)
		default:
			g.file(name, randomContent(r, blockSize))
			files = append(files, name)
			if r.IntN(8) == 0 {
				g.xattr(name, fmt.Sprintf("user.%d", r.IntN(5)), strings.Repeat("v", 1+r.IntN(300)))
			}
			g.must(os.Chmod(g.path(name), usable(os.FileMode(r.IntN(0o1000)))))
		}
	}
}

func randomName(r *rand.Rand, i int) string {
	names := []string{"a", "lib.so.1", "\xff\xc0", "x y", strings.Repeat("long", 50), "ü", "-f"}
	return names[r.IntN(len(names))] + fmt.Sprint(i)
}

func randomContent(r *rand.Rand, blockSize int) []byte {
	edges := []int{0, 1, 100, 8191, 8192, blockSize - 1, blockSize, blockSize + 1, 2 * blockSize, 5*blockSize + 3}
	size := edges[r.IntN(len(edges))]
	if r.IntN(2) == 0 {
		size = r.IntN(3 * blockSize)
	}
	seed := uint64(r.IntN(4)) // so that some are equal
	switch r.IntN(4) {
	case 0:
		return noise(size, seed)
	case 1:
		return make([]byte, size)
	}
	return text(size, seed)
}

func growHoled(g grower, r *rand.Rand, name string, blockSize int) {
	f, err := os.Create(g.path(name))
	g.must(err)
	defer f.Close()
	for range r.IntN(4) {
		_, err := f.WriteAt(text(1+r.IntN(blockSize), 9), int64(r.IntN(8*blockSize)))
		g.must(err)
	}
	g.must(f.Truncate(int64(r.IntN(9 * blockSize))))
}

func TestRandomTrees(t *testing.T) {
	count := 25
	if sweep() {
		count = 2000
	}
	for seed := range count {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(seed), 42))
			o := WriteOptions{
				BlockSize: 4096 << r.IntN(6), Codec: []Codec{Zstd, Zstd, Gzip, None}[r.IntN(4)],
				Level: r.IntN(5), Workers: 1 + r.IntN(4), Time: testTime,
			}
			if o.Codec == None {
				o.Level = 0
			}
			g := newTree(t)
			growRandom(g, r, o.BlockSize)
			want, err := describeDir(g.root)
			g.must(err)
			image, _ := packTree(t, g.root, o)
			got, err := describeImage(openImage(t, image))
			g.must(err)
			same(t, "own reader", got, want)
			checkUnsquashfs(t, image, want)
			dst := filepath.Join(tempDir(t), "dst")
			g.must(Unpack(t.Context(), openImage(t, image), dst, UnpackOptions{}))
			got, err = describeDir(dst)
			g.must(err)
			same(t, "own unpacking", got, want)
		})
	}
}
