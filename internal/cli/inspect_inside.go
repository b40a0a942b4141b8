package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/image"
	"uenv-ci.dev/internal/pipeline"
	"uenv-ci.dev/internal/squashfs"
)

// insideResult is what an image has at a path.
type insideResult struct {
	Path    string      `json:"path"`
	Entries []insideRow `json:"entries"` // of a directory, or the one other thing
}

type insideRow struct {
	Name   string `json:"name"`
	Type   string `json:"type"` // file, directory, link or special
	Mode   string `json:"mode"`
	Size   int64  `json:"size"`
	Target string `json:"target,omitempty"` // of a link
}

func (r insideResult) text(p *printer) {
	var rows [][]string
	for _, e := range r.Entries {
		name := e.Name
		if e.Target != "" {
			name += " -> " + e.Target
		}
		rows = append(rows, []string{e.Mode, event.FormatBytes(e.Size), name})
	}
	p.rows(rows, []int{1})
}

// inspectInside lists a directory of an image, or writes out a file of it.
func (in *invocation) inspectInside(ctx context.Context) (result, error) {
	m, err := in.openInside(ctx)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	name := path.Clean(strings.TrimLeft(in.arg(1), "/"))
	info, err := m.Stat(name)
	if err == nil && info.IsDir() {
		return listInside(m, name)
	}
	if err != nil {
		return nil, insideError(in.arg(0), err)
	}
	if in.format == "json" || !info.Mode().IsRegular() {
		return insideResult{name, []insideRow{rowOf(path.Base(name), info)}}, nil
	}
	f, err := m.Open(name)
	if err != nil {
		return nil, insideError(in.arg(0), err)
	}
	defer f.Close()
	if _, err := io.Copy(in.stdout, f); err != nil {
		return nil, insideError(in.arg(0), err)
	}
	return nil, nil
}

func insideError(what string, err error) error {
	kind := fault.KindOf(err)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
		kind = fault.NotFound
	}
	return fault.Wrap(kind, err, "inspect %s", what)
}

func listInside(m *squashfs.Image, name string) (result, error) {
	entries, err := m.ReadDir(name)
	if err != nil {
		return nil, insideError(name, err)
	}
	r := insideResult{name, []insideRow{}}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, insideError(name, err)
		}
		r.Entries = append(r.Entries, rowOf(e.Name(), info))
	}
	return r, nil
}

func rowOf(name string, info fs.FileInfo) insideRow {
	row := insideRow{Name: name, Type: "special", Mode: info.Mode().String(), Size: info.Size()}
	switch info.Mode().Type() {
	case 0:
		row.Type = "file"
	case fs.ModeDir:
		row.Type, row.Size = "directory", 0
	case fs.ModeSymlink:
		row.Type = "link"
	}
	if s, ok := info.Sys().(*squashfs.Stat); ok {
		row.Target = s.Target
	}
	return row
}

// openInside opens the image that the first argument names, wherever it is.
func (in *invocation) openInside(ctx context.Context) (*squashfs.Image, error) {
	if isPath(in.arg(0)) {
		return in.openImage()
	}
	l, err := in.hereLabel(0, "")
	if err != nil {
		return nil, err
	}
	if l.Namespace == "" {
		if local, err := in.runnable(ctx, 0); err == nil {
			return squashfs.Open(local.Path)
		}
	}
	found, err := in.located(ctx, l.WithNamespace(in.deploy()))
	if err != nil {
		return nil, err
	}
	manifest, err := image.Read(ctx, found.Repo, found.Descriptor)
	if err != nil {
		return nil, fmt.Errorf("inspect %s: %w", found.Label, err)
	}
	return image.Inside(ctx, found.Repo, manifest.Layer)
}

// envInside reads the metadata in an image to which none is attached.
func (r *inspectResult) envInside(ctx context.Context, found pipeline.Found) error {
	if r.Env != nil {
		return nil
	}
	manifest, err := image.Read(ctx, found.Repo, found.Descriptor)
	if err != nil {
		return err
	}
	env, err := image.EnvInside(ctx, found.Repo, manifest.Layer)
	switch fault.KindOf(err) {
	case fault.Network, fault.Interrupted, fault.Unauthorized:
		return err
	}
	if err != nil {
		r.Problems = append(r.Problems, err.Error())
		return nil
	}
	r.Env = &env
	if r.Mount == "" {
		r.Mount = env.Mount
	}
	return nil
}
