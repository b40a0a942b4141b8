package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"uenv-ci.dev/internal/squashfs"
)

// many is how many files one directory of the tree for reading has.
const many = 5000

// readTree grows a tree of somewhat more than 50,000 entries, most of them small,
// and one large directory.
func readTree(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(dir, "many"), 0o755); err != nil {
		return err
	}
	for i := range many {
		if err := os.WriteFile(filepath.Join(dir, "many", manyName(i)), []byte(manyName(i)), 0o644); err != nil {
			return err
		}
	}
	t := tree{name: "R", want: amount{45_500, 273e6, 91e6}, largest: 64 << 10}
	return t.grow(filepath.Join(dir, "tree"))
}

func manyName(i int) string { return fmt.Sprintf("file-%04d.txt", i) }

// read measures walking an image and reading one file of a large directory, each
// time with an image that was just opened; and a whole process that lists it beside
// unsquashfs.
func (b *bench) read(ctx context.Context) error {
	root, image := filepath.Join(b.dir, "R"), filepath.Join(b.dir, "R.squashfs")
	if err := readTree(root); err != nil {
		return err
	}
	if err := b.image(ctx, tree{name: "R"}, image); err != nil {
		return err
	}
	entries := 0
	for what, do := range map[string]func(*squashfs.Image) error{
		"walk, with all that Info tells":     func(m *squashfs.Image) (err error) { entries, err = walk(m); return err },
		"one file of a directory with 5,000": readOne,
	} {
		took, err := b.opened(image, do)
		if err != nil {
			return err
		}
		fmt.Printf("%s: median of %d %v\n", what, b.runs, took.Round(time.Microsecond))
	}
	return b.compare(ctx, fmt.Sprintf("list %d entries", entries), []contender{
		{"unsquashfs -lln", []string{"unsquashfs", "-lln", image}, ""},
		{"walk", b.ours("cgo", "walk", image), ""},
	})
}

// opened measures something on an image that was just opened.
func (b *bench) opened(image string, do func(*squashfs.Image) error) (time.Duration, error) {
	var all []figures
	for range b.runs {
		start := time.Now()
		m, err := squashfs.Open(image)
		if err != nil {
			return 0, err
		}
		err = do(m)
		all = append(all, figures{wall: time.Since(start)})
		m.Close()
		if err != nil {
			return 0, err
		}
	}
	return medians(all).wall, nil
}

// walk goes through an image as any program does through a file system.
func walk(m *squashfs.Image) (entries int, err error) {
	err = fs.WalkDir(m, ".", func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		entries++
		_, err = d.Info()
		return err
	})
	return entries, err
}

// readOne reads a file in the middle of the large directory.
func readOne(m *squashfs.Image) error {
	name := manyName(many * 2 / 3)
	data, err := m.ReadFile("many/" + name)
	if err == nil && string(data) != name {
		err = fmt.Errorf("%s holds %q", name, data)
	}
	return err
}
