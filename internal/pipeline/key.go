package pipeline

import (
	"context"
	"fmt"
	"strings"

	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/git"
	"uenv-ci.dev/internal/image"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/plan"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/spack"
	"uenv-ci.dev/internal/squashfs"
	"uenv-ci.dev/internal/stack"
)

// KeyOptions say how the content key of a build is found and what it is used for.
type KeyOptions struct {
	Variables map[string]string // passed to the build; no secrets
	Offline   bool              // leave branches and tags unresolved
	// PerChange is set for jobs of changes that nobody has accepted yet. What
	// they build is kept apart from what others may believe.
	PerChange bool
	Rebuild   bool // build what the registry has, too

	// Resolve finds out what references stand for; nil asks their repositories.
	Resolve func(ctx context.Context, repo, ref string) (string, error)
}

// ContentKey is the content key of an image that is built, and what it comes from.
type ContentKey struct {
	Key        string        `json:"key"` // "" if Unresolved says why there is none
	Unresolved []string      `json:"unresolved,omitempty"`
	Sources    []plan.Source `json:"sources"`

	recipe, cluster string // digests of their files
}

// packingOf says how an image is packed with these options.
func packingOf(o squashfs.WriteOptions) (plan.Packing, error) {
	c, err := o.Coding()
	return plan.Packing{Codec: c.Codec.String(), CodecVersion: c.Version, Level: c.Level, BlockSize: c.BlockSize}, err
}

// keyOf computes the content key of a build: the one that a plan has for its job.
func keyOf(ctx context.Context, in stack.Input, uarch string, pack image.PackOptions, o KeyOptions, events event.Sink) (ContentKey, error) {
	packing, err := packingOf(squashfs.WriteOptions{Codec: pack.Codec, Level: pack.Level, BlockSize: pack.BlockSize})
	if err != nil {
		return ContentKey{}, err
	}
	if pack.Mksquashfs {
		if packing.CodecVersion, err = squashfs.MksquashfsVersion(ctx); err != nil {
			return ContentKey{}, err
		}
	}
	single := plan.SingleOptions{
		Recipe: in.Recipe, Cluster: in.Cluster, System: in.System, UArch: uarch, Mount: in.Mount,
		Variables: o.Variables, Packing: packing,
	}
	if single.Resolve = o.Resolve; single.Resolve == nil && !o.Offline {
		single.Resolve = newPlanner(PlanOptions{Events: events}).resolve
	}
	input, err := plan.Single(ctx, single)
	if err != nil {
		return ContentKey{}, fmt.Errorf("content key: %w", err)
	}
	k := ContentKey{
		Sources: input.Sources, recipe: plan.DirHash(input.Recipe), cluster: plan.DirHash(input.Cluster),
	}
	k.Key, k.Unresolved = plan.Key(input)
	return k, nil
}

// builtWith drops the key if the build used another Spack than the one that the
// key stands for: the image must not be taken for what the recipe asks for.
func (k *ContentKey) builtWith(used *build.Spack, dirty bool) {
	if used == nil || k.Key == "" || len(k.Sources) == 0 {
		return
	}
	wanted := k.Sources[0].Commit // it may be abbreviated
	switch {
	case used.Commit == "":
		k.Unresolved = []string{"spack: the Spack that was used is of no known commit"}
	case !strings.HasPrefix(used.Commit, wanted):
		k.Unresolved = []string{fmt.Sprintf("spack: %s was used, the recipe stands for %s", used.Commit, wanted)}
	case dirty:
		k.Unresolved = []string{"spack: the Spack that was used has changes that are in no commit"}
	default:
		return
	}
	k.Key = ""
}

// spackIsDirty tells whether the Spack of this machine that a build used has
// changes that are in no commit.
func spackIsDirty(ctx context.Context, dir string, used *build.Spack) bool {
	if used == nil {
		return false
	}
	in, ok, err := spack.Locate(dir)
	if err != nil || !ok || in.Source != used.Source {
		return false // a clone
	}
	revision, err := git.Head(ctx, in.Dir)
	return err == nil && revision.Dirty
}

// keyStore finds images by their content keys. They have namespaces of their
// own, where no client lists them.
type keyStore struct {
	registry  *registry.Registry
	label     label.Label // of the image, with its namespace
	perChange bool
	events    event.Sink
}

// keyNamespace is where the keys of images of a namespace are.
func keyNamespace(namespace string, perChange bool) string {
	if perChange {
		return namespace + "-pr-keys"
	}
	return namespace + "-keys"
}

func (s keyStore) repository(perChange bool) (*registry.Repository, error) {
	l := s.label
	l.Namespace = keyNamespace(l.Namespace, perChange)
	return s.registry.Repository(l.Repository())
}

// keyedImage is an image that was found by its key.
type keyedImage struct {
	image.Manifest
	repo *registry.Repository
}

// find returns the image of a key, nil if there is none. What jobs of changes
// have built counts only for such jobs.
func (s keyStore) find(ctx context.Context, key string) (*keyedImage, error) {
	for _, perChange := range []bool{false, true} {
		if perChange && !s.perChange {
			break
		}
		repo, err := s.repository(perChange)
		if err != nil {
			return nil, err
		}
		found, err := s.findIn(ctx, repo, key)
		if found != nil || err != nil {
			return found, err
		}
	}
	return nil, nil
}

func (s keyStore) findIn(ctx context.Context, repo *registry.Repository, key string) (*keyedImage, error) {
	m, err := imageOfKey(ctx, repo, key)
	if err == nil && m.Key == key {
		if _, err = image.MetaOf(ctx, repo, m.Descriptor); err == nil {
			return &keyedImage{m, repo}, nil
		}
		s.events.Warn("key", "%s@%s is not used: %v", repo.Name(), m.Descriptor.Digest, err)
	}
	switch fault.KindOf(err) {
	case fault.NotFound:
		return nil, nil
	case fault.Invalid:
		s.events.Warn("key", "%v", err)
		return nil, nil
	}
	if err != nil {
		err = fault.Wrap(fault.KindOf(err), err, "look for what is built")
		return nil, fault.WithHint(err, "--rebuild does not look")
	}
	return nil, nil // of another key that begins in the same way
}

// imageOfKey reads what is found under the tag of a key. A tag alone is not to be
// believed: it holds only half of the key.
func imageOfKey(ctx context.Context, repo *registry.Repository, key string) (image.Manifest, error) {
	d, err := repo.Resolve(ctx, plan.KeyTag(key))
	if err != nil {
		return image.Manifest{}, err
	}
	return image.Read(ctx, repo, d)
}

// record makes an image, with all that is attached to it, be found by its key.
// It returns where.
func (s keyStore) record(ctx context.Context, key string, from Found) (string, error) {
	repo, err := s.repository(s.perChange)
	if err != nil {
		return "", err
	}
	tag := plan.KeyTag(key)
	_, err = registry.Copy(ctx, from.Repo, from.Descriptor, repo, registry.CopyOptions{Tag: tag})
	return repo.Name() + ":" + tag, err
}
