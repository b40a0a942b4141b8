package catalog

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/bounded"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/registry"
)

// A namespace's index is one artifact that holds what is known of all its images,
// so that finding takes one or two requests. It is for display only: before an image is
// used, its label is resolved. The index is in a namespace of its own, where clients do
// not mistake it for an image.
const (
	indexSuffix    = "-index"
	indexName      = "catalog"
	indexTag       = "latest"
	indexType      = "uenv/index"
	indexTitle     = "index.json.gz"
	indexMediaType = "application/gzip"
	indexVersion   = 1
	maxIndex       = 256 << 20 // unpacked
)

// index is the document.
type index struct {
	Version   int      `json:"version"`
	Namespace string   `json:"namespace"`
	Records   []Record `json:"records"`
}

// Rebuilt says what Rebuild has published.
type Rebuilt struct {
	Namespace  string        `json:"namespace"`
	Repository string        `json:"repository"`
	Digest     digest.Digest `json:"digest"` // of the artifact
	Labels     int           `json:"labels"`
	Bytes      int64         `json:"bytes"`
}

// Rebuild reads a namespace from the registry and publishes its index. The error is of
// kind fault.NotFound if there is nothing in it, and never was.
func Rebuild(ctx context.Context, reg *registry.Registry, namespace string, o Options) (Rebuilt, error) {
	records, err := Find(ctx, reg, label.Label{Namespace: namespace}, o)
	if err != nil {
		return Rebuilt{}, err
	}
	data, err := encodeIndex(namespace, records)
	if err != nil {
		return Rebuilt{}, fmt.Errorf("encode index: %w", err)
	}
	repo, err := indexRepository(reg, namespace)
	if err != nil {
		return Rebuilt{}, err
	}
	before, err := repo.Resolve(ctx, indexTag)
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return Rebuilt{}, err
	}
	if len(records) == 0 && before.Digest == "" { // a name with a slip
		return Rebuilt{}, fault.New(fault.NotFound, "there is no image in namespace %s of %s", namespace, reg)
	}
	desc, err := repo.Push(ctx, registry.Artifact{
		Type: indexType, Layers: []registry.Layer{registry.BytesLayer(indexTitle, indexMediaType, data)},
		Annotations: map[string]string{ocispec.AnnotationCreated: time.Now().UTC().Format(time.RFC3339)},
	})
	if err == nil {
		err = repo.Tag(ctx, desc, indexTag)
	}
	if err != nil {
		return Rebuilt{}, fmt.Errorf("publish the index of %s: %w", namespace, err)
	}
	if before.Digest != "" && before.Digest != desc.Digest {
		_ = repo.Delete(ctx, before) // many registries do not allow it, which does no harm
	}
	return Rebuilt{namespace, repo.Name(), desc.Digest, len(records), int64(len(data))}, nil
}

func indexRepository(reg *registry.Registry, namespace string) (*registry.Repository, error) {
	return reg.Repository(indexPath(namespace))
}

func indexPath(namespace string) string { return namespace + indexSuffix + "/" + indexName }

// HasIndex tells whether the index of a namespace is published, in the registry whose
// repositories open opens.
func HasIndex(ctx context.Context, open func(path string) (*registry.Repository, error), namespace string) (bool, error) {
	repo, err := open(indexPath(namespace))
	if err == nil {
		_, err = repo.Resolve(ctx, indexTag)
	}
	if fault.KindOf(err) == fault.NotFound {
		return false, nil
	}
	return err == nil, err
}

// encodeIndex gives the same bytes for the same records, so that clients see by the
// digest that their cached copy is current.
func encodeIndex(namespace string, records []Record) ([]byte, error) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	err := json.NewEncoder(z).Encode(index{indexVersion, namespace, append([]Record{}, records...)})
	if closeErr := z.Close(); err == nil {
		err = closeErr
	}
	return packed.Bytes(), err
}

func decodeIndex(data []byte, namespace string) ([]Record, error) {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, fault.New(fault.Invalid, "the index of %s: %w", namespace, err)
	}
	text, err := bounded.ReadAll(z, maxIndex)
	var doc index
	if err == nil {
		err = json.Unmarshal(text, &doc)
	}
	if err == nil && (doc.Version != indexVersion || doc.Namespace != namespace) {
		err = fmt.Errorf("version %d of namespace %q", doc.Version, doc.Namespace)
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "the index of %s: %w", namespace, err)
	}
	// Whatever it says, it becomes no path and no other namespace's image.
	records := slices.DeleteFunc(doc.Records, func(r Record) bool {
		return r.Label.Namespace != namespace || !validLabel(r.Label) || r.Digest.Validate() != nil
	})
	for i := range records {
		records[i].ID = label.ID(records[i].Digest)
	}
	return records, nil
}

func validLabel(l label.Label) bool {
	for _, part := range []string{l.Namespace, l.Name, l.Version, l.Tag, l.System, l.UArch} {
		if !label.Valid(part) {
			return false
		}
	}
	return true
}

// readIndex returns the published index of a namespace and when it was made. A
// namespace without one is of kind NotFound. The layer is fetched only if it is
// not the one in the cache.
func readIndex(ctx context.Context, reg *registry.Registry, namespace string, c cache) ([]Record, time.Time, error) {
	repo, err := indexRepository(reg, namespace)
	if err != nil {
		return nil, time.Time{}, err
	}
	desc, err := repo.Resolve(ctx, indexTag)
	if err != nil {
		return nil, time.Time{}, err
	}
	m, _, err := repo.Manifest(ctx, desc)
	if err != nil {
		return nil, time.Time{}, err
	}
	if m.ArtifactType != indexType || len(m.Layers) != 1 {
		return nil, time.Time{}, fault.New(fault.Invalid, "%s is not an index", repo)
	}
	built, _ := time.Parse(time.RFC3339, m.Annotations[ocispec.AnnotationCreated])
	data, err := indexLayer(ctx, repo, m.Layers[0], c)
	if err != nil {
		return nil, time.Time{}, err
	}
	records, err := decodeIndex(data, namespace)
	return records, built, err
}

func indexLayer(ctx context.Context, repo *registry.Repository, d ocispec.Descriptor, c cache) ([]byte, error) {
	key := repo.String()
	if data := c.readBytes(kindIndex, key); data != nil && digest.FromBytes(data) == d.Digest {
		return data, nil
	}
	if d.Size > maxIndex {
		return nil, fault.New(fault.Invalid, "the index in %s has %d bytes", repo, d.Size)
	}
	r, err := repo.Fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("fetch the index in %s: %w", repo, err)
	}
	c.writeBytes(kindIndex, key, data)
	return data, nil
}
