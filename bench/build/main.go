// Command build measures the engine of `uenv-ci build` beside the make flow that
// stackinator's build tree stands for, on a real Spack, in turn:
//
//	go build -o uenv-ci ./cmd/uenv-ci && UENV_CI_SPACK=… SPACK_PYTHON=… go run ./bench/build -program ./uenv-ci
//
// from the top directory of the repository. docs/spack.md says how to get a Spack
// with few packages and no network. The make flow is run by flow.go, which writes
// its commands down.
//
// CPU seconds are those of all processes, with what the packages themselves take to
// compile, which is the same on both sides: the ratio of what is around it is lower.
// What is packed is packed on both sides.
//
// The second part builds packages that take some seconds each to compile, with a
// build cache: cold, and again after the package on top has changed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/spack"
	"uenv-ci.dev/internal/stack"
)

const shm = "/dev/shm"

type bench struct {
	program  string
	spackDir string
	rounds   int
	packages int // of the second part
	seconds  int // that each takes to compile, about
	only     string
	dir      string
	prefix   string // of the compiler
	log      *os.File
}

func main() {
	var b bench
	flag.StringVar(&b.program, "program", "./uenv-ci", "the program to measure")
	flag.StringVar(&b.spackDir, "spack", os.Getenv(spack.Variable), "a Spack 0.23 with few packages")
	flag.IntVar(&b.rounds, "rounds", 3, "how often each is measured")
	flag.IntVar(&b.packages, "packages", 6, "packages of the stack that is built again")
	flag.IntVar(&b.seconds, "seconds", 4, "how long each of them compiles, about")
	flag.StringVar(&b.only, "only", "", "measure only this: engines, processes or again")
	flag.Parse()
	if err := b.run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		os.Exit(1)
	}
}

func (b *bench) run(ctx context.Context) (err error) {
	in, err := spack.Open(b.spackDir)
	if err != nil {
		return err
	}
	b.spackDir = in.Dir
	if b.program, err = filepath.Abs(b.program); err != nil {
		return err
	}
	// The processes of a sandbox outlive the one that made it by a moment: as
	// their next of kin we get to know what they took.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp(shm, "uenv-ci-bench-build-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	if b.prefix, err = newPrefix(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.prefix)) }()
	if b.log, err = os.Create(filepath.Join(b.dir, "log")); err != nil {
		return err
	}
	defer b.log.Close()
	fmt.Printf("Spack %s, medians of %d rounds\n\n", in.Version, b.rounds)
	parts := map[string]func(context.Context) error{"engines": b.engines, "processes": b.processes, "again": b.again}
	for _, name := range []string{"engines", "processes", "again"} {
		if b.only != "" && b.only != name {
			continue
		}
		if err := parts[name](ctx); err != nil {
			return b.told(err)
		}
	}
	return nil
}

// told adds the end of the log to an error.
func (b *bench) told(err error) error {
	if err == nil {
		return nil
	}
	text, _ := os.ReadFile(b.log.Name())
	return fmt.Errorf("%w\n%s", err, text[max(0, len(text)-3000):])
}

// engines compares the direct engine and the make flow on demo-stack.
func (b *bench) engines(ctx context.Context) error {
	recipeDir, clusterDir, err := demoInputs(".", b.dir, b.prefix)
	if err != nil {
		return err
	}
	in, err := load(ctx, recipeDir, clusterDir)
	if err != nil {
		return err
	}
	var ours, theirs []cost
	for range b.rounds {
		c, err := b.direct(ctx, "demo-stack", recipeDir, clusterDir)
		if err != nil {
			return err
		}
		ours = append(ours, c)
		if c, err = b.makeFlow(ctx, in); err != nil {
			return err
		}
		theirs = append(theirs, c)
	}
	head("demo-stack")
	show("make flow", theirs, nil)
	show("direct engine (aim: 0.15, own process 100 MB)", ours, theirs)
	return nil
}

func load(ctx context.Context, recipeDir, clusterDir string) (stack.Input, error) {
	r, err := recipe.Load(ctx, recipeDir)
	if err != nil {
		return stack.Input{}, err
	}
	cluster, err := site.LoadCluster(clusterDir)
	return stack.Input{Recipe: r, Cluster: cluster, Mount: r.Store}, err
}

func (b *bench) direct(ctx context.Context, name, recipeDir, clusterDir string, more ...string) (cost, error) {
	args := append([]string{
		"build", "--recipe", recipeDir, "--cluster", clusterDir, name + "/1.0@bench%generic", "--spack", b.spackDir,
		"--offline", "--quiet", "--out", filepath.Join(b.dir, "ours.squashfs"),
	}, more...)
	return measure(func() (int64, error) {
		p, err := proc.Cmd{Path: b.program, Args: args, Env: os.Environ(), Stdout: b.log, Stderr: b.log}.Start(ctx)
		if err != nil {
			return 0, err
		}
		own := make(chan int64, 1)
		stop := make(chan struct{})
		go func() { own <- peak(p.Pid(), stop) }()
		err = p.Wait()
		close(stop)
		return <-own, err
	})
}

func (b *bench) makeFlow(ctx context.Context, in stack.Input) (c cost, err error) {
	dir := filepath.Join(b.dir, "flow")
	f, err := newFlow(in, dir, b.spackDir, 2, b.log)
	if err != nil {
		return cost{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return measure(func() (int64, error) {
		if err := f.run(ctx); err != nil {
			return 0, err
		}
		return 0, f.pack(ctx, filepath.Join(dir, "store.squashfs"))
	})
}

// cost is what something took.
type cost struct {
	wall, cpu time.Duration
	memory    int64 // peak of our own process, 0 if it is not known
}

// measure runs something and returns what it and its descendants took.
func measure(do func() (int64, error)) (cost, error) {
	before, start := childrenCPU(), time.Now()
	memory, err := do()
	wall := time.Since(start)
	for {
		if _, waitErr := unix.Wait4(-1, nil, 0, nil); waitErr != nil && !errors.Is(waitErr, unix.EINTR) {
			break
		}
	}
	return cost{wall, childrenCPU() - before, memory}, err
}

func childrenCPU() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peak returns the most memory that a process itself had.
func peak(pid int, stop <-chan struct{}) (most int64) {
	for {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if _, rest, ok := strings.Cut(string(text), "VmHWM:"); ok {
			var kib int64
			if _, err := fmt.Sscan(rest, &kib); err == nil {
				most = max(most, kib<<10)
			}
		}
		select {
		case <-stop:
			return most
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func head(title string) { fmt.Printf("%-46s %9s %9s %9s\n", title, "wall s", "CPU s", "own MB") }

// show prints the medians, and their ratios to others.
func show(title string, of, to []cost) {
	wall := func(c cost) float64 { return c.wall.Seconds() }
	cpu := func(c cost) float64 { return c.cpu.Seconds() }
	memory := func(c cost) float64 { return float64(c.memory) / 1e6 }
	fmt.Printf("%-46s %9.2f %9.2f %9.0f\n", title, median(of, wall), median(of, cpu), median(of, memory))
	if to != nil {
		fmt.Printf("%-46s %9.3f %9.3f\n\n", "  ratio", median(of, wall)/median(to, wall), median(of, cpu)/median(to, cpu))
	}
}

func median(costs []cost, of func(cost) float64) float64 {
	var values []float64
	for _, c := range costs {
		values = append(values, of(c))
	}
	slices.Sort(values)
	return values[len(values)/2]
}
