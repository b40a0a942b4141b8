package build

import (
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/stack"
)

// writeEnv writes meta/env.json: what the build tree said of the image when it was
// made, with the views as they came out.
func (j *job) writeEnv() error {
	const template = "store/meta/env.json.in"
	i := slices.IndexFunc(j.tree.Files, func(f stack.File) bool { return f.Path == template })
	if i < 0 {
		return fmt.Errorf("write env.json: no %s", template)
	}
	env, err := meta.ParseEnv(j.tree.Files[i].Data)
	if err != nil {
		return fmt.Errorf("write env.json: %w", err)
	}
	env.Views = j.views
	if j.tree.Modules.Root != "" {
		env.Views["modules"] = meta.ModulesView(j.mount())
	}
	if j.spackScalars != nil {
		env.Views["spack"] = meta.UpstreamView(j.mount(), j.spackScalars)
	}
	text, err := env.Encode()
	if err != nil {
		return fmt.Errorf("write env.json: %w", err)
	}
	if err := j.cell.stored.write(meta.EnvFile, text, 0o644); err != nil {
		return fmt.Errorf("write env.json: %w", err)
	}
	return nil
}

// env reads meta/env.json, which a hook may have changed, as clients will read it.
func (j *job) env() (meta.Env, error) {
	data, err := j.cell.stored.read(meta.EnvFile)
	if err == nil {
		err = j.cell.stored.isAt(j.cell.store())
	}
	if err != nil {
		return meta.Env{}, fmt.Errorf("read what was built: %w", err)
	}
	env, err := meta.ParseEnv(data)
	if err != nil {
		return meta.Env{}, fmt.Errorf("read what was built: %w", err)
	}
	return env, nil
}

// prefixPaths adds the directories that a view puts in front of variables: those
// that exist and that the variable does not list yet.
func prefixPaths(vars meta.Variables, v stack.View, isDir func(string) bool) meta.Variables {
	added := meta.Variables{List: map[string][]meta.ListOp{}}
	for _, p := range v.PrefixPaths {
		listed := map[string]bool{}
		for _, op := range vars.List[p.Variable] {
			for _, value := range op.Value {
				listed[value] = true
			}
		}
		var found []string
		for _, dir := range p.Dirs {
			if dir = path.Join(v.Root, dir); !listed[dir] && isDir(dir) {
				found = append(found, dir)
			}
		}
		if len(found) > 0 {
			added.List[p.Variable] = append(added.List[p.Variable], meta.ListOp{Op: meta.OpPrepend, Value: found})
		}
	}
	return vars.Overlay(added)
}

// maxLinks is how many links a path may lead through, as in the kernel.
const maxLinks = 40

// isDir tells whether a path below the mount point is a directory.
func (j *job) isDir(path string) bool {
	name, ok := locate(j.cell.stored, j.mount(), path)
	if !ok {
		return false
	}
	info, err := j.cell.stored.Lstat(name)
	return err == nil && info.IsDir()
}

// locate returns the name in the store of a path that programs see below the mount
// point. Links of views are absolute, so they hold at the mount point only. It is
// not ok if links lead out of the store.
func locate(store foreign, mount, path string) (name string, ok bool) {
	for range maxLinks {
		rest, below := strings.CutPrefix(filepath.Clean(path)+"/", mount+"/")
		if !below {
			return "", false
		}
		to := firstLink(store, mount, rest)
		if to == "" {
			return filepath.Clean(rest), true
		}
		path = to
	}
	return "", false
}

// firstLink follows the first link on the way to mount/rest: it returns the path
// that takes the place of the whole one, "" if there is no link.
func firstLink(store foreign, mount, rest string) string {
	at := ""
	names := strings.Split(strings.Trim(rest, "/"), "/")
	for i, name := range names {
		to, err := store.Readlink(filepath.Join(at, name))
		if err != nil {
			at = filepath.Join(at, name)
			continue
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(mount, at, to)
		}
		return filepath.Join(append([]string{to}, names[i+1:]...)...)
	}
	return ""
}
