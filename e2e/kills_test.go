package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"uenv-ci.dev/internal/image"
	"uenv-ci.dev/internal/localrepo"
	"uenv-ci.dev/internal/pipeline"
	"uenv-ci.dev/internal/proc"
)

// What a child needs to know to do one step of the way.
const (
	stepVariable    = "UENV_CI_FAULT_STEP"
	addressVariable = "UENV_CI_FAULT_ADDRESS"
	repoVariable    = "UENV_CI_FAULT_REPO"
	fileVariable    = "UENV_CI_FAULT_FILE"
)

// Steps beside the way.
var (
	prune         = step{"prune", (*road).prune}
	deletion      = step{"delete", (*road).deleteBuilt}
	registryPrune = step{"prune of the registry", (*road).pruneBuilt}
)

// runChild is a process that does one step and is killed while it does.
func runChild() int {
	file, err := image.Stat(context.Background(), os.Getenv(fileVariable))
	if err == nil {
		w := &road{ctx: context.Background(), stage: &stage{address: os.Getenv(addressVariable)}, file: file, repo: os.Getenv(repoVariable)}
		for _, s := range append(steps, prune, deletion, registryPrune) {
			if s.name == os.Getenv(stepVariable) {
				err = s.run(w)
			}
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// prune takes away what no label needs.
func (w *road) prune() error {
	local, err := localrepo.Open(w.ctx, w.repo, localrepo.Options{})
	if err != nil {
		return err
	}
	defer local.Close()
	_, err = local.Prune(w.ctx, localrepo.PruneOptions{All: true})
	return err
}

// inProcess does a step in a process of its own, and kills it when due is closed
// or, in half of the trials, a little later, when the registry is not asked any more.
func (w *road) inProcess(s step, due <-chan struct{}) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	p, err := proc.Cmd{Path: self, Env: append(os.Environ(), stepVariable+"="+s.name, addressVariable+"="+w.stage.address,
		repoVariable+"="+w.repo, fileVariable+"="+w.file.Path)}.Start(w.ctx)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- p.Wait() }()
	select {
	case <-due:
		time.Sleep(time.Duration(w.random.IntN(2)*w.random.IntN(20)) * time.Millisecond)
		_ = p.Signal(syscall.SIGKILL)
		return <-ended
	case err := <-ended:
		return err
	}
}

// ticks counts what a registry does for a client: requests, and pieces of bodies.
type ticks struct {
	n     atomic.Int64
	bytes atomic.Int64 // of bodies
	at    int64        // when to ring
	hold  bool         // a request that rings is not answered, nor done
	due   chan struct{}
}

func (k *ticks) tick() (rings bool) {
	rings = k.n.Add(1) == k.at
	if rings {
		close(k.due)
	}
	return rings
}

func (k *ticks) middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if k.tick() && k.hold {
			_, _ = io.Copy(io.Discard, r.Body) // else the end of the client is not seen
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		}
		next.ServeHTTP(&tickWriter{w, k}, r)
	})
}

// serveTicks has the sound registry counted from now on.
func (w *road) serveTicks(k *ticks) { w.serve(k.middleware(w.sound)) }

type tickWriter struct {
	http.ResponseWriter
	k *ticks
}

func (w *tickWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *tickWriter) Write(b []byte) (int, error) {
	w.k.tick()
	w.k.bytes.Add(int64(len(b)))
	return w.ResponseWriter.Write(b)
}

func TestFaultsOfKills(t *testing.T) {
	for i, s := range steps {
		tally(t, "SIGKILL of "+s.name, func(stage *stage, random *rand.Rand) (outcome, error) {
			w := stage.road(random, s.name == "push")
			defer w.end()
			for _, before := range steps[:i] {
				if err := before.run(w); err != nil {
					return bad, err
				}
			}
			whole := &ticks{}
			if err := w.rehearseFrom(s, whole); err != nil {
				return bad, err
			}
			k := &ticks{at: 1 + random.Int64N(whole.n.Load()), due: make(chan struct{})}
			w.serveTicks(k)
			killed := w.inProcess(s, k.due)
			w.mend()
			if err := w.check(); err != nil {
				return bad, fmt.Errorf("killed at %d of %d: %w", k.at, whole.n.Load(), err)
			}
			result := succeeded
			for _, after := range steps[i:] {
				if after.name == s.name && killed == nil {
					continue
				}
				result = recovered
				if err := after.run(w); err != nil {
					return bad, fmt.Errorf("%s, killed at %d of %d; then %s: %w", s.name, k.at, whole.n.Load(), after.name, err)
				}
			}
			if killed == nil {
				result = succeeded
			}
			return result, errors.Join(w.check(), w.arrived())
		})
	}
}

// rehearseFrom does a step on a way of its own and counts.
func (w *road) rehearseFrom(s step, k *ticks) error {
	other := w.stage.road(rand.New(rand.NewPCG(0, 0)), false)
	other.kind, other.sound, other.file = w.kind, w.sound, w.file
	defer os.RemoveAll(other.dir)
	if s.name != "pull" { // the others leave something: a rehearsal is on a registry of its own
		other.renew()
	}
	for _, before := range steps {
		if before.name == s.name {
			break
		}
		if s.name == "pull" {
			continue
		}
		if err := before.run(other); err != nil {
			return err
		}
	}
	other.serveTicks(k)
	return s.run(other)
}

func TestFaultsOfKilledPrune(t *testing.T) {
	tally(t, "SIGKILL of prune", func(stage *stage, random *rand.Rand) (outcome, error) {
		w := stage.road(random, false)
		defer w.end()
		for _, s := range steps {
			if err := s.run(w); err != nil {
				return bad, err
			}
		}
		// The label goes to another image: the first one is there to be taken away.
		if err := w.replaceDeployed(); err != nil {
			return bad, err
		}
		due := make(chan struct{})
		timer := time.AfterFunc(time.Duration(random.IntN(120))*time.Millisecond, func() { close(due) })
		killed := w.inProcess(prune, due)
		timer.Stop()
		result := succeeded
		if killed != nil {
			result = recovered
		}
		err := errors.Join(w.checkLocal(), w.prune(), w.checkLocal())
		_, found, locateErr := w.locate(deployedLabel)
		return result, errors.Join(err, locateErr, w.present(found.Descriptor))
	})
}

// replaceDeployed gives the deployed label to another image and pulls it.
func (w *road) replaceDeployed() error {
	if _, err := w.publish(deployedLabel, packedAt.Add(time.Hour)); err != nil {
		return err
	}
	return w.pull()
}

func TestFaultsOfCrowds(t *testing.T) {
	for _, different := range []bool{false, true} {
		for _, n := range []int{2, 8, 32} {
			name := strconv.Itoa(n) + " pulls of one image"
			if different {
				name = strconv.Itoa(n) + " pulls of different images"
			}
			tally(t, name, func(stage *stage, random *rand.Rand) (outcome, error) {
				w := stage.road(random, false)
				defer w.end()
				w.file = stage.tiny
				images := make([]pipeline.Found, n)
				for i := range images {
					var err error
					if i == 0 || different {
						images[i], err = w.publish(fmt.Sprintf("deploy::hello/1.%d:v1@daint%%gh200", i), packedAt.Add(time.Duration(i)*time.Hour))
					} else {
						images[i] = images[0]
					}
					if err != nil {
						return bad, err
					}
				}
				return succeeded, w.crowd(images)
			})
		}
	}
}

// crowd pulls all images at once into a repository that is not there yet.
func (w *road) crowd(images []pipeline.Found) error {
	errs := make([]error, len(images))
	var all sync.WaitGroup
	for i, found := range images {
		all.Go(func() {
			local, err := localrepo.Open(w.ctx, w.repo, localrepo.Options{Create: true})
			if err != nil {
				errs[i] = err
				return
			}
			defer local.Close()
			_, errs[i] = pipeline.Pull(w.ctx, found, local, pipeline.PullOptions{})
		})
	}
	all.Wait()
	for _, found := range images {
		errs = append(errs, w.present(found.Descriptor))
	}
	return errors.Join(append(errs, w.checkLocal())...)
}
