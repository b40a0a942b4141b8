// Command mount measures `uenv-ci mount` against squashfuse: side by side,
// interleaved, each run on a new mount. What counts are the ratios of medians.
//
//	go build -o uenv-ci ./cmd/uenv-ci && go run ./bench/mount [-runs N] ./uenv-ci
//
// It packs one file of 512 MB and 10,000 small ones, both from what is in /usr.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/squashfs"
)

const (
	largeSize  = 512 << 20
	smallFiles = 10_000
	smallLimit = 16 << 10
)

func main() {
	runs := flag.Int("runs", 5, "runs of each contender")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "bench: name the program to measure")
		os.Exit(2)
	}
	if err := run(context.Background(), flag.Arg(0), *runs); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, program string, runs int) error {
	dir, err := os.MkdirTemp("/dev/shm", "bench-mount-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	image := filepath.Join(dir, "image")
	if err := grow(filepath.Join(dir, "tree")); err != nil {
		return err
	}
	if _, err := squashfs.Pack(ctx, filepath.Join(dir, "tree"), image, squashfs.WriteOptions{}); err != nil {
		return err
	}
	if program, err = filepath.Abs(program); err != nil {
		return err
	}
	contenders := map[string]proc.Cmd{"uenv-ci": {Path: program, Args: []string{"mount", "--quiet", "--alone", image}}}
	for _, name := range []string{"squashfuse", "squashfuse_ll"} {
		if path, ok := proc.Look(name); ok {
			contenders[name] = proc.Cmd{Path: path, Args: []string{"-f", image}}
		}
	}
	times := map[string]map[string][]float64{}
	for range runs {
		for name, c := range contenders {
			for what, work := range map[string]func(string) error{"read": readLarge, "open": openSmall, "walk": walk} {
				seconds, err := measure(ctx, c, filepath.Join(dir, "at"), work)
				if err != nil {
					return fmt.Errorf("%s: %s: %w", name, what, err)
				}
				if times[what] == nil {
					times[what] = map[string][]float64{}
				}
				times[what][name] = append(times[what][name], seconds)
			}
		}
	}
	for what, of := range times {
		for name, list := range of {
			fmt.Printf("%s  %-14s %7.3f s  speed of squashfuse × %.2f\n", what, name, median(list), median(of["squashfuse"])/median(list))
		}
	}
	return nil
}

func median(list []float64) float64 {
	if len(list) == 0 {
		return 0
	}
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}

// grow makes the tree.
func grow(tree string) error {
	if err := os.MkdirAll(filepath.Join(tree, "small"), 0o755); err != nil {
		return err
	}
	large, err := os.Create(filepath.Join(tree, "large"))
	if err != nil {
		return err
	}
	defer large.Close()
	size, count := int64(0), 0
	return filepath.WalkDir("/usr", func(path string, d fs.DirEntry, err error) error {
		info, infoErr := d.Info()
		if err != nil || infoErr != nil || !info.Mode().IsRegular() {
			return nil
		}
		switch {
		case info.Size() <= smallLimit && count < smallFiles:
			count++
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return os.WriteFile(fmt.Sprintf("%s/small/%05d", tree, count), data, 0o644)
		case info.Size() > smallLimit && size < largeSize:
			from, err := os.Open(path)
			if err != nil {
				return err
			}
			defer from.Close()
			n, err := io.Copy(large, from)
			size += n
			return err
		case size >= largeSize && count == smallFiles:
			return fs.SkipAll
		}
		return nil
	})
}

// measure does something on a new mount.
func measure(ctx context.Context, c proc.Cmd, at string, work func(string) error) (float64, error) {
	if err := os.MkdirAll(at, 0o755); err != nil {
		return 0, err
	}
	c.Args, c.Env = append(slices.Clip(c.Args), at), os.Environ()
	p, err := c.Start(ctx)
	if err != nil {
		return 0, err
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(at + "/small"); err == nil {
			break
		}
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("no mount: %w", p.Wait())
		}
	}
	start := time.Now()
	err = work(at)
	seconds := time.Since(start).Seconds()
	if unmounted := unix.Unmount(at, 0); unmounted != nil {
		return 0, unmounted
	}
	p.Wait()
	return seconds, err
}

func readLarge(at string) error {
	f, err := os.Open(at + "/large")
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, make([]byte, 1<<20))
	return err
}

func openSmall(at string) error {
	buf := make([]byte, smallLimit)
	for i := range smallFiles {
		f, err := os.Open(fmt.Sprintf("%s/small/%05d", at, i+1))
		if err != nil {
			return err
		}
		if _, err := f.Read(buf); err != nil && err != io.EOF {
			return err
		}
		f.Close()
	}
	return nil
}

func walk(at string) error {
	return filepath.WalkDir(at, func(_ string, d fs.DirEntry, err error) error {
		if err == nil {
			_, err = d.Info()
		}
		return err
	})
}
