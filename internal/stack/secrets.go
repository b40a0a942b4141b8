package stack

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/git"
	"uenv-ci.dev/internal/yamlpos"
)

// configFile is the file of a recipe that names the repositories to clone.
const configFile = "config.yaml"

// secretURLs are the addresses in a recipe that have credentials. The image has the
// recipe in it, where everybody who can pull the image can read it.
func (r *renderer) secretURLs() []string {
	repos := []string{r.recipe.Spack.Repo}
	for _, p := range r.recipe.Spack.Packages {
		repos = append(repos, p.Repo)
	}
	var secret []string
	for _, repo := range repos {
		if git.WithoutCredentials(repo) != repo {
			secret = append(secret, repo)
		}
	}
	if len(secret) > 0 {
		r.Warn(r.recipe.Spack.Node.Get("repo"), "credentials", "leave them to git's own configuration, such as a credential helper",
			"the recipe has credentials in an address; the image gets it without")
	}
	slices.SortFunc(secret, func(a, b string) int { // what others begin with comes last
		return cmp.Or(len(b)-len(a), strings.Compare(a, b))
	})
	return slices.Compact(secret)
}

// public returns a document without the credentials of the addresses in it.
func public(value any) any {
	switch v := value.(type) {
	case string:
		return git.WithoutCredentials(v)
	case *yamlpos.Map:
		clean := v.Clone()
		for _, e := range v.Entries() {
			if key, ok := e.Key.(string); ok {
				clean.Set(key, public(e.Value))
			}
		}
		return clean
	}
	return value
}

// hideSecrets takes credentials out of the copy of a recipe.
func (c Copy) hideSecrets(dst *os.Root) error {
	if len(c.Secrets) == 0 {
		return nil
	}
	name := path.Join(c.To, configFile)
	data, err := dst.ReadFile(name)
	if err != nil {
		return err
	}
	for _, url := range c.Secrets {
		clean := git.WithoutCredentials(url)
		if !bytes.Contains(data, []byte(url)) {
			err := fault.New(fault.Invalid, "the credentials for %s cannot be left out of the image's %s", clean, configFile)
			return fault.WithHint(err, "write the address as plain text, or without credentials")
		}
		data = bytes.ReplaceAll(data, []byte(url), []byte(clean))
	}
	if err := dst.WriteFile(name, data, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
