package catalog

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/registry"
)

// Source is where an answer comes from.
type Source string

// The sources.
const (
	FromRegistry Source = "registry" // asked just now
	FromIndex    Source = "index"    // the namespace's published index
	FromListing  Source = "listing"  // names from the site's listing service
	FromCache    Source = "cache"    // an answer from a moment ago
)

// defaultMaxAge is how long an answer is good enough for people.
const defaultMaxAge = time.Minute

// SearchOptions say where to look, the zero value in the registry and its index
// only.
type SearchOptions struct {
	Options
	Listing string        // URL or file of a listing document, asked for names in place of the registry
	Cache   string        // directory; "" keeps nothing
	MaxAge  time.Duration // of answers in the cache; 0 is a minute
	Refresh bool          // ask the registry itself
	Offline bool          // ask nobody: what the cache has, however old
	Events  event.Sink
}

// Answer is what was found, from where, and when that was true.
type Answer struct {
	Records []Record  `json:"records"`
	Source  Source    `json:"source"`
	At      time.Time `json:"at"`
	// Denied are repositories that were asked and may not be read: what is in them is
	// not among the records.
	Denied []string `json:"denied,omitempty"`
}

// Search is Find for people: it takes an answer from a moment ago, or the index
// that is published for the namespace, before it asks about each image.
func Search(ctx context.Context, reg *registry.Registry, pattern label.Label, o SearchOptions) (Answer, error) {
	if pattern.Namespace == "" {
		return Answer{}, fault.New(fault.Usage, "find: no namespace given")
	}
	if pattern.ByDigest() {
		o.Depth = min(o.Depth, Digests) // labels alone do not tell
	}
	c := cache(o.Cache)
	if o.Offline {
		return offline(c, reg, pattern, o)
	}
	if !o.Refresh {
		if a, ok := cached(c, reg, pattern, o); ok && age(a) < maxAge(o) {
			return a, nil
		}
		a, err := fromIndex(ctx, c, reg, pattern, o)
		if err == nil || !mayLack(err) {
			return a, err
		}
	}
	a := Answer{Source: FromRegistry, At: time.Now().UTC()}
	if o.Listing != "" {
		listed, err := readListing(ctx, o.Listing, pattern.Namespace, c)
		if err != nil {
			return Answer{}, err
		}
		o.Listed, a.Source = listed, FromListing
	}
	if err := a.find(ctx, reg, pattern, o.Options); err != nil {
		return Answer{}, err
	}
	if len(a.Denied) == 0 { // else whoever logs in now would not see the rest
		c.write(kindAnswer, question(reg, pattern, o), a)
	}
	return a, nil
}

// find asks the registry. Somebody who may not read an image that he did not ask for
// sees the others; to have been denied all of them is an error.
func (a *Answer) find(ctx context.Context, reg *registry.Registry, pattern label.Label, o Options) error {
	var mu sync.Mutex
	denied := map[string]error{}
	o.Denied = func(repository string, err error) {
		mu.Lock()
		defer mu.Unlock()
		denied[repository] = err
	}
	var err error
	if a.Records, err = Find(ctx, reg, pattern, o); err != nil {
		return err
	}
	a.Denied = slices.Sorted(maps.Keys(denied))
	if len(a.Records) == 0 && len(a.Denied) > 0 {
		return denied[a.Denied[0]]
	}
	return nil
}

// mayLack tells whether an index that could not be read is none at all, or one
// that we may not see or do not understand: then there are other ways.
func mayLack(err error) bool {
	switch fault.KindOf(err) {
	case fault.NotFound, fault.Invalid, fault.Unauthorized, fault.Refused, fault.Usage:
		return true
	}
	return false
}

func maxAge(o SearchOptions) time.Duration {
	if o.MaxAge == 0 {
		return defaultMaxAge
	}
	return o.MaxAge
}

// age is how old an answer is; one from the future is as old as can be.
func age(a Answer) time.Duration {
	if d := time.Since(a.At); d >= 0 {
		return d
	}
	return 1<<63 - 1
}

// question identifies what was asked.
func question(reg *registry.Registry, pattern label.Label, o SearchOptions) string {
	return fmt.Sprintf("%s\n%s\n%v %d %v %q", reg, pattern, o.Exact, o.Depth, o.Repositories, o.Listing)
}

// cached returns the newest answer that was given to this question, to one for
// the whole namespace, or for more about each label.
func cached(c cache, reg *registry.Registry, pattern label.Label, o SearchOptions) (newest Answer, found bool) {
	depth := o.Depth
	for _, asked := range []label.Label{pattern, {Namespace: pattern.Namespace}} {
		for o.Depth = All; o.Depth <= depth; o.Depth++ {
			var a Answer
			if c.read(kindAnswer, question(reg, asked, o), &a) && (!found || a.At.After(newest.At)) {
				newest, found = a, true
			}
		}
	}
	newest.Records, newest.Source = filter(newest.Records, pattern, o), FromCache
	return newest, found
}

func fromIndex(ctx context.Context, c cache, reg *registry.Registry, pattern label.Label, o SearchOptions) (Answer, error) {
	records, built, err := readIndex(ctx, reg, pattern.Namespace, c)
	if err != nil {
		return Answer{}, err
	}
	return Answer{Records: filter(records, pattern, o), Source: FromIndex, At: built}, nil
}

func filter(records []Record, pattern label.Label, o SearchOptions) []Record {
	kept := slices.DeleteFunc(records, func(r Record) bool { return !matches(r.Label, r.Digest, pattern, o.Options) })
	slices.SortFunc(kept, compare)
	return kept
}

func offline(c cache, reg *registry.Registry, pattern label.Label, o SearchOptions) (Answer, error) {
	a, ok := cached(c, reg, pattern, o)
	if repo, err := indexRepository(reg, pattern.Namespace); err == nil {
		key := repo.String()
		if data := c.readBytes(kindIndex, key); data != nil {
			at := c.written(kindIndex, key)
			if records, err := decodeIndex(data, pattern.Namespace); err == nil && (!ok || at.After(a.At)) {
				return Answer{Records: filter(records, pattern, o), Source: FromCache, At: at}, nil
			}
		}
	}
	if !ok {
		err := fault.New(fault.NotFound, "nothing is cached about %s of %s", pattern, reg)
		return Answer{}, fault.WithHint(err, "run it once without --offline")
	}
	return a, nil
}
