package e2e

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/catalog"
	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/image"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/localrepo"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/pipeline"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/registrytest"
)

// Sizes of the images: a download of the small one takes several requests, an
// upload of the large one can be resumed.
const (
	smallImage = 5 << 20
	largeImage = 17 << 20
)

// stage is where the trials of one fault are played: one server, before which
// everything changes.
type stage struct {
	t                  *testing.T
	address            string
	handler            atomic.Pointer[http.Handler]
	tiny, small, large image.File
	changed            image.File // large, with a part of it new; empty until it is asked for

	rehearsed map[registrytest.Kind]int // requests that a fault may befall
}

func newStage(t *testing.T) *stage {
	s := &stage{t: t, rehearsed: map[registrytest.Kind]int{}}
	s.address = registrytest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		(*s.handler.Load()).ServeHTTP(w, r)
	}))
	s.tiny = packRandom(t, 64<<10, 0)
	s.small, s.large = packRandom(t, smallImage, 0), packRandom(t, largeImage, 0)
	return s
}

// packRandom makes an image that has about size bytes, of which changed are not those
// of others.
func packRandom(t *testing.T, size, changed int) image.File {
	t.Helper()
	root, data := t.TempDir(), make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(data)
	_, _ = rand.NewChaCha8([32]byte{4}).Read(data[size/3:][:changed])
	err := errors.Join(
		os.Mkdir(filepath.Join(root, "meta"), 0o755),
		os.WriteFile(filepath.Join(root, "meta", "env.json"), []byte(`{"name":"x","mount":"/user-environment","views":{"default":{}}}`), 0o644),
		os.WriteFile(filepath.Join(root, "data"), data, 0o644),
	)
	file, packErr := image.Pack(t.Context(), root, filepath.Join(t.TempDir(), "store.squashfs"), image.PackOptions{Created: packedAt})
	if err := errors.Join(err, packErr); err != nil {
		t.Fatal(err)
	}
	return file
}

var packedAt = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// road is the way of one image in one trial: a new registry, a new local
// repository.
type road struct {
	ctx    context.Context
	stage  *stage
	file   image.File
	kind   registrytest.Kind
	sound  http.Handler
	guard  registrytest.Middleware // nil is none
	dir    string                  // goes with the road
	repo   string
	retry  registry.RetryOptions
	stall  time.Duration // how long a faulty registry is waited for; 0 is as long as others
	random *rand.Rand
}

// road starts an empty registry of any kind that runs in the process.
func (s *stage) road(random *rand.Rand, large bool) *road {
	dir, err := os.MkdirTemp("", "uenv-ci-road-")
	if err != nil {
		s.t.Fatal(err)
	}
	w := &road{
		ctx: s.t.Context(), stage: s, file: s.small, random: random, dir: dir, repo: filepath.Join(dir, "repo"),
		retry: registry.RetryOptions{Attempts: 4, Wait: time.Millisecond, MaxWait: 5 * time.Millisecond, Stall: 10 * time.Second},
	}
	if large {
		w.file = s.large
	}
	w.kind = registrytest.InProcess[random.IntN(len(registrytest.InProcess))]
	w.renew()
	return w
}

// renew empties the registry and mends it.
func (w *road) renew() {
	w.sound = entire(registrytest.Handler(w.kind))
	w.mend()
}

// entire lets only whole manifests through. The libraries that play registries here
// store what there is of one if the client dies while it sends it; registries that
// are products refuse it.
func entire(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") {
			data, err := io.ReadAll(r.Body)
			if err != nil {
				panic(http.ErrAbortHandler)
			}
			r.Body = io.NopCloser(bytes.NewReader(data))
		}
		next.ServeHTTP(w, r)
	})
}

func (w *road) mend() { w.stage.handler.Store(&w.sound) }

func (w *road) serve(h http.Handler) {
	if w.guard != nil {
		h = w.guard(h)
	}
	w.stage.handler.Store(&h)
}

// breaks lets a fault befall requests from now on.
func (w *road) breaks(rules ...registrytest.Rule) { w.serve(registrytest.Faults(rules...)(w.sound)) }

// end forgets the registry and what was pulled.
func (w *road) end() {
	gone := http.NotFoundHandler()
	w.stage.handler.Store(&gone)
	_ = os.RemoveAll(w.dir)
}

// rehearse goes the whole way without a fault, once for each kind of registry, and
// counts the requests that the rule would befall.
func (w *road) rehearse(rule registrytest.Rule) (int, error) {
	if n, done := w.stage.rehearsed[w.kind]; done {
		return n, nil
	}
	var requests atomic.Int64
	rule.Fault = func(rw http.ResponseWriter, r *http.Request, next http.Handler) {
		requests.Add(1)
		next.ServeHTTP(rw, r)
	}
	w.breaks(rule)
	for _, s := range steps {
		if err := s.run(w); err != nil {
			return 0, fmt.Errorf("%s without any fault: %w", s.name, err)
		}
	}
	w.renew()
	w.stage.rehearsed[w.kind] = int(requests.Load())
	return w.stage.rehearsed[w.kind], os.RemoveAll(w.repo)
}

// step is one part of the way.
type step struct {
	name string
	run  func(w *road) error
}

var steps = []step{{"push", (*road).push}, {"attach", (*road).attach}, {"promote", (*road).promote}, {"pull", (*road).pull}}

// travel goes the whole way. A step that fails is run again when the registry is
// sound.
func (w *road) travel() (outcome, error) {
	broken, result := *w.stage.handler.Load(), succeeded
	patient := w.retry.Stall
	for _, s := range steps {
		w.retry.Stall = cmp.Or(w.stall, patient)
		err := s.run(w)
		w.retry.Stall = patient
		w.mend()
		if checkErr := w.check(); checkErr != nil {
			return bad, fmt.Errorf("after %s, which ended with %w: %w", s.name, orDone(err), checkErr)
		}
		if err != nil {
			result = recovered
			if err := clear(err); err != nil {
				return bad, fmt.Errorf("%s: %w", s.name, err)
			}
			if err := s.run(w); err != nil {
				return bad, fmt.Errorf("%s, run again: %w", s.name, err)
			}
			if err := w.check(); err != nil {
				return bad, fmt.Errorf("%s, run again: %w", s.name, err)
			}
		}
		w.stage.handler.Store(&broken)
	}
	w.mend()
	return result, w.arrived()
}

var errDone = errors.New("success")

func orDone(err error) error {
	if err == nil {
		return errDone
	}
	return err
}

// clear returns an error if err does not say what is wrong: everything that a
// registry or a disk can do has a kind of its own, and text.
func clear(err error) error {
	kind := fault.KindOf(err)
	if kind == fault.Network || kind == fault.Unauthorized || kind == fault.Interrupted || fault.HintOf(err) != "" {
		return nil
	}
	return fmt.Errorf("not a clear error, of kind %v: %w", kind, err)
}

const (
	builtLabel    = "build::hello/1.0:1@daint%gh200"
	deployedLabel = "deploy::hello/1.0:v1@daint%gh200"
)

// open opens the registry as a new process does.
func (w *road) open() (*registry.Registry, error) {
	return registry.Open(w.stage.address, registry.Options{Retry: w.retry, Events: func(event.Event) {}})
}

// openFor opens the registry for a label.
func (w *road) openFor(text string) (*registry.Registry, label.Label, error) {
	l, err := label.Parse(text)
	if err != nil {
		return nil, l, err
	}
	reg, err := w.open()
	return reg, l, err
}

func (w *road) locate(text string) (*registry.Registry, pipeline.Found, error) {
	reg, l, err := w.openFor(text)
	if err != nil {
		return nil, pipeline.Found{}, err
	}
	found, err := pipeline.Locate(w.ctx, reg, l, "")
	return reg, found, err
}

// publish publishes the image under a label; another time makes it another one.
func (w *road) publish(text string, created time.Time) (pipeline.Found, error) {
	reg, l, err := w.openFor(text)
	if err != nil {
		return pipeline.Found{}, err
	}
	repo, err := reg.Repository(l.Repository())
	if err != nil {
		return pipeline.Found{}, err
	}
	d, err := image.Publish(w.ctx, repo, w.file, image.PublishOptions{Created: created, Tags: []string{l.Tag}})
	return pipeline.Found{Label: l, Repo: repo, Descriptor: d}, err
}

func (w *road) push() error {
	_, err := w.publish(builtLabel, packedAt)
	return err
}

func (w *road) attach() error {
	_, found, err := w.locate(builtLabel)
	if err != nil {
		return err
	}
	_, err = image.Attach(w.ctx, found.Repo, found.Descriptor, image.Attachment{
		Type: meta.TypeSBOM, Created: packedAt, Layers: []registry.Layer{registry.BytesLayer("sbom.json", "", []byte("{}"))},
	})
	return err
}

func (w *road) promote() error {
	reg, found, err := w.locate(builtLabel)
	if err != nil {
		return err
	}
	to, err := label.Parse(deployedLabel)
	if err != nil {
		return err
	}
	_, err = pipeline.Promote(w.ctx, found, reg, to, pipeline.PromoteOptions{
		Overrides: map[string]string{"tests": "none here", "uarch": "it runs nowhere"}, Who: "tester", Tool: "test",
	})
	return err
}

func (w *road) pull() error {
	_, found, err := w.locate(deployedLabel)
	if err != nil {
		return err
	}
	return w.pullFound(found)
}

func (w *road) pullFound(found pipeline.Found) error {
	local, err := localrepo.Open(w.ctx, w.repo, localrepo.Options{Create: true})
	if err != nil {
		return err
	}
	defer local.Close()
	_, err = pipeline.Pull(w.ctx, found, local, pipeline.PullOptions{})
	return err
}

// check looks at all there is: whatever happened, nothing of it may be wrong.
func (w *road) check() error {
	for _, text := range []string{builtLabel, deployedLabel} {
		if err := w.checkLabel(text); err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
	}
	return w.checkLocal()
}

// checkLabel wants an image and its metadata behind a label that there is.
func (w *road) checkLabel(text string) error {
	_, found, err := w.locate(text)
	if fault.KindOf(err) == fault.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	m, err := image.Read(w.ctx, found.Repo, found.Descriptor)
	if err != nil {
		return err
	}
	if there, err := found.Repo.Exists(w.ctx, m.Layer); err != nil || !there || m.Layer.Digest != w.file.Digest {
		return fmt.Errorf("its file %s is there: %v, %w", m.Layer.Digest, there, orDone(err))
	}
	about, err := catalog.Inspect(w.ctx, found.Repo, found.Descriptor)
	if err == nil && about.Env == nil {
		err = errors.New("it has no metadata")
	}
	return err
}

// checkLocal wants every image of the local repository to be what it must be.
func (w *road) checkLocal() error {
	if _, err := os.Stat(w.repo); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	local, err := localrepo.Open(w.ctx, w.repo, localrepo.Options{})
	if fault.KindOf(err) == fault.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	defer local.Close()
	findings, err := local.Verify(w.ctx, localrepo.VerifyOptions{})
	for _, f := range findings {
		if f.Condition != localrepo.Complete && f.Condition != localrepo.Orphaned {
			err = errors.Join(err, fmt.Errorf("local image %s is %s: %s", f.ID, f.Condition, f.Detail))
		}
	}
	return err
}

// arrived wants everything to be where it belongs in the end.
func (w *road) arrived() error {
	_, found, err := w.locate(deployedLabel)
	if err != nil {
		return err
	}
	for _, wanted := range []string{meta.TypeMeta, meta.TypeSBOM, meta.TypePromotion} {
		attached, err := found.Repo.Referrers(w.ctx, found.Descriptor, wanted)
		// A run that is killed between the record of a promotion and its entry in a
		// list leaves it to the next one to write another, where there are such lists.
		if more := len(attached) > 1 && (wanted != meta.TypePromotion || w.kind == registrytest.Referrers); err != nil || len(attached) == 0 || more {
			return fmt.Errorf("%d of %s are attached: %w", len(attached), wanted, orDone(err))
		}
	}
	return w.present(found.Descriptor)
}

// present wants the image in the local repository, under its label, complete.
func (w *road) present(d ocispec.Descriptor) error {
	local, err := localrepo.Open(w.ctx, w.repo, localrepo.Options{})
	if err != nil {
		return err
	}
	defer local.Close()
	findings, err := local.Verify(w.ctx, localrepo.VerifyOptions{Only: nil})
	if err != nil {
		return err
	}
	for _, f := range findings {
		if f.Digest == d.Digest && f.Condition == localrepo.Complete && len(f.Labels) == 1 {
			return nil
		}
	}
	return fmt.Errorf("image %s did not arrive: %v", d.Digest, findings)
}
