package e2e

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/lifecycle"
	"uenv-ci.dev/internal/pipeline"
)

// newestLabel names an image in the repository of the one that is deleted. It has the
// same file, so that most of what they are made of is shared.
const newestLabel = "build::hello/1.0:newest@daint%gh200"

// deleteBuilt deletes the image that was pushed.
func (w *road) deleteBuilt() error {
	reg, l, err := w.openFor(builtLabel)
	if err != nil {
		return err
	}
	_, err = pipeline.Delete(w.ctx, reg, l, false)
	return err
}

// pruneBuilt deletes everything but the newest image.
func (w *road) pruneBuilt() error {
	reg, l, err := w.openFor(builtLabel)
	if err != nil {
		return err
	}
	_, err = pipeline.Prune(w.ctx, reg, l, pipeline.PruneOptions{
		Retention: lifecycle.Retention{OlderThan: time.Hour, Keep: 1, Now: packedAt.Add(48 * time.Hour)},
	})
	return err
}

// publishForDeletion publishes the image, something attached to it, and a newer image.
func (w *road) publishForDeletion() error {
	if err := errors.Join(w.push(), w.attach()); err != nil {
		return err
	}
	_, err := w.publish(newestLabel, packedAt.Add(24*time.Hour))
	return err
}

func TestFaultsOfKilledDeletion(t *testing.T) {
	for _, s := range []step{deletion, registryPrune} {
		tally(t, "SIGKILL of "+s.name, func(stage *stage, random *rand.Rand) (outcome, error) {
			w := stage.road(random, false)
			defer w.end()
			if err := w.publishForDeletion(); err != nil {
				return bad, err
			}
			family, err := w.familyOfBuilt()
			if err != nil {
				return bad, err
			}
			whole := &ticks{}
			if err := w.rehearseDeletion(s, whole); err != nil {
				return bad, err
			}
			k := &ticks{at: 1 + random.Int64N(whole.n.Load()), hold: random.IntN(4) > 0, due: make(chan struct{})}
			w.serveTicks(k)
			killed := w.inProcess(s, k.due)
			w.mend()
			at := fmt.Sprintf("killed at %d of %d", k.at, whole.n.Load())
			if err := errors.Join(w.check(), w.checkLabel(newestLabel)); err != nil {
				return bad, fmt.Errorf("%s: %w", at, err)
			}
			result := succeeded
			if killed != nil {
				result = recovered
			}
			// Whichever of the two was killed, prune finishes it.
			if err := w.pruneBuilt(); err != nil {
				return bad, fmt.Errorf("%s, then prune: %w", at, err)
			}
			if err := errors.Join(w.gone(family), w.checkLabel(newestLabel)); err != nil {
				return bad, fmt.Errorf("%s, then prune: %w", at, err)
			}
			_, _, err = w.locate(newestLabel)
			return result, err
		})
	}
}

// familyOfBuilt lists the image that was pushed and what is attached to it.
func (w *road) familyOfBuilt() (family []string, err error) {
	_, found, err := w.locate(builtLabel)
	if err != nil {
		return nil, err
	}
	attached, err := found.Repo.Referrers(w.ctx, found.Descriptor, "")
	if err != nil || len(attached) < 2 {
		return nil, fmt.Errorf("%d are attached: %w", len(attached), orDone(err))
	}
	family = []string{found.Descriptor.Digest.String()}
	for _, a := range attached {
		family = append(family, a.Digest.String())
	}
	return family, nil
}

// gone wants neither the image nor what was attached to it in the registry.
func (w *road) gone(family []string) error {
	_, found, err := w.locate(newestLabel)
	if err != nil {
		return err
	}
	for _, d := range family {
		if _, err := found.Repo.Resolve(w.ctx, d); fault.KindOf(err) != fault.NotFound {
			return fmt.Errorf("%s is there still: %w", d, orDone(err))
		}
	}
	return nil
}

// rehearseDeletion does a step on a registry of its own and counts.
func (w *road) rehearseDeletion(s step, k *ticks) error {
	other := w.stage.road(rand.New(rand.NewPCG(0, 0)), false)
	other.kind, other.file = w.kind, w.file
	defer os.RemoveAll(other.dir)
	other.renew()
	defer w.mend()
	if err := other.publishForDeletion(); err != nil {
		return err
	}
	other.serveTicks(k)
	return s.run(other)
}

// A pull by difference that is killed, at any point, goes on as one or as a whole.
func TestFaultsOfKilledDifference(t *testing.T) {
	tally(t, "SIGKILL of a pull by difference", func(stage *stage, random *rand.Rand) (outcome, error) {
		w := stage.road(random, true)
		defer w.end()
		if stage.changed.Path == "" {
			stage.changed = packRandom(stage.t, largeImage, largeImage/4)
		}
		old, err := w.publish("deploy::hello/0.9:v1@daint%gh200", packedAt)
		if err != nil {
			return bad, err
		}
		w.file = stage.changed
		if _, err := w.publish(deployedLabel, packedAt.Add(time.Hour)); err != nil {
			return bad, err
		}
		rehearsal := &road{ctx: w.ctx, stage: w.stage, file: w.file, repo: w.repo + "-rehearsal", retry: w.retry}
		whole := &ticks{}
		if err := rehearsal.pullFound(old); err != nil {
			return bad, err
		}
		w.serveTicks(whole)
		if err := rehearsal.pull(); err != nil {
			return bad, err
		}
		if n := whole.bytes.Load(); n > w.file.Size/2 {
			return bad, fmt.Errorf("it was no difference: %d bytes of %d", n, w.file.Size)
		}
		w.mend()
		if err := w.pullFound(old); err != nil {
			return bad, err
		}
		k := &ticks{at: 1 + random.Int64N(whole.n.Load()), due: make(chan struct{})}
		w.serveTicks(k)
		killed := w.inProcess(steps[len(steps)-1], k.due)
		w.mend()
		if err := w.checkLocal(); err != nil {
			return bad, fmt.Errorf("killed at %d of %d: %w", k.at, whole.n.Load(), err)
		}
		result := succeeded
		if killed != nil {
			result = recovered
			if err := w.pull(); err != nil {
				return bad, fmt.Errorf("killed at %d of %d: %w", k.at, whole.n.Load(), err)
			}
		}
		_, found, err := w.locate(deployedLabel)
		if err != nil {
			return bad, err
		}
		return result, errors.Join(w.checkLocal(), w.present(found.Descriptor), w.present(old.Descriptor))
	})
}
