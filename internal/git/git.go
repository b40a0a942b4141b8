// Package git asks the git program about revisions. Commands run without the
// user's interactive helpers, so that a missing credential is an error and not
// a prompt.
package git

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/proc"
)

var commitPattern = regexp.MustCompile(`^[0-9a-f]{40}([0-9a-f]{24})?$`)

// abbreviated is the beginning of a commit id, long enough to be meant as one.
var abbreviated = regexp.MustCompile(`^[0-9a-f]{7,39}$`)

// IsAbbreviated tells whether a reference looks like the beginning of a commit
// id. Only its repository can complete it, but what it stands for does not move.
func IsAbbreviated(reference string) bool { return abbreviated.MatchString(reference) }

// IsCommit tells whether a reference is a full commit id, which never moves.
func IsCommit(reference string) bool { return commitPattern.MatchString(reference) }

// Revision is the state of a work tree.
type Revision struct {
	Commit string `json:"commit"`
	Dirty  bool   `json:"dirty"` // the work tree differs from the commit
}

// ErrNotARepository tells that a directory is in no git work tree, or that the
// git program is not installed.
var ErrNotARepository = errors.New("not in a git work tree")

func run(ctx context.Context, dir string, args ...string) (string, error) {
	return runWith(ctx, dir, nil, args...)
}

// runWith is run with more variables in the environment of git.
func runWith(ctx context.Context, dir string, variables []string, args ...string) (string, error) {
	if _, ok := proc.Look("git"); !ok {
		return "", fmt.Errorf("%w: git is not installed", ErrNotARepository)
	}
	env := append(environ(), "GIT_TERMINAL_PROMPT=0", "LC_ALL=C", "GIT_OPTIONAL_LOCKS=0")
	env = append(env, variables...)
	out, err := proc.Cmd{Path: "git", Args: append([]string{"-C", dir}, args...), Env: env}.Output(ctx)
	hideCredentials(err)
	return strings.TrimSpace(string(out)), err
}

// hideCredentials takes the credentials of URLs out of what git said. Git does so
// itself only where it can tell what they are.
func hideCredentials(err error) {
	var exit *proc.ExitError
	if !errors.As(err, &exit) {
		return
	}
	words := strings.FieldsFunc(exit.Stderr, func(r rune) bool { return strings.ContainsRune(" \t\n'\"", r) })
	for _, word := range words {
		exit.Stderr = strings.ReplaceAll(exit.Stderr, word, WithoutCredentials(word))
	}
}

// ofRepository are variables that name a repository, or parts of one. Git sets them
// for its hooks: there they would lead every command to the repository of the hook.
var ofRepository = []string{
	"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_SHALLOW_FILE",
	"GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH",
}

func environ() []string {
	return slices.DeleteFunc(os.Environ(), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return slices.Contains(ofRepository, name)
	})
}

// Root returns the top directory of the work tree that contains dir.
func Root(ctx context.Context, dir string) (string, error) {
	root, err := run(ctx, dir, "rev-parse", "--show-toplevel")
	if err != nil {
		if ctx.Err() != nil {
			return "", err
		}
		return "", fmt.Errorf("%s: %w", dir, ErrNotARepository)
	}
	return root, nil
}

// untracked has files told that git does not know: a setting can leave them out.
const untracked = "--untracked-files=normal"

// Head returns the revision of the work tree that contains dir.
func Head(ctx context.Context, dir string) (Revision, error) {
	if _, err := Root(ctx, dir); err != nil {
		return Revision{}, err
	}
	commit, err := run(ctx, dir, "rev-parse", "--verify", "HEAD")
	if err != nil {
		return Revision{}, fmt.Errorf("read revision of %s: %w", dir, err)
	}
	status, err := run(ctx, dir, "status", "--porcelain", untracked, "--", ".")
	if err != nil {
		return Revision{}, fmt.Errorf("read status of %s: %w", dir, err)
	}
	return Revision{commit, status != ""}, nil
}

// LastChange returns the time of the last commit that touches dir. In a shallow
// clone whose history does not reach back to it, that cannot be known, and is an
// error with a hint.
func LastChange(ctx context.Context, dir string) (time.Time, error) {
	root, err := Root(ctx, dir)
	if err != nil {
		return time.Time{}, err
	}
	out, err := run(ctx, dir, "log", "-1", "--no-show-signature", "--format=%H %ct", "--", ".")
	if err != nil {
		return time.Time{}, fmt.Errorf("read history of %s: %w", dir, err)
	}
	commit, seconds, ok := strings.Cut(out, " ")
	if !ok {
		return time.Time{}, fmt.Errorf("%s: %w: no commit touches it", dir, ErrNotARepository)
	}
	boundary, err := isBoundary(ctx, root, commit)
	if err != nil {
		return time.Time{}, err
	}
	if boundary {
		err := fault.New(fault.Invalid, "%s: the last commit that touches it lies behind the boundary of a shallow clone", dir)
		return time.Time{}, fault.WithHint(err, "fetch more history ('git fetch --unshallow'), or give the time with --created")
	}
	unix, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("read history of %s: commit time %q: %w", dir, seconds, err)
	}
	return time.Unix(unix, 0).UTC(), nil
}

// isBoundary tells whether a commit is one at which a shallow clone was cut, so
// that it seems to touch every file.
func isBoundary(ctx context.Context, root, commit string) (bool, error) {
	file, err := run(ctx, root, "rev-parse", "--git-path", "shallow")
	if err != nil {
		return false, fmt.Errorf("look for a shallow boundary: %w", err)
	}
	if !filepath.IsAbs(file) {
		file = filepath.Join(root, file)
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return strings.Contains(string(data), commit), err
}

// ResolveRemote returns the commit that a branch or tag of a remote repository
// names now. A full commit id is returned as it is. The empty reference is the
// remote's default branch.
func ResolveRemote(ctx context.Context, url, reference string) (string, error) {
	if IsCommit(reference) {
		return reference, nil
	}
	if strings.HasPrefix(reference, "-") || strings.HasPrefix(url, "-") {
		return "", fault.New(fault.Invalid, "resolve %q of %q: not a reference", reference, url)
	}
	wanted := []string{"HEAD"}
	if reference != "" {
		wanted = []string{"refs/heads/" + reference, "refs/tags/" + reference + "^{}", "refs/tags/" + reference}
	}
	out, err := run(ctx, ".", append([]string{"ls-remote", "--", url}, wanted...)...)
	if err != nil {
		return "", fault.Wrap(fault.Network, err, "resolve %q of %s", reference, WithoutCredentials(url))
	}
	found := map[string]string{}
	for line := range strings.Lines(out) {
		commit, name, _ := strings.Cut(strings.TrimSpace(line), "\t")
		found[name] = commit
	}
	for _, name := range wanted {
		if commit := found[name]; IsCommit(commit) {
			return commit, nil
		}
	}
	return "", fault.New(fault.NotFound, "%s has no branch or tag %q", WithoutCredentials(url), reference)
}

// Clone makes dir a shallow checkout of a remote repository at a commit, branch
// or tag; the empty reference is the remote's default branch. An abbreviated
// commit costs the whole history, since only its repository can complete it. A
// dir that is left behind by an error is the caller's to remove.
func Clone(ctx context.Context, url, reference, dir string) (commit string, err error) {
	if reference == "" {
		reference = "HEAD"
	}
	steps := [][]string{
		{"init", "--quiet"},
		{"remote", "add", "origin", url},
		{"fetch", "--quiet", "--depth", "1", "origin", reference},
		{"checkout", "--quiet", "--detach", "FETCH_HEAD"},
	}
	if IsAbbreviated(reference) {
		steps = [][]string{
			{"clone", "--quiet", "--filter=tree:0", "--no-checkout", "--", url, "."},
			{"checkout", "--quiet", "--detach", reference, "--"},
		}
	}
	if strings.HasPrefix(reference, "-") || strings.HasPrefix(url, "-") {
		return "", fault.New(fault.Invalid, "clone %q of %q: not a reference", reference, url)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	for _, step := range steps {
		if _, err := run(ctx, dir, step...); err != nil {
			return "", fault.Wrap(fault.Network, err, "clone %s at %s", WithoutCredentials(url), reference)
		}
	}
	return run(ctx, dir, "rev-parse", "HEAD")
}
