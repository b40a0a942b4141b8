package cli

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/localrepo"
)

// repoPaths returns the local repositories in the order in which they are
// searched: the one that --repo names, by path or by its name in the uenv client's
// configuration; else the site file's in place of the client's default, and those
// that the client searches besides.
func (in *invocation) repoPaths() ([]string, error) {
	locations, err := localrepo.Locations(in.getenv)
	if err != nil {
		return nil, err
	}
	if named := in.String("repo"); named != "" {
		for _, l := range locations {
			if l.Name == named && !strings.Contains(named, "/") {
				return []string{l.Path}, nil
			}
		}
		return []string{named}, nil
	}
	if in.site.Repo.Given() {
		path, err := in.site.Repo.Get()
		if err != nil {
			return nil, err
		}
		locations = slices.DeleteFunc(locations, func(l localrepo.Location) bool { return l.Default })
		locations = slices.Insert(locations, 0, localrepo.Location{Path: path})
	}
	var paths []string
	for _, l := range locations {
		paths = append(paths, l.Path)
	}
	if len(paths) == 0 {
		err := fault.New(fault.Usage, "there is no place for a local repository: neither a scratch directory nor HOME is writable")
		return nil, fault.WithHint(err, "name one with --repo")
	}
	return paths, nil
}

// openLocal opens the local repository that images are pulled into: the first in
// which we may write, else the first.
func (in *invocation) openLocal(ctx context.Context, o localrepo.Options) (*localrepo.Repo, error) {
	paths, err := in.repoPaths()
	if err != nil {
		return nil, err
	}
	path := paths[0]
	for _, p := range paths {
		if localrepo.CanWrite(p) {
			path = p
			break
		}
	}
	o.Events = in.events
	if o.Striping, err = localrepo.ParseStriping(cmp.Or(in.String("stripes"), in.site.Stripes)); err != nil {
		return nil, err
	}
	return localrepo.Open(ctx, path, o)
}

// stripesFlag is for commands that write images.
func stripesFlag() cli.Flag {
	return &cli.StringFlag{Name: "stripes", Usage: "on Lustre, stripe the image over `COUNT[xSIZE]` storage targets (else as in the site file, else 32x4M); or all, off"}
}

// locals are the local repositories that are searched.
type locals []*localrepo.Repo

func (ls locals) Close() {
	for _, l := range ls {
		l.Close()
	}
}

// openLocals opens all local repositories for reading. Of several, those that do
// not exist or cannot be read are passed over, as long as one is left.
func (in *invocation) openLocals(ctx context.Context) (locals, error) {
	paths, err := in.repoPaths()
	if err != nil {
		return nil, err
	}
	var opened locals
	var failed error
	for _, path := range paths {
		local, err := localrepo.Open(ctx, path, localrepo.Options{ReadOnly: true, Events: in.events})
		switch {
		case err == nil:
			opened = append(opened, local)
		case fault.KindOf(err) != fault.NotFound && len(paths) > 1:
			in.events.Warn("repository", "skipped: %v", err)
			failed = err
		case failed == nil:
			failed = err
		}
	}
	if len(opened) == 0 {
		return nil, failed
	}
	return opened, nil
}

// lookup returns the first repository that has what the pattern names, and the
// records of that image.
func (ls locals) lookup(ctx context.Context, pattern label.Label) (*localrepo.Repo, []localrepo.Record, error) {
	pattern.Namespace = ""
	var dirs []string
	for _, l := range ls {
		records, err := l.Lookup(ctx, pattern)
		if err == nil || fault.KindOf(err) != fault.NotFound || len(ls) == 1 {
			return l, records, err
		}
		dirs = append(dirs, l.Dir())
	}
	err := fault.New(fault.NotFound, "%s is in none of the local repositories %s", pattern, strings.Join(dirs, ", "))
	return nil, nil, fault.WithHint(err, "'uenv-ci ls' lists what is there; 'uenv-ci pull' fetches an image")
}
