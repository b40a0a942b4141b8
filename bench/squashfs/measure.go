package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"uenv-ci.dev/internal/proc"
)

// bench runs contenders against each other.
type bench struct {
	dir  string
	runs int
}

// contender is a command to be measured; the first of a list is the yardstick.
type contender struct {
	name   string
	argv   []string
	output string // removed before each run; its size counts if it is a file
}

// figures are medians, but for the memory, which is the highest.
type figures struct {
	wall, cpu time.Duration
	rss       int64
	size      int64
}

// build compiles this program with cgo, as releases are, and without.
func (b *bench) build(ctx context.Context) error {
	for name, cgo := range map[string]string{"cgo": "1", "pure": "0"} {
		c := proc.Cmd{Path: "go", Args: []string{"build", "-o", b.binary(name), "./bench/squashfs"}, Env: append(os.Environ(), "CGO_ENABLED="+cgo, "CGO_CFLAGS=-O3 -g")}
		if err := c.Run(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) binary(name string) string { return filepath.Join(b.dir, "bench-"+name) }

func (b *bench) ours(name, verb string, args ...string) []string {
	return append([]string{b.binary(name), "contend", verb}, args...)
}

// compare measures contenders in turns and prints a table.
func (b *bench) compare(ctx context.Context, title string, list []contender) error {
	all := make([][]figures, len(list))
	for range b.runs {
		for i, c := range list {
			f, err := c.measure(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			all[i] = append(all[i], f)
		}
	}
	fmt.Printf("\n%s, medians of %d\n", title, b.runs)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\twall s\tratio\tcpu s\tratio\tpeak MB\tMB\tratio\t")
	base := medians(all[0])
	for i, c := range list {
		f := medians(all[i])
		fmt.Fprintf(w, "%s\t%.2f\t%.2f\t%.2f\t%.2f\t%.0f\t%.1f\t%.4f\t\n", c.name,
			f.wall.Seconds(), ratio(f.wall, base.wall), f.cpu.Seconds(), ratio(f.cpu, base.cpu),
			float64(f.rss)/1e6, float64(f.size)/1e6, ratio(f.size, base.size))
	}
	return w.Flush()
}

func ratio[T ~int64](a, b T) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// measure runs a contender once.
func (c contender) measure(ctx context.Context) (figures, error) {
	if c.output != "" {
		if err := os.RemoveAll(c.output); err != nil {
			return figures{}, err
		}
	}
	path, ok := proc.Look(c.argv[0])
	if !ok {
		return figures{}, fmt.Errorf("%s is not installed", c.argv[0])
	}
	log, err := os.CreateTemp("", "bench-log-")
	if err != nil {
		return figures{}, err
	}
	defer os.Remove(log.Name())
	defer log.Close()
	start := time.Now()
	p, err := os.StartProcess(path, c.argv, &os.ProcAttr{Env: os.Environ(), Files: []*os.File{nil, log, log}})
	if err != nil {
		return figures{}, err
	}
	stop := context.AfterFunc(ctx, func() { p.Kill() })
	defer stop()
	state, err := p.Wait()
	wall := time.Since(start)
	if err != nil {
		return figures{}, err
	}
	if !state.Success() {
		said, _ := os.ReadFile(log.Name())
		return figures{}, errors.New(strings.TrimSpace(string(bytes.TrimSpace(said))))
	}
	usage := state.SysUsage().(*syscall.Rusage)
	f := figures{wall: wall, cpu: state.UserTime() + state.SystemTime(), rss: usage.Maxrss * 1024}
	if info, err := os.Stat(c.output); err == nil && info.Mode().IsRegular() {
		f.size = info.Size()
	}
	return f, nil
}

func medians(all []figures) figures {
	median := func(value func(figures) time.Duration) time.Duration {
		var list []time.Duration
		for _, f := range all {
			list = append(list, value(f))
		}
		slices.Sort(list)
		return list[len(list)/2]
	}
	m := figures{wall: median(func(f figures) time.Duration { return f.wall }), cpu: median(func(f figures) time.Duration { return f.cpu })}
	for _, f := range all {
		m.rss, m.size = max(m.rss, f.rss), f.size
	}
	return m
}
