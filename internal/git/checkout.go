package git

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/proc"
)

// Checkout says which files a directory in a work tree holds.
type Checkout struct {
	Revision
	Root   string // top directory of the work tree
	Path   string // of the directory below Root, slash-separated; "." for Root itself
	Remote string // URL of the remote "origin" without credentials; "" if there is none
}

// Describe returns what is checked out at dir. Dirty concerns only dir and what
// is below it. Outside of a work tree, or before its first commit, the error is
// ErrNotARepository; git is not even started where there is no repository.
func Describe(ctx context.Context, dir string) (Checkout, error) {
	root, path, err := findRoot(dir)
	if err != nil {
		return Checkout{}, err
	}
	c := Checkout{Root: root, Path: path}
	status, err := run(ctx, dir, "status", "--porcelain=v2", "--branch", untracked, "--", ".")
	if ctx.Err() != nil {
		return Checkout{}, ctx.Err()
	}
	for line := range strings.Lines(status) {
		line = strings.TrimSpace(line)
		if commit, ok := strings.CutPrefix(line, "# branch.oid "); ok {
			c.Commit = commit
		} else if !strings.HasPrefix(line, "# ") {
			c.Dirty = true
		}
	}
	if err != nil || !IsCommit(c.Commit) {
		return Checkout{}, fmt.Errorf("%s: %w", dir, ErrNotARepository)
	}
	remote, err := run(ctx, dir, "config", "--get", "remote.origin.url")
	var none *proc.ExitError // code 1: there is no such setting
	if err != nil && !(errors.As(err, &none) && none.Code == 1) {
		return Checkout{}, fmt.Errorf("read the origin of %s: %w", dir, err)
	}
	c.Remote = WithoutCredentials(remote)
	return c, nil
}

// findRoot returns the top directory of the work tree that dir is in, and where
// dir is below it.
func findRoot(dir string) (root, path string, err error) {
	resolved, err := filepath.EvalSymlinks(dir)
	if err == nil {
		resolved, err = filepath.Abs(resolved)
	}
	if err != nil {
		return "", "", err
	}
	for root = resolved; ; root = filepath.Dir(root) {
		if _, err := os.Lstat(filepath.Join(root, ".git")); err == nil {
			path, err = filepath.Rel(root, resolved)
			return root, filepath.ToSlash(path), err
		}
		if root == filepath.Dir(root) {
			return "", "", fmt.Errorf("%s: %w", dir, ErrNotARepository)
		}
	}
}

// WithoutCredentials removes user and password from a URL, where CI systems put tokens.
// The user of an ssh URL is kept, and anything that is not a URL is returned as it is.
// It works on the text, since a password may make a URL that cannot be parsed.
func WithoutCredentials(remote string) string {
	scheme, rest, ok := strings.Cut(remote, "://")
	at := endOfCredentials(rest)
	if !ok || at < 0 {
		return remote
	}
	user := ""
	if scheme == "ssh" {
		user, _, _ = strings.Cut(rest[:at], ":")
		user += "@"
	}
	return scheme + "://" + user + rest[at+1:]
}

// endOfCredentials returns where the "@" is behind the user and the password of a URL
// without its scheme, -1 if it has none. With a slash in the password it looks as if it
// had a port that is no number.
func endOfCredentials(rest string) int {
	authority, _, _ := strings.Cut(rest, "/")
	at := strings.LastIndexByte(authority, '@')
	_, port, _ := strings.Cut(authority, ":")
	if at < 0 && strings.Trim(port, "0123456789") != "" && authority[0] != '[' {
		at = strings.LastIndexByte(rest, '@')
	}
	return at
}

// Export writes the files of a revision of the work tree at root below the
// directory to, as a checkout would, and nothing else. Neither the work tree nor its
// index changes.
func Export(ctx context.Context, root, revision, to string) error {
	commit, err := run(ctx, root, "rev-parse", "--verify", "--quiet", "--end-of-options", revision+"^{commit}")
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		err = fault.New(fault.NotFound, "there is no revision '%s' in %s", revision, root)
		return fault.WithHint(err, "a shallow clone lacks earlier ones: 'git fetch' them first")
	}
	own, err := os.MkdirTemp(filepath.Dir(to), ".index-") // it goes with that if we are killed
	if err != nil {
		return fmt.Errorf("check out revision '%s' of %s: %w", revision, root, err)
	}
	defer os.RemoveAll(own)
	index := "GIT_INDEX_FILE=" + filepath.Join(own, "index")
	if _, err = runWith(ctx, root, []string{index}, "read-tree", commit); err == nil {
		_, err = runWith(ctx, root, []string{index}, "checkout-index", "--all", "--prefix="+to+"/")
	}
	if err != nil {
		return fmt.Errorf("check out revision '%s' of %s: %w", revision, root, err)
	}
	return nil
}
