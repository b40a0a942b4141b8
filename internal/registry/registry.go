// Package registry reads and writes OCI registries: remote ones over HTTP, and
// trees of OCI image layouts on disk ("oci:DIR"). Both offer the same things:
// resolve, fetch, push, tag, list, referrers and copy by digest.
//
// Everything that comes out of a registry is checked against the digest and the
// size that were asked for. A tag is resolved once; from there on digests travel.
package registry

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"time"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
)

// Options say how a registry is reached. The zero value uses the docker
// configuration, the system's certificates and HTTPS.
type Options struct {
	PlainHTTP   bool        // HTTP instead of HTTPS; loopback addresses need no asking
	CAFile      string      // PEM certificates trusted besides the system's
	Credentials Credentials // where user names and passwords come from
	UserAgent   string      // "" is "uenv-ci"
	MustExist   bool        // a layout tree without a directory is of kind NotFound, not empty
	Events      event.Sink  // progress of transfers, retries and other things worth telling
	Retry       RetryOptions
}

// RetryOptions say how often and how patiently a failed request is repeated.
// Requests are repeated on 429, 5xx and broken connections; only once where nobody
// has answered yet and the connection is refused.
type RetryOptions struct {
	Attempts int           // tries in all; 0 is 5, 1 never repeats
	Wait     time.Duration // before the first repetition, doubled for each further one; 0 is 500 ms
	MaxWait  time.Duration // upper bound of one wait, Retry-After included; 0 is 30 s
	Stall    time.Duration // how long a transfer may stand still before it counts as broken; 0 is a minute
}

// Registry is a place that holds repositories. It is safe for concurrent use.
type Registry struct {
	backend backend
	events  event.Sink
	retry   RetryOptions
}

// backend is one kind of registry.
type backend interface {
	String() string
	// repository returns the store of a valid path. It does no I/O.
	repository(path string) store
	// repositories lists the paths that exist, in any order.
	repositories(ctx context.Context) ([]string, error)
}

// Open returns the registry at address: "oci:DIR" for a tree of OCI image
// layouts, else "[http://|https://]HOST[:PORT][/PREFIX]". It does no network I/O.
// A bad address has kind Usage.
func Open(address string, o Options) (*Registry, error) {
	b, err := openBackend(address, o)
	if err != nil {
		return nil, err
	}
	return &Registry{backend: b, events: o.Events, retry: o.Retry}, nil
}

// CheckAddress tells what is wrong with an address that Open would refuse, without
// looking at anything else.
func CheckAddress(address string) error {
	if dir, ok := strings.CutPrefix(address, "oci:"); ok {
		_, err := openTree(dir, false)
		return err
	}
	_, _, _, err := splitAddress(address)
	return err
}

func openBackend(address string, o Options) (backend, error) {
	if dir, ok := strings.CutPrefix(address, "oci:"); ok {
		return openTree(dir, o.MustExist)
	}
	return openRemote(address, o)
}

// String returns the address of the registry, without any secret.
func (r *Registry) String() string { return r.backend.String() }

// Repository returns the repository at path, for example
// "build/eiger/zen2/hello/1.0". It does no I/O, so the repository need not
// exist. A path that is not legal in every registry has kind Usage.
func (r *Registry) Repository(path string) (*Repository, error) {
	if err := validPath(path); err != nil {
		return nil, err
	}
	return &Repository{registry: r, name: path, store: r.backend.repository(path)}, nil
}

// Beside opens another repository of the same registry.
func (p *Repository) Beside(path string) (*Repository, error) { return p.registry.Repository(path) }

// Repositories lists the repositories whose path is prefix or below it ("" for
// all), sorted. Many registries do not offer such a list: the error's hint says
// what to do then.
func (r *Registry) Repositories(ctx context.Context, prefix string) ([]string, error) {
	all, err := r.backend.repositories(ctx)
	if err != nil {
		return nil, err
	}
	prefix = strings.Trim(prefix, "/")
	all = slices.DeleteFunc(all, func(path string) bool {
		return prefix != "" && path != prefix && !strings.HasPrefix(path, prefix+"/")
	})
	slices.Sort(all)
	return slices.Compact(all), nil
}

// The grammar of tags in the OCI distribution specification 1.1.
var tagPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*$`)

// Lengths are compared by themselves: a pattern that counts to 128 has as many states,
// which every start of the program would pay for.
const maxPathLength, maxTagLength = 255, 128

func validPath(path string) error {
	if len(path) <= maxPathLength && label.RegistryPath(path) {
		return nil
	}
	err := fault.New(fault.Usage, "%q is not a legal repository path", path)
	return fault.WithHint(err, "%s", label.RegistryHint)
}

func legalTag(tag string) bool { return len(tag) <= maxTagLength && tagPattern.MatchString(tag) }

func validTag(tag string) error {
	if legalTag(tag) {
		return nil
	}
	return fault.New(fault.Usage, "%q is not a legal tag", tag)
}
