package stack

import (
	"path"

	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/yamlpos"
)

// mirrorsV1 writes mirrors.yaml if there is a build cache, the only mirror that
// version 1 knows; it is always pushed to.
func (r *renderer) mirrorsV1() {
	m := r.in.Mirrors
	if m == nil || m.BuildCache == nil {
		return
	}
	r.yaml("config/mirrors.yaml", mirrorsFile(m))
	r.tree.Caches = Caches{Mirror: m.BuildCache.Name, Push: true}
	if m.BuildCache.Key != "" {
		r.tree.Caches.Keys = []string{m.BuildCache.Key}
	}
}

// mirrorsV2 writes the mirrors, keys, bootstrap mirror and concretization cache
// of versions 2 and 3. The source cache is part of config.yaml.
func (r *renderer) mirrorsV2() {
	m := r.in.Mirrors
	if m == nil {
		m = &site.Mirrors{}
	}
	r.yaml("config/mirrors.yaml", mirrorsFile(m))
	if m.BuildCache != nil {
		r.tree.Caches.Mirror, r.tree.Caches.Push = m.BuildCache.Name, m.BuildCache.Push
	}
	for _, key := range m.Keys {
		file := File{Path: path.Join("config", key.Path), Mode: 0o644, Data: key.Data}
		if key.Private {
			file.Mode = 0o600
		}
		r.tree.Files = append(r.tree.Files, file)
		r.tree.Caches.Keys = append(r.tree.Caches.Keys, file.Path)
	}
	r.concretizationCache(m.ConcretizationCache)
	if m.Bootstrap != nil {
		r.bootstrap(m.Bootstrap)
	}
}

func mirrorsFile(m *site.Mirrors) *yamlpos.Map {
	mirrors := &yamlpos.Map{}
	if m.BuildCache != nil {
		mirrors.Set(m.BuildCache.Name, m.BuildCache.Entry)
	}
	for _, source := range m.Sources {
		mirrors.Set(source.Name, source.Entry)
	}
	return yamlpos.NewMap("mirrors", mirrors)
}

func (r *renderer) concretizationCache(dir string) {
	switch {
	case dir == "":
	case !r.version.atLeast(1, 1):
		r.Warn(nil, "concretization-cache", "",
			"Spack %s has no concretization cache (1.1 and newer have): it is not configured", r.version)
	default:
		cache := yamlpos.NewMap("enable", true, "url", dir)
		r.yaml("config/concretizer.yaml", yamlpos.NewMap("concretizer", yamlpos.NewMap("concretization_cache", cache)))
	}
}

// bootstrap makes Spack fetch what it needs itself from a mirror: a remote one
// through a description written here, a local one through its own descriptions.
func (r *renderer) bootstrap(b *site.Bootstrap) {
	var sources []any
	trusted := &yamlpos.Map{}
	add := func(name, metadata string) {
		sources = append(sources, yamlpos.NewMap("name", name, "metadata", metadata))
		trusted.Set(name, true)
	}
	if b.URL != "" {
		const dir = "config/bootstrap/bootstrap-mirror"
		r.yaml(dir+"/metadata.yaml", yamlpos.NewMap("type", "install", "info", yamlpos.NewMap("url", b.URL)))
		add("bootstrap-mirror", path.Join(r.tree.BuildDir, dir))
	}
	for _, kind := range b.Metadata {
		add("bootstrap-"+kind, b.Root+"/metadata/"+kind)
	}
	r.yaml("config/bootstrap.yaml", yamlpos.NewMap("bootstrap", yamlpos.NewMap("sources", sources, "trusted", trusted)))
}

// spackConfig is config.yaml as far as mirrors decide it.
func (r *renderer) spackConfig() *yamlpos.Map {
	config := &yamlpos.Map{}
	if r.in.Mirrors != nil && r.in.Mirrors.SourceCache != "" {
		config.Set("source_cache", r.in.Mirrors.SourceCache)
	}
	return config
}
