package pipeline

import (
	"bytes"
	"cmp"
	"context"
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
	data, err := b.statement(found, finished).Encode()
	if err != nil {
		return err
	}
	err = b.attachDocument(ctx, found, image.Attachment{
		Type: meta.TypeProvenance, Created: finished.Time,
		Layers: []registry.Layer{registry.BytesLayer(meta.ProvenanceTitle, meta.MediaTypeStatement, data)},
	})
	if err != nil || b.Build.Restricted || len(b.done.Report.Packages) == 0 {
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

// attachDocument attaches a document, unless that was done before something else
// failed: one that tells of times would be there twice.
func (b *imageBuild) attachDocument(ctx context.Context, to Found, a image.Attachment) error {
	if slices.ContainsFunc(b.done.Attached, func(d Attached) bool { return d.Type == a.Type }) {
		return nil
	}
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
		Created: b.Pack.Created, Tool: "uenv-ci " + cmp.Or(b.done.Builder["uenv-ci"], "devel"),
	}
	for _, p := range b.done.Report.Packages {
		in.Packages = append(in.Packages, meta.Package{Name: p.Name, Version: p.Version, Hash: p.Hash, External: p.External})
	}
	return meta.NewSBOM(in)
}

// statement says from what and how the image was made. Of variables it has only
// the names: a value may be secret whatever it was meant to be.
func (b *imageBuild) statement(found Found, finished meta.Time) meta.Provenance {
	in := b.done.Inputs
	p := meta.NewProvenance(meta.BuildType, b.done.Builder)
	p.MadeImage(found.Repo.Name(), found.Descriptor.Digest, b.done.Image.Digest)
	p.Predicate.BuildDefinition.ExternalParameters = map[string]any{
		"recipe": b.done.Report.Recipe, "label": b.done.Label.String(), "system": in.System, "uarch": in.UArch,
		"mount": in.Mount, "packing": b.done.Image.Codec, "created": in.Created, "variables": in.Variables,
	}
	p.Predicate.BuildDefinition.InternalParameters = map[string]any{
		"host": b.done.Host, "sandbox": b.done.Report.Sandbox, "key": b.done.Key, "stackFormat": plan.StackFormat,
	}
	p.Predicate.RunDetails.Metadata = meta.BuildMetadata{InvocationID: b.done.Invocation, StartedOn: b.done.Started, FinishedOn: &finished}
	p.DependsOn(in.Recipe.resource("recipe", recipeDigest), in.Recipe.Commit)
	if in.Cluster != nil {
		p.DependsOn(in.Cluster.resource("cluster", clusterDigest), in.Cluster.Commit)
	}
	b.dependsOnSources(&p)
	return p
}

// Names of the digests of the files of a recipe and of a cluster configuration:
// not of the whole directory in the second case, only of what the image depends on.
const (
	recipeDigest  = "dirHash"
	clusterDigest = "uenvCiFiles"
)

// resource describes the directory in provenance.
func (o Origin) resource(name, digestName string) meta.Resource {
	r := meta.Resource{Name: name, Digest: map[string]string{digestName: o.Files}}
	if o.Commit == "" {
		return r
	}
	r.Annotations = map[string]any{"path": o.Path, "dirty": o.Dirty}
	if o.Remote != "" {
		r.URI = "git+" + o.Remote
	}
	return r
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
