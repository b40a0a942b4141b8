package main

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
)

// tree is a copy of some of /usr.
type tree struct {
	name    string
	entries int
	bytes   int64
	largest int64 // file; 0 is any
}

var trees = []tree{
	{name: "A", entries: 50_000, bytes: 1_870 << 20},
	{name: "B", entries: 100_000, bytes: 1 << 40, largest: 24 << 10},
}

var errEnough = errors.New("enough")

// grow copies whole directories of /usr, in an order that mixes kinds, until
// there is enough; with a second copy under another name if there is not. The
// second differs in each file, or duplicate removal would take it away.
func (t tree) grow(dst string) error {
	if _, err := os.Stat(dst); err == nil {
		return nil
	}
	fmt.Printf("growing tree %s\n", t.name)
	left := t
	for round := 0; round < 4; round++ {
		for slice := range uint32(8) {
			err := left.copySlice(dst, round, slice)
			if err == errEnough {
				return nil
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// copySlice copies the directories of /usr whose names hash to slice.
func (t *tree) copySlice(dst string, round int, slice uint32) error {
	return filepath.WalkDir("/usr", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "/usr/local" {
			return fs.SkipDir
		}
		h := fnv.New32a()
		h.Write([]byte(filepath.Dir(name)))
		if d.IsDir() || h.Sum32()>>8%8 != slice {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		if t.largest > 0 && (info.Size() > t.largest || !d.Type().IsRegular()) {
			return nil
		}
		to := filepath.Join(dst, fmt.Sprintf("copy%d", round), name)
		if err := copyEntry(name, to, info, round); err != nil {
			return nil // unreadable, or a kind that is not copied
		}
		t.entries--
		t.bytes -= info.Size()
		if t.entries <= 0 || t.bytes <= 0 {
			return errEnough
		}
		return nil
	})
}

func copyEntry(from, to string, info fs.FileInfo, round int) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	case info.Mode().IsRegular():
		data, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		for i := 0; round > 0 && i < len(data); i += 1000 {
			data[i] += byte(round)
		}
		return os.WriteFile(to, data, info.Mode().Perm())
	}
	return errors.ErrUnsupported
}
