package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/testscript"

	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/registrytest"
)

// What the registries with a lock on the door ask for.
const (
	registryUser     = "tester"
	registryPassword = "hush-hush"
)

// registry [KIND] [auth|tls] starts an empty registry, by default of the kind
// that the script runs against, and makes it the program's by UENV_CI_REGISTRY.
// $ADDRESS is its host and port. tls is for kinds that run in the process.
func cmdRegistry(ts *testscript.TestScript, neg bool, args []string) {
	s := stateOf(ts)
	kind, guard := s.kind, ""
	for _, arg := range args {
		if arg == "auth" || arg == "tls" {
			guard = arg
		} else {
			kind = registrytest.Kind(arg)
		}
	}
	usage(ts, !neg && kind != "", "registry [KIND] [auth|tls]")
	if kind == layout {
		ts.Setenv("UENV_CI_REGISTRY", "oci:"+ts.MkAbs("registry"))
		return
	}
	around := []registrytest.Middleware{s.breakable, s.counter.Middleware()}
	scheme, address := "", ""
	switch guard {
	case "tls":
		var caFile string
		address, caFile = registrytest.ServeTLS(s.t, registrytest.Handler(kind), around...)
		ts.Setenv("CA_FILE", caFile)
		scheme = "https://"
	case "auth":
		address = registrytest.Start(s.t, kind, append(around, registrytest.Basic(registryUser, registryPassword))...)
	default:
		address = registrytest.Start(s.t, kind, around...)
	}
	ts.Setenv("ADDRESS", address)
	ts.Setenv("UENV_CI_REGISTRY", scheme+address+"/uenv")
}

// breakage is what stands before a registry while something is wrong with it.
type breakage struct {
	sound  http.Handler
	broken atomic.Pointer[http.Handler]
}

func (s *state) breakable(next http.Handler) http.Handler {
	s.breakage.sound = next
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if broken := s.breakage.broken.Load(); broken != nil {
			(*broken).ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ways in which a registry can be broken.
var ways = map[string]registrytest.Rule{
	"html":    {Fault: registrytest.HTML},
	"cuts":    {Method: http.MethodGet, Path: "/blobs/", Fault: registrytest.ResetAfter(2000)},
	"stalls":  {Method: http.MethodGet, Path: "/blobs/", Fault: registrytest.ResetAfter(0)},
	"lies":    {Method: http.MethodGet, Path: "/blobs/", Fault: registrytest.FlipBit(3000)}, // beyond the metadata
	"forges":  {Method: http.MethodGet, Path: "/blobs/", Fault: registrytest.FlipBit(200)},
	"flaky":   {Times: 2, Fault: registrytest.Status(http.StatusServiceUnavailable, "Retry-After: 0")},
	"refuses": {Fault: registrytest.Status(http.StatusForbidden)},
	"is full": {Method: http.MethodPost, Path: "/blobs/uploads", Fault: registrytest.Status(http.StatusForbidden)},
}

// breaks WAY breaks the registry from now on; "breaks not" mends it.
func cmdBreaks(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "breaks WAY")
	b := &stateOf(ts).breakage
	if args[0] == "not" {
		b.broken.Store(nil)
		return
	}
	rule, ok := ways[args[0]]
	if !ok || b.sound == nil {
		ts.Fatalf("breaks %s: no such way, or no registry with a server", args[0])
	}
	broken := registrytest.Faults(rule)(b.sound)
	b.broken.Store(&broken)
}

// requests KIND MAX checks that the registry has seen no more requests of a kind,
// such as "PUT blobs/uploads", since "requests reset".
func cmdRequests(ts *testscript.TestScript, neg bool, args []string) {
	counter := &stateOf(ts).counter
	if len(args) == 1 && args[0] == "reset" {
		counter.Reset()
		return
	}
	usage(ts, !neg && len(args) == 2, "requests KIND MAX")
	most, err := strconv.Atoi(args[1])
	ts.Check(err)
	if got := counter.Count(args[0]); got > most {
		ts.Fatalf("%d requests %s, not %d at most; all of them:\n%s", got, args[0], most, counter)
	}
}

// craft makes what the program itself refuses to make:
//
//	craft image FILE LABEL [TITLE]   an image without uenv/meta, its layer titled TITLE
//	craft meta LABEL ENTRY...        uenv/meta whose archive has these names; NAME->TARGET is a link
func cmdCraft(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) >= 3, "craft image|meta ...")
	ctx := context.Background()
	switch args[0] {
	case "image":
		title := meta.ImageTitle
		if len(args) > 3 {
			title = args[3]
		}
		repo, l := repository(ts, args[2])
		path := ts.MkAbs(args[1])
		data, err := os.ReadFile(path)
		ts.Check(err)
		layer := registry.FileLayer(path, title, digest.FromBytes(data), int64(len(data)))
		// Another name makes another image, or they would share a place in the
		// local repository.
		annotations := map[string]string{ocispec.AnnotationCreated: craftedAt, ocispec.AnnotationDescription: args[2]}
		d, err := repo.Push(ctx, registry.Artifact{Type: meta.TypeImage, Layers: []registry.Layer{layer}, Annotations: annotations})
		ts.Check(err)
		ts.Check(repo.Tag(ctx, d, l.Tag))
	case "meta":
		repo, l := repository(ts, args[1])
		subject, err := repo.Resolve(ctx, l.Tag)
		ts.Check(err)
		_, err = repo.Push(ctx, registry.Artifact{
			Type: meta.TypeMeta, Subject: &subject, Layers: []registry.Layer{archive(ts, args[2:])},
			Annotations: map[string]string{ocispec.AnnotationCreated: craftedAt},
		})
		ts.Check(err)
	default:
		ts.Fatalf("cannot craft %q", args[0])
	}
}

const craftedAt = "2026-01-01T00:00:00Z"

func repository(ts *testscript.TestScript, text string) (*registry.Repository, label.Label) {
	l, err := label.Parse(text)
	ts.Check(err)
	reg, err := registry.Open(ts.Getenv("UENV_CI_REGISTRY"), registry.Options{})
	ts.Check(err)
	repo, err := reg.Repository(l.Repository())
	ts.Check(err)
	return repo, l
}

// archive makes a directory layer titled "meta" with any names in it.
func archive(ts *testscript.TestScript, entries []string) registry.Layer {
	var content bytes.Buffer
	w := tar.NewWriter(&content)
	for _, entry := range entries {
		name, target, link := strings.Cut(entry, "->")
		header := &tar.Header{Name: name, Mode: 0o644, Typeflag: tar.TypeReg, Size: int64(len("content"))}
		if link {
			header.Typeflag, header.Linkname, header.Size = tar.TypeSymlink, target, 0
		}
		ts.Check(w.WriteHeader(header))
		if !link {
			_, err := w.Write([]byte("content"))
			ts.Check(err)
		}
	}
	ts.Check(w.Close())
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := z.Write(content.Bytes())
	ts.Check(err)
	ts.Check(z.Close())
	layer := registry.BytesLayer("meta", ocispec.MediaTypeImageLayerGzip, packed.Bytes())
	layer.Descriptor.Annotations["io.deis.oras.content.unpack"] = "true"
	layer.Descriptor.Annotations["io.deis.oras.content.digest"] = digest.FromBytes(content.Bytes()).String()
	return layer
}

// blob NAME LABEL names the file of an image's squashfs in a layout, as $NAME.
func cmdBlob(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "blob NAME LABEL")
	repo, l := repository(ts, args[1])
	d, err := repo.Resolve(context.Background(), l.Tag)
	ts.Check(err)
	m, _, err := repo.Manifest(context.Background(), d)
	ts.Check(err)
	dir, _ := strings.CutPrefix(ts.Getenv("UENV_CI_REGISTRY"), "oci:")
	ts.Setenv(args[0], filepath.Join(dir, l.Repository(), "blobs", "sha256", m.Layers[0].Digest.Encoded()))
}
