package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"uenv-ci.dev/internal/spack"
)

// installPackages installs what an environment has been concretized to. Where packages
// do not need each other several processes of Spack do it together: each takes what
// no other is at, by the locks of the install tree.
func (b *spackBuild) installPackages(ctx context.Context, stage string, env environment) error {
	lock, err := b.readLock(env)
	if err != nil {
		return err
	}
	installed, err := b.installed()
	if err != nil {
		return err
	}
	cached := b.cachedPackages()
	jobs := shareJobs(b.jobs(), lock.Width(func(s spack.Spec) bool {
		return installed[s.Hash] || cached[s.Hash] || b.fetched.has(s.Hash)
	}))
	p := &progress{spackBuild: b, stage: stage, total: len(lock.Specs), done: map[string]bool{}}
	for hash, s := range lock.Specs {
		if s.External || installed[hash] {
			p.done[hash] = true
		}
	}
	if len(jobs) > 1 {
		b.Events.Info(stage, "%d packages at once, of each up to %d things", len(jobs), jobs[0])
	}
	processes := b.installFlags(jobs)
	return together(ctx, len(processes), func(ctx context.Context, i int) error {
		s := step{name: "install-" + env.Name, network: !b.Offline, watch: p.watch()}
		if len(processes) > 1 {
			s.name += fmt.Sprint("-", i+1)
		}
		// What is concretized is not looked at again: that would write to the
		// environment, which others read.
		args := append([]string{"-e", b.cell.inside(env.Dir), "install", "--only-concrete", "--fail-fast"}, processes[i]...)
		return b.run(ctx, s, args...)
	})
}

// shareJobs returns for each of the processes how many things it may compile at once.
// There are no more processes than packages that can be built at the same time, and
// not many more than each has jobs: a package that is built at the end, alone, has
// only those of its process.
func shareJobs(jobs, width int) []int {
	balanced := int(math.Ceil(math.Sqrt(float64(jobs))))
	shares := make([]int, max(1, min(width, balanced)))
	for i := range shares {
		shares[i] = jobs / len(shares)
		if i < jobs%len(shares) {
			shares[i]++
		}
	}
	return shares
}

// installed returns the hashes of the packages that are in the store.
func (b *spackBuild) installed() (map[string]bool, error) {
	found := map[string]bool{}
	specs, err := b.database()
	for _, s := range specs {
		found[s.Hash] = true
	}
	return found, err
}

// database returns the packages that are in the store.
func (b *spackBuild) database() ([]spack.Spec, error) {
	text, err := b.cell.stored.read(spack.DatabaseFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return spack.ParseDatabase(text)
}

// cachedPackages returns the hashes of the packages in build caches that are directories.
func (b *spackBuild) cachedPackages() map[string]bool {
	found := map[string]bool{}
	for _, c := range b.caches {
		if c.dir == "" {
			continue
		}
		entries, err := os.ReadDir(filepath.Join(c.dir, "build_cache"))
		if err != nil {
			continue // it is empty
		}
		for _, e := range entries {
			name, _, ok := strings.Cut(e.Name(), ".spec.json")
			if hash := name[strings.LastIndexByte(name, '-')+1:]; ok && isHash(hash) {
				found[hash] = true
			}
		}
	}
	return found
}

// errElsewhere ends the processes beside one that failed.
var errElsewhere = errors.New("another process failed")

// together runs several processes of one installation. If one fails the others are
// ended, and the error is what failed, not what others say of it.
func together(ctx context.Context, n int, run func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan error)
	for i := range n {
		go func() { ended <- run(ctx, i) }()
	}
	var failed, consequence error
	for range n {
		switch err := <-ended; {
		case err == nil || failed != nil:
		case isConsequence(err):
			consequence = err
		default:
			failed = err
			cancel(errElsewhere)
		}
	}
	if failed == nil {
		return consequence
	}
	return failed
}

func isConsequence(err error) bool {
	f, ok := errors.AsType[*Failure](err)
	return ok && f.elsewhere
}

// progress counts the packages of an environment that are there, whoever installs
// them.
type progress struct {
	*spackBuild
	stage string
	total int

	mu   sync.Mutex
	done map[string]bool
}

// watch returns a function that follows the output of one process.
func (p *progress) watch() func(string) {
	var w spack.InstallWatcher
	return func(line string) {
		e := w.Line(line)
		p.mu.Lock()
		defer p.mu.Unlock()
		switch e.Kind {
		case spack.Installing:
			p.Events.Progress(p.stage, int64(len(p.done)), int64(p.total), "packages")
			p.Events.Info(p.stage, "%s", e.Package)
		case spack.Extracting:
			p.cached[e.Hash] = true
		case spack.Installed:
			p.seconds[e.Hash] = e.Seconds
			p.done[e.Hash] = true
			p.publisher.notify()
			p.Events.Progress(p.stage, int64(len(p.done)), int64(p.total), "packages")
		}
	}
}
