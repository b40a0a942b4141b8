package build

import (
	"cmp"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/fault"
)

// Limits say when a build does not begin, and when it gives up.
type Limits struct {
	// Deadline is when the build has to be over; zero means the end of the Slurm
	// job, if this is one.
	Deadline time.Time
	// Previous is the report of an earlier build of the same recipe: what it
	// needed has to be there before this one begins. It may be nil.
	Previous *Report
	// KeepOnFailure is how long the directory of a build that failed is kept.
	KeepOnFailure time.Duration
}

// slurmEnd is the variable with the end of a Slurm job, in seconds since 1970.
const slurmEnd = "SLURM_JOB_END_TIME"

// deadline returns when the programs of a build have to end, so that there is
// time to save what there is: a minute before the end, or a tenth of a short
// time earlier. It is zero if there is no end.
func (l Limits) deadline(now time.Time) time.Time {
	end := l.Deadline
	if end.IsZero() {
		seconds, err := strconv.ParseInt(os.Getenv(slurmEnd), 10, 64)
		if err != nil || seconds <= 0 {
			return time.Time{}
		}
		end = time.Unix(seconds, 0)
	}
	return end.Add(-min(time.Minute, max(end.Sub(now)/10, 0)))
}

// How often the guard looks, and how much of the time it may spend on measuring
// what is in the build directory.
const (
	guardInterval   = 250 * time.Millisecond
	memoryInterval  = time.Second
	storageInterval = 5 * time.Second
	storageShare    = 50
)

// guard ends the programs of a build before the machine runs out of room or
// memory, and when it is time. It also measures what the build needs.
type guard struct {
	dir      string // of the build
	storage  int64  // bytes that have to stay free there
	memory   int64  // bytes of memory that have to stay free
	deadline time.Time

	mu      sync.Mutex
	running map[*guarded]struct{}
	peak    Peak
}

// guarded is a program that runs.
type guarded struct {
	pid    int
	cancel context.CancelCauseFunc
}

func newGuard(dir string, deadline time.Time) *guard {
	g := &guard{dir: dir, deadline: deadline, running: map[*guarded]struct{}{}}
	var s unix.Statfs_t
	if unix.Statfs(dir, &s) == nil {
		g.storage = reserve(int64(s.Blocks) * s.Bsize)
	}
	if total, ok := meminfo("MemTotal:"); ok {
		g.memory = reserve(total)
	}
	return g
}

// reserve is how much of something has to stay free.
func reserve(total int64) int64 { return min(total/64, 256<<20) }

// watch looks after the programs until the context ends.
func (g *guard) watch(ctx context.Context) {
	look := time.NewTicker(guardInterval)
	defer look.Stop()
	var measuredMemory, measuredStorage time.Time
	wait := storageInterval
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-look.C:
			if f := g.trouble(now); f != nil {
				g.stop(f)
			}
			if now.Sub(measuredMemory) >= memoryInterval {
				measuredMemory = now
				g.measureMemory()
			}
			if now.Sub(measuredStorage) >= wait {
				measuredStorage = now
				wait = max(storageInterval, storageShare*g.measureStorage())
			}
		}
	}
}

// trouble returns why the programs have to end now, nil if they may go on.
func (g *guard) trouble(now time.Time) *Failure {
	if !g.deadline.IsZero() && now.After(g.deadline) {
		return &Failure{
			Class: classTimeout, Message: "the time for the build is over",
			Hint: "what was installed by then is in the build cache, if there is one that may be written; give the job more time",
		}
	}
	used := "the build had at most " + mib(g.peaks().Storage) + " of files and " + mib(g.peaks().Memory) + " of processes"
	if free, where, err := available(g.dir); err == nil && where == ownFileSystem && free < g.storage {
		return &Failure{
			Class: classDisk, Message: "stopped before it is full: " + g.dir + " has " + mib(free) + " left; " + used,
			Hint: "build in a larger place with --build-root, or give the job more memory",
		}
	}
	if free, where, ok := memoryLeft(); ok && free < g.memory {
		return &Failure{
			Class: classMemory, Message: "stopped before it is used up: " + where + " has " + mib(free) + " left; " + used,
			Hint: "give the job more memory, or compile fewer things at once with --jobs", retry: true,
		}
	}
	return nil
}

// stop ends all programs.
func (g *guard) stop(why *Failure) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for p := range g.running {
		p.cancel(why)
	}
}

// enter returns a context for a program, and what to call when it has ended.
func (g *guard) enter(ctx context.Context) (context.Context, *guarded, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	p := &guarded{cancel: cancel}
	g.mu.Lock()
	g.running[p] = struct{}{}
	g.mu.Unlock()
	return ctx, p, func() {
		g.mu.Lock()
		delete(g.running, p)
		g.mu.Unlock()
		cancel(nil)
	}
}

// started tells the guard the process of a program.
func (g *guard) started(p *guarded, pid int) {
	g.mu.Lock()
	p.pid = pid
	g.mu.Unlock()
}

func (g *guard) peaks() Peak {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.peak
}

func (g *guard) note(p Peak) {
	g.mu.Lock()
	g.peak = Peak{max(g.peak.Storage, p.Storage), max(g.peak.Memory, p.Memory)}
	g.mu.Unlock()
}

// measureStorage notes the size of the build directory and returns how long that took.
func (g *guard) measureStorage() time.Duration {
	start := time.Now()
	var total int64
	filepath.WalkDir(g.dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // it is gone by now
		}
		if info, err := d.Info(); err == nil {
			if s, ok := info.Sys().(*syscall.Stat_t); ok {
				total += s.Blocks * 512
			} else if info.Mode().IsRegular() {
				total += info.Size()
			}
		}
		return nil
	})
	g.note(Peak{Storage: total})
	return time.Since(start)
}

// measureMemory notes how much memory the processes of the programs have.
func (g *guard) measureMemory() {
	g.mu.Lock()
	mine := map[int]bool{}
	for p := range g.running {
		if p.pid > 0 {
			mine[p.pid] = true
		}
	}
	g.mu.Unlock()
	if len(mine) > 0 {
		g.note(Peak{Memory: residentBelow(mine, processes())})
	}
}

// process is one of the machine.
type process struct {
	pid, parent int
	resident    int64 // bytes
}

// processes lists those of the machine.
func processes() []process {
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	var found []process
	for _, name := range names {
		data, err := os.ReadFile(name + "/stat")
		if err != nil {
			continue
		}
		if p, ok := parseStat(string(data)); ok {
			found = append(found, p)
		}
	}
	return found
}

// parseStat reads /proc/PID/stat: the second field, a name in parentheses, may
// hold anything.
func parseStat(text string) (process, bool) {
	pid, _, ok := strings.Cut(text, " ")
	end := strings.LastIndexByte(text, ')')
	if !ok || end < 0 {
		return process{}, false
	}
	fields := strings.Fields(text[end+1:])
	if len(fields) < 22 {
		return process{}, false
	}
	id, err := strconv.Atoi(pid)
	parent, err2 := strconv.Atoi(fields[1])
	pages, err3 := strconv.ParseInt(fields[21], 10, 64)
	if cmp.Or(err, err2, err3) != nil {
		return process{}, false
	}
	return process{id, parent, pages * int64(os.Getpagesize())}, true
}

// residentBelow sums up the memory of some processes and of all that they began.
func residentBelow(roots map[int]bool, all []process) (total int64) {
	for grown := true; grown; {
		grown = false
		for _, p := range all {
			if !roots[p.pid] && roots[p.parent] {
				roots[p.pid], grown = true, true
			}
		}
	}
	for _, p := range all {
		if roots[p.pid] {
			total += p.resident
		}
	}
	return total
}

// refuse returns an error if what an earlier build needed is not there.
func (l Limits) refuse(root string) error {
	if l.Previous == nil {
		return nil
	}
	need := l.Previous.Peak.Memory
	if inMemory(root) {
		need += l.Previous.Peak.Storage
	}
	free, where, ok := memoryLeft()
	if !ok || free >= need {
		return nil
	}
	return fault.WithHint(
		fault.New(fault.Failure, "the build needed %s of memory the last time, and %s has %s left", mib(need), where, mib(free)),
		"give the job more memory, or build on a disk with --build-root; --like none begins anyway")
}
