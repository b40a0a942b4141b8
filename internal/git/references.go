package git

import (
	"context"
	"strings"

	"uenv-ci.dev/internal/fault"
)

// References are the commits of a remote repository's branches and tags, by full
// name: refs/heads/…, refs/tags/….
type References map[string]string

// ListRemote asks a remote repository for all its branches and tags at once,
// which takes hardly longer than asking for one.
func ListRemote(ctx context.Context, url string) (References, error) {
	if strings.HasPrefix(url, "-") {
		return nil, fault.New(fault.Invalid, "list the branches of %q: not a repository", url)
	}
	out, err := run(ctx, ".", "ls-remote", "--quiet", "--heads", "--tags", "--", url)
	if err != nil {
		return nil, fault.Wrap(fault.Network, err, "list the branches of %s", WithoutCredentials(url))
	}
	return parseReferences(out), nil
}

// parseReferences reads what ls-remote prints. Of an annotated tag the commit
// counts, which follows under the tag's name with "^{}".
func parseReferences(out string) References {
	refs := References{}
	for line := range strings.Lines(out) {
		commit, name, _ := strings.Cut(strings.TrimSpace(line), "\t")
		name = strings.TrimSuffix(name, "^{}")
		if IsCommit(commit) {
			refs[name] = commit
		}
	}
	return refs
}

// Resolve returns the commit that a branch or tag names, "" if there is neither.
// A branch goes before a tag of the same name.
func (r References) Resolve(reference string) string {
	for _, name := range []string{"refs/heads/" + reference, "refs/tags/" + reference} {
		if commit := r[name]; commit != "" {
			return commit
		}
	}
	return ""
}
