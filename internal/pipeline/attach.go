package pipeline

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"uenv-ci.dev/internal/git"
	"uenv-ci.dev/internal/image"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/plan"
	"uenv-ci.dev/internal/registry"
)

// attach adds the documents about a build to its image.
func (b *imageBuild) attach(ctx context.Context, found Found) error {
	finished := meta.At(time.Now())
	statement, err := b.statement(ctx, found, finished)
	if err != nil {
		return err
	}
	data, err := statement.Encode()
	if err != nil {
		return err
	}
	err = b.attachDocument(ctx, found, image.Attachment{
		Type: meta.TypeProvenance, Created: finished.Time,
		Layers: []registry.Layer{registry.BytesLayer(meta.ProvenanceTitle, meta.MediaTypeStatement, data)},
	})
	if err != nil || b.Restricted || len(b.done.Report.Packages) == 0 {
		return err
	}
	if data, err = b.sbom(found).Encode(); err != nil {
		return err
	}
	return b.attachDocument(ctx, found, image.Attachment{
		Type: meta.TypeSBOM, Created: b.Pack.Created,
		Layers: []registry.Layer{registry.BytesLayer(meta.SBOMTitle, meta.TypeSBOM, data)},
	})
}

func (b *imageBuild) attachDocument(ctx context.Context, to Found, a image.Attachment) error {
	desc, err := image.Attach(ctx, to.Repo, to.Descriptor, a)
	if err != nil {
		return err
	}
	b.done.Attached = append(b.done.Attached, Attached{a.Type, desc.Digest})
	return nil
}

// sbom lists the packages of the image.
func (b *imageBuild) sbom(found Found) meta.SBOM {
	in := meta.SBOMInput{
		Name: b.done.Label.Name, Version: b.done.Label.Version, Image: found.Descriptor.Digest, File: b.done.Image.Digest,
		Created: b.Pack.Created, Tool: "uenv-ci " + cmp.Or(b.Versions["uenv-ci"], "devel"),
	}
	for _, p := range b.done.Report.Packages {
		in.Packages = append(in.Packages, meta.Package{Name: p.Name, Version: p.Version, Hash: p.Hash, External: p.External})
	}
	return meta.NewSBOM(in)
}

// statement says from what and how the image was made. Of variables it has only
// the names: a value may be secret whatever it was meant to be.
func (b *imageBuild) statement(ctx context.Context, found Found, finished meta.Time) (meta.Provenance, error) {
	p := meta.NewProvenance(meta.BuildType, b.Versions)
	p.MadeImage(found.Repo.Name(), found.Descriptor.Digest, b.done.Image.Digest)
	p.Predicate.BuildDefinition.ExternalParameters = map[string]any{
		"recipe": b.in.Recipe.Name, "label": b.done.Label.String(), "system": b.Build.System, "uarch": b.Build.UArch,
		"mount": b.in.Mount, "packing": b.done.Image.Codec, "created": b.Pack.Created.UTC().Format(time.RFC3339),
		"variables": append([]string{}, slices.Sorted(maps.Keys(b.Key.Variables))...),
	}
	p.Predicate.BuildDefinition.InternalParameters = map[string]any{
		"host": host(), "sandbox": b.done.Report.Sandbox, "key": b.done.Key, "stackFormat": plan.StackFormat,
	}
	p.Predicate.RunDetails.Metadata = meta.BuildMetadata{InvocationID: b.Invocation, StartedOn: b.done.Started, FinishedOn: &finished}
	if err := dependsOn(ctx, &p, "recipe", b.in.Recipe.Dir, b.done.recipe); err != nil {
		return p, err
	}
	if b.in.Cluster != nil {
		if err := dependsOn(ctx, &p, "cluster", b.in.Cluster.Dir, b.done.cluster); err != nil {
			return p, err
		}
	}
	b.dependsOnSources(&p)
	return p, nil
}

// dependsOnSources records Spack, as it was used, and the package repositories.
func (b *imageBuild) dependsOnSources(p *meta.Provenance) {
	used := b.done.Report.Spack
	for i, s := range b.done.Sources {
		r := meta.Resource{Name: s.Name, URI: "git+" + git.WithoutCredentials(s.Repo), Annotations: map[string]any{"reference": s.Ref}}
		commit := s.Commit
		if i == 0 && used != nil {
			r.Annotations["version"] = used.Version
			if commit == "" || !strings.HasPrefix(used.Commit, commit) {
				r.URI = "" // it may come from anywhere
			}
			commit = used.Commit
		}
		p.DependsOn(r, commit)
	}
}

// host describes this machine.
func host() map[string]string {
	h := map[string]string{"os": runtime.GOOS, "arch": runtime.GOARCH}
	if name, err := os.Hostname(); err == nil {
		h["name"] = name
	}
	if kernel, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		h["kernel"] = string(bytes.TrimSpace(kernel))
	}
	return h
}
