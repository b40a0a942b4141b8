package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/image"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/localrepo"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/registrytest"
)

// makeStore fills a directory with files that do not compress; the generation of
// some of them is another one.
func makeStore(t *testing.T, changed map[int]byte) string {
	t.Helper()
	root := t.TempDir()
	sizes := rand.New(rand.NewPCG(1, 2))
	for i := range 60 {
		data := make([]byte, 50_000+sizes.IntN(600_000))
		rand.NewChaCha8([32]byte{byte(i), changed[i]}).Read(data)
		dir := filepath.Join(root, "prefix"+strconv.Itoa(i/6))
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), data, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	env := []byte(`{"name":"x","mount":"/user-environment","views":{}}`)
	if err := errors.Join(os.Mkdir(filepath.Join(root, "meta"), 0o755), os.WriteFile(filepath.Join(root, "meta/env.json"), env, 0o644)); err != nil {
		t.Fatal(err)
	}
	return root
}

// release packs and publishes a store and returns the file as well.
func release(t *testing.T, reg *registry.Registry, text, store string, o image.PublishOptions) (Found, image.File) {
	t.Helper()
	created := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	file, err := image.Pack(t.Context(), store, filepath.Join(t.TempDir(), "store.squashfs"), image.PackOptions{Created: created})
	if err != nil {
		t.Fatal(err)
	}
	l := parse(t, text)
	repo, err := reg.Repository(l.Repository())
	if err != nil {
		t.Fatal(err)
	}
	o.Created, o.Tags = created, []string{l.Tag}
	desc, err := image.Publish(t.Context(), repo, file, o)
	if err != nil {
		t.Fatal(err)
	}
	return Found{Label: l, Repo: repo, Descriptor: desc}, file
}

// checkPulled compares a pulled image with the file that was published.
func checkPulled(t *testing.T, p Pulled, file image.File) {
	t.Helper()
	got, err1 := os.ReadFile(p.Path)
	want, err2 := os.ReadFile(file.Path)
	if err1 != nil || err2 != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %d wanted; %v, %v", len(got), len(want), err1, err2)
	}
	entries, err := os.ReadDir(filepath.Dir(p.Path))
	if err != nil || len(entries) != 3 {
		t.Errorf("beside the image: %v, %v", entries, err)
	}
}

func TestPullFetchesTheDifference(t *testing.T) {
	for _, kind := range registrytest.InProcess {
		t.Run(string(kind), func(t *testing.T) {
			var counter registrytest.Counter
			reg := openRegistry(t, registrytest.Start(t, kind, counter.Middleware()))
			old, oldFile := release(t, reg, "deploy::x/1:v1@s%u", makeStore(t, nil), image.PublishOptions{})
			fresh, freshFile := release(t, reg, "deploy::x/2:v1@s%u", makeStore(t, map[int]byte{7: 1, 8: 1, 30: 1}), image.PublishOptions{})
			local := openLocal(t, t.TempDir(), nil)
			checkPulled(t, pull(t, local, old), oldFile)
			counter.Reset()
			checkPulled(t, pull(t, local, fresh), freshFile)
			// Three of sixty files changed, 5 %, and the tables.
			if counter.Bytes() > freshFile.Size/8 {
				t.Errorf("%d bytes for an image of %d", counter.Bytes(), freshFile.Size)
			}
			other := openLocal(t, t.TempDir(), nil)
			pull(t, other, old)
			counter.Reset()
			pulled, err := Pull(t.Context(), fresh, other, PullOptions{NoDifference: true})
			if err != nil {
				t.Fatal(err)
			}
			checkPulled(t, pulled, freshFile)
			if counter.Bytes() < freshFile.Size {
				t.Errorf("without difference: %d bytes", counter.Bytes())
			}
		})
	}
}

// A pull by difference that is interrupted goes on where it was, at a limited rate
// too, and does not fetch the rest of the image.
func TestInterruptedDifferenceGoesOn(t *testing.T) {
	var counter registrytest.Counter
	reg := openRegistry(t, registrytest.Start(t, registrytest.Referrers, counter.Middleware()))
	old, _ := release(t, reg, "deploy::x/1:v1@s%u", makeStore(t, nil), image.PublishOptions{})
	changed := map[int]byte{}
	for i := range 30 {
		changed[i*2] = 1
	}
	fresh, file := release(t, reg, "deploy::x/2:v1@s%u", makeStore(t, changed), image.PublishOptions{})
	local := openLocal(t, t.TempDir(), nil)
	pull(t, local, old)
	counter.Reset()
	ctx, kill := context.WithCancel(t.Context())
	_, err := Pull(ctx, fresh, local, PullOptions{Limit: 1 << 40, Connections: 1, Events: func(e event.Event) {
		if e.Kind == event.Progress && counter.Bytes() > file.Size/4 {
			kill()
		}
	}})
	if fault.KindOf(err) != fault.Interrupted {
		t.Fatalf("it was not interrupted: %v", err)
	}
	first := counter.Bytes()
	counter.Reset()
	pulled, err := Pull(t.Context(), fresh, local, PullOptions{Limit: 1 << 40})
	if err != nil {
		t.Fatal(err)
	}
	checkPulled(t, pulled, file)
	// Half of the image is new. What is fetched twice is in pieces under way.
	if all := first + counter.Bytes(); counter.Bytes() > file.Size/2 || all > file.Size*3/4 {
		t.Errorf("%d bytes, then %d, for half of %d", first, counter.Bytes(), file.Size)
	}
}

// What an image consists of is kept, as long as nobody touches it.
func TestBasesAreReadOnce(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "image")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(strings.Repeat(text, 100_000)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	c := baseCache(filepath.Join(dir, "cache[1]")) // no pattern
	first, err := c.index(t.Context(), path, digest.FromString("a"), 0)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := filepath.Glob(filepath.Join(dir, "cache*", "base-*"))
	if err != nil || len(kept) != 1 {
		t.Fatalf("kept %v, %v", kept, err)
	}
	// The same file is not read again: what is kept is what is said.
	planted, err := image.Chunks(t.Context(), os.Args[0], digest.FromString("b"), 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(kept[0], planted.Encode(), 0o600); err != nil {
		t.Fatal(err)
	}
	if again, err := c.index(t.Context(), path, digest.FromString("a"), 0); err != nil || again.Size != planted.Size {
		t.Errorf("read again: %d bytes, %v", again.Size, err)
	}
	// Neither damage of what is kept nor a change of the file goes unnoticed.
	if err := os.WriteFile(kept[0], []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if again, err := c.index(t.Context(), path, digest.FromString("a"), 0); err != nil || again.Size != first.Size {
		t.Errorf("damaged: %d bytes, %v", again.Size, err)
	}
	write("another")
	if again, err := c.index(t.Context(), path, digest.FromString("a"), 0); err != nil || again.Size == first.Size {
		t.Errorf("changed: %d bytes, %v", again.Size, err)
	}
	c.forget()
	if kept, err := filepath.Glob(filepath.Join(dir, "cache*", "base-*")); err != nil || len(kept) != 0 {
		t.Errorf("kept %v, %v", kept, err)
	}
}

func TestIndexIsSmall(t *testing.T) {
	reg := openRegistry(t, "oci:"+t.TempDir())
	found, file := release(t, reg, "deploy::x/1:v1@s%u", makeStore(t, nil), image.PublishOptions{})
	m, err := image.Read(t.Context(), found.Repo, found.Descriptor)
	if err != nil {
		t.Fatal(err)
	}
	index, err := image.FetchChunks(t.Context(), found.Repo, found.Descriptor, m.Layer)
	if err != nil || index.Size != file.Size {
		t.Fatalf("%d bytes, %v", index.Size, err)
	}
	if n := int64(len(index.Encode())); n > file.Size*15/10_000 {
		t.Errorf("%d bytes for an image of %d", n, file.Size)
	}
	restricted, _ := release(t, reg, "deploy::y/1:v1@s%u", makeStore(t, map[int]byte{1: 1}), image.PublishOptions{NoChunks: true})
	if _, err := image.FetchChunks(t.Context(), restricted.Repo, restricted.Descriptor, m.Layer); fault.KindOf(err) != fault.NotFound {
		t.Errorf("a restricted image: %v", err)
	}
}

// However wrong what is here may be, and whatever happens on the way, the image is
// right in the end.
func TestPullByDifferenceOutlivesFaults(t *testing.T) {
	ranges := func(f registrytest.Fault, skip, times int) registrytest.Rule {
		return registrytest.Rule{Method: http.MethodGet, Path: "blobs", Skip: skip, Times: times, Fault: f}
	}
	damaged := func(t *testing.T, path string) { damage(t, path, func(b []byte) []byte { b[len(b)/2] ^= 1; return b }) }
	for name, c := range map[string]struct {
		rules []registrytest.Rule
		spoil func(t *testing.T, path string)
	}{
		"the old image is damaged": {spoil: damaged},
		"the old image is cut":     {spoil: func(t *testing.T, path string) { damage(t, path, func(b []byte) []byte { return b[:len(b)/3] }) }},
		"the old image is none":    {spoil: func(t *testing.T, path string) { damage(t, path, func([]byte) []byte { return []byte("none") }) }},
		"resets":                   {rules: []registrytest.Rule{ranges(registrytest.ResetAfter(1000), 3, 3)}},
		"ranges ignored":           {rules: []registrytest.Rule{ranges(registrytest.IgnoreRange, 3, 0)}},
		"wrong ranges":             {rules: []registrytest.Rule{ranges(registrytest.WrongRange, 3, 0)}},
		"a bit flips":              {rules: []registrytest.Rule{ranges(registrytest.FlipBit(100), 4, 1)}},
		"503":                      {rules: []registrytest.Rule{ranges(registrytest.Status(503), 3, 1)}},
	} {
		t.Run(name, func(t *testing.T) {
			var broken sync.Map
			address := registrytest.Start(t, registrytest.Referrers, func(next http.Handler) http.Handler {
				faulty := registrytest.Faults(c.rules...)(next)
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if _, ok := broken.Load("now"); ok {
						faulty.ServeHTTP(w, r)
						return
					}
					next.ServeHTTP(w, r)
				})
			})
			reg := openRegistry(t, address)
			old, _ := release(t, reg, "deploy::x/1:v1@s%u", makeStore(t, nil), image.PublishOptions{})
			fresh, file := release(t, reg, "deploy::x/2:v1@s%u", makeStore(t, map[int]byte{7: 1}), image.PublishOptions{})
			local := openLocal(t, t.TempDir(), nil)
			p := pull(t, local, old)
			if c.spoil != nil {
				c.spoil(t, p.Path)
			}
			broken.Store("now", true)
			pulled, err := Pull(t.Context(), fresh, local, PullOptions{})
			if err != nil { // a clear error, and the next attempt succeeds
				if fault.KindOf(err) != fault.Network {
					t.Errorf("got %v", err)
				}
				broken.Delete("now")
				pulled = pull(t, local, fresh)
			}
			checkPulled(t, pulled, file)
		})
	}
}

// A base that lies, as a file that changes under the copy does, is found out by
// the digest of the whole.
func TestPullWithABaseThatChanges(t *testing.T) {
	reg := openRegistry(t, registrytest.Start(t, registrytest.Referrers))
	old, _ := release(t, reg, "deploy::x/1:v1@s%u", makeStore(t, nil), image.PublishOptions{})
	_, file := release(t, reg, "deploy::x/2:v1@s%u", makeStore(t, map[int]byte{7: 1}), image.PublishOptions{})
	local := openLocal(t, t.TempDir(), nil)
	p := pull(t, local, old)
	u, err := FindUpgrade(t.Context(), reg, label.Label{Namespace: "deploy", Name: "x"}, "", local, "")
	if err != nil || u.assembly == nil {
		t.Fatalf("%+v, %v", u, err)
	}
	cache := t.TempDir()
	if err := os.WriteFile(filepath.Join(cache, "base-wrong.idx"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	damage(t, p.Path, func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
	var told []string
	pulled, err := u.Pull(t.Context(), local, PullOptions{Cache: cache, Events: func(e event.Event) { told = append(told, e.Message) }})
	if err != nil {
		t.Fatal(err)
	}
	checkPulled(t, pulled, file)
	if !strings.Contains(fmt.Sprint(told), "did not match their indexes") {
		t.Errorf("told %q", told)
	}
	if _, err := os.Stat(filepath.Join(cache, "base-wrong.idx")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was wrong is kept: %v", err)
	}
}

// What the registry says of a local image is believed, so that it need not be read;
// that it is something else by now is found out, and then the rest of it is used.
func TestPullBelievesTheIndexOfABase(t *testing.T) {
	var counter registrytest.Counter
	reg := openRegistry(t, registrytest.Start(t, registrytest.Referrers, counter.Middleware()))
	old, _ := release(t, reg, "deploy::x/1:v1@s%u", makeStore(t, nil), image.PublishOptions{})
	fresh, file := release(t, reg, "deploy::x/2:v1@s%u", makeStore(t, map[int]byte{7: 1}), image.PublishOptions{})
	for name, damaged := range map[string]bool{"sound": false, "damaged": true} {
		t.Run(name, func(t *testing.T) {
			local, cache := openLocal(t, t.TempDir(), nil), t.TempDir()
			p := pull(t, local, old)
			if damaged {
				damage(t, p.Path, func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
			}
			counter.Reset()
			var told []string
			pulled, err := Pull(t.Context(), fresh, local, PullOptions{Cache: cache, Events: func(e event.Event) { told = append(told, e.Message) }})
			if err != nil {
				t.Fatal(err)
			}
			checkPulled(t, pulled, file)
			if strings.Contains(fmt.Sprint(told), "did not match their indexes") != damaged {
				t.Errorf("told %q", told)
			}
			if counter.Bytes() > file.Size/4 {
				t.Errorf("%d bytes for an image of %d", counter.Bytes(), file.Size)
			}
			if kept, err := os.ReadDir(cache); err != nil || len(kept) != 1 {
				t.Errorf("kept %v, %v", kept, err)
			}
		})
	}
}

func TestRepairFetchesOnlyWhatIsBad(t *testing.T) {
	var counter registrytest.Counter
	reg := openRegistry(t, registrytest.Start(t, registrytest.Referrers, counter.Middleware()))
	found, file := release(t, reg, "deploy::x/1:v1@s%u", makeStore(t, nil), image.PublishOptions{})
	local := openLocal(t, t.TempDir(), nil)
	p := pull(t, local, found)
	for name, spoil := range map[string]func([]byte) []byte{
		"corrupt":   func(b []byte) []byte { b[1_000_000] ^= 1; b[9_000_000] ^= 1; return b },
		"truncated": func(b []byte) []byte { return b[:len(b)-500_000] },
	} {
		damage(t, p.Path, spoil)
		counter.Reset()
		repaired, err := Repair(t.Context(), reg, local, RepairOptions{Namespaces: []string{"deploy"}})
		if err != nil || len(repaired) != 1 || !repaired[0].Repaired || string(repaired[0].Condition) != name {
			t.Fatalf("%s: %+v, %v", name, repaired, err)
		}
		checkPulled(t, p, file)
		if counter.Bytes() > 1_500_000 {
			t.Errorf("%s: %d bytes of %d were fetched", name, counter.Bytes(), file.Size)
		}
	}
}

func TestFindUpgrade(t *testing.T) {
	reg := openRegistry(t, registrytest.Start(t, registrytest.Fallback))
	old, _ := release(t, reg, "deploy::x/9:v1@s%u", makeStore(t, nil), image.PublishOptions{})
	release(t, reg, "deploy::x/10:v1@s%u", makeStore(t, map[int]byte{7: 1}), image.PublishOptions{})
	release(t, reg, "deploy::x/10:v2@other%u", makeStore(t, map[int]byte{8: 1}), image.PublishOptions{})
	release(t, reg, "deploy::xy/11:v1@s%u", makeStore(t, map[int]byte{9: 1}), image.PublishOptions{})
	local := openLocal(t, t.TempDir(), nil)
	of := label.Label{Namespace: "deploy", Name: "x"}
	if _, err := FindUpgrade(t.Context(), reg, of, "", local, ""); fault.KindOf(err) != fault.Usage {
		t.Errorf("two systems and nothing here: %v", err)
	}
	u, err := FindUpgrade(t.Context(), reg, label.Label{Namespace: "deploy", Name: "x", System: "s"}, "", local, "")
	if err != nil || u.From != nil || u.Fetch != u.To.Size || u.To.Label.Version != "10" {
		t.Errorf("nothing here: %+v, %v", u, err)
	}
	pull(t, local, old)
	u, err = FindUpgrade(t.Context(), reg, of, "", local, "")
	if err != nil || u.Current || u.From == nil || u.From.Label.Version != "9" || u.To.Label.Version != "10" || u.Fetch > u.To.Size/8 {
		t.Fatalf("%+v, %v", u, err)
	}
	if _, err := u.Pull(t.Context(), local, PullOptions{}); err != nil {
		t.Fatal(err)
	}
	u, err = FindUpgrade(t.Context(), reg, of, "", local, "")
	if err != nil || !u.Current || u.Fetch != 0 {
		t.Errorf("%+v, %v", u, err)
	}
	if records, err := local.Find(t.Context(), label.Label{Name: "x"}, false); err != nil || len(records) != 2 {
		t.Errorf("%v, %v", records, err)
	}
	if _, err := FindUpgrade(t.Context(), reg, label.Label{Namespace: "deploy", Name: "none"}, "", local, ""); fault.KindOf(err) != fault.NotFound {
		t.Errorf("none: %v", err)
	}
	findings, err := local.Verify(t.Context(), localrepo.VerifyOptions{})
	if err != nil || len(findings) != 2 || findings[0].Bad() || findings[1].Bad() {
		t.Errorf("%+v, %v", findings, err)
	}
}
