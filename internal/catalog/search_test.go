package catalog

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/registrytest"
)

// fill pushes n images with a verdict each and returns their labels.
func fill(t *testing.T, reg *registry.Registry, n int) []string {
	t.Helper()
	var labels []string
	for i := range n {
		text := fmt.Sprintf("deploy::x%d/1:v1@daint%%gh200", i%3)
		if i >= 3 {
			text = fmt.Sprintf("deploy::y/%d:v1@daint%%gh200", i)
		}
		repo, image := push(t, reg, text, imageOf(text))
		v := verdict("daint", meta.Passed, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), image.Digest)
		data, err := v.Encode()
		if err != nil {
			t.Fatal(err)
		}
		attachJSON(t, repo, image, meta.TypeReframe, meta.VerdictFile, data, v.Annotations())
		labels = append(labels, text)
	}
	return labels
}

func search(t *testing.T, reg *registry.Registry, pattern string, o SearchOptions) Answer {
	t.Helper()
	a, err := Search(t.Context(), reg, parse(t, pattern), o)
	if err != nil {
		t.Fatalf("%s: %v", pattern, err)
	}
	return a
}

func names(records []Record) []string {
	got := []string{}
	for _, r := range records {
		got = append(got, r.Label.String())
	}
	slices.Sort(got)
	return got
}

func TestLabelsTakeOneRequestForEachRepository(t *testing.T) {
	var counter registrytest.Counter
	reg := at(t, registrytest.Start(t, registrytest.Referrers, counter.Middleware()))
	fill(t, reg, 6)
	counter.Reset()
	records, err := Find(t.Context(), reg, parse(t, "deploy::"), Options{Depth: Labels})
	if err != nil || len(records) != 6 {
		t.Fatalf("%v, %v", records, err)
	}
	if n := counter.Count(""); n != 1+6 {
		t.Errorf("%d requests: %s", n, &counter)
	}
}

func TestImagesTakeOneRequestForEach(t *testing.T) {
	for _, kind := range registrytest.InProcess {
		var counter registrytest.Counter
		reg := at(t, registrytest.Start(t, kind, counter.Middleware()))
		fill(t, reg, 6)
		counter.Reset()
		records, err := Find(t.Context(), reg, parse(t, "deploy::"), Options{Depth: Images})
		if err != nil || len(records) != 6 || records[0].Size == 0 || records[0].Created == "" {
			t.Fatalf("%v, %v", records, err)
		}
		if n := counter.Count("GET manifests"); n != 6 || counter.Count("") != 1+6+6 {
			t.Errorf("%s: %s", kind, &counter)
		}
		counter.Reset()
		records, err = Find(t.Context(), reg, parse(t, "deploy::"), Options{})
		if err != nil || len(records) != 6 || len(records[0].Results) != 1 {
			t.Fatalf("%s: %+v, %v", kind, records, err)
		}
	}
}

func TestSearchTakesTheIndex(t *testing.T) {
	var counter registrytest.Counter
	reg := at(t, registrytest.Start(t, registrytest.Fallback, counter.Middleware()))
	labels := fill(t, reg, 6)
	cacheDir := filepath.Join(t.TempDir(), "cache")
	o := SearchOptions{Cache: cacheDir}
	rebuilt, err := Rebuild(t.Context(), reg, "deploy", Options{})
	if err != nil || rebuilt.Labels != 6 || rebuilt.Repository != "deploy-index/catalog" {
		t.Fatalf("%+v, %v", rebuilt, err)
	}
	if _, err := Rebuild(t.Context(), reg, "depoly", Options{}); fault.KindOf(err) != fault.NotFound {
		t.Errorf("an index of nothing: %v", err)
	}
	for i, requests := range []int{2, 1} { // manifest and layer; then the layer is in the cache
		counter.Reset()
		a := search(t, reg, "deploy::", o)
		if a.Source != FromIndex || !slices.Equal(names(a.Records), labels) || a.Records[0].Results[0].State != meta.Pass || time.Since(a.At) > time.Hour {
			t.Fatalf("%d: %+v", i, a)
		}
		if n := counter.Count(""); n != requests {
			t.Errorf("%d: %d requests: %s", i, n, &counter)
		}
	}
	if a := search(t, reg, "deploy::y/4", o); len(a.Records) != 1 || a.Source != FromIndex {
		t.Errorf("%+v", a)
	}

	push(t, reg, "deploy::new/1:v1@daint%gh200", imageOf("new"))
	if a := search(t, reg, "deploy::new", o); len(a.Records) != 0 {
		t.Errorf("the index knows what came later: %+v", a)
	}
	o.Refresh = true
	if a := search(t, reg, "deploy::new", o); len(a.Records) != 1 || a.Source != FromRegistry {
		t.Errorf("after Refresh: %+v", a)
	}
	o.Refresh = false
	if _, err := Rebuild(t.Context(), reg, "deploy", Options{}); err != nil {
		t.Fatal(err)
	}
	Forget(cacheDir)
	if a := search(t, reg, "deploy::new", o); len(a.Records) != 1 || a.Source != FromIndex {
		t.Errorf("after Rebuild: %+v", a)
	}
	// The index's own namespace is none of the images'.
	if a := search(t, reg, "deploy-index::", SearchOptions{}); len(a.Records) != 0 {
		t.Errorf("the index is listed as an image: %+v", a)
	}
}

// A rebuild without changes gives the same layer, so nobody fetches it again.
func TestIndexIsDeterministic(t *testing.T) {
	reg := testRegistry(t)
	fill(t, reg, 5)
	var layers []ocispec.Descriptor
	for range 2 {
		if _, err := Rebuild(t.Context(), reg, "deploy", Options{}); err != nil {
			t.Fatal(err)
		}
		repo, err := indexRepository(reg, "deploy")
		if err != nil {
			t.Fatal(err)
		}
		desc, err := repo.Resolve(t.Context(), indexTag)
		if err != nil {
			t.Fatal(err)
		}
		m, _, err := repo.Manifest(t.Context(), desc)
		if err != nil {
			t.Fatal(err)
		}
		layers = append(layers, m.Layers[0])
	}
	if layers[0].Digest != layers[1].Digest {
		t.Errorf("%s, then %s", layers[0].Digest, layers[1].Digest)
	}
}

func TestSearchWithABadIndexAsksTheRegistry(t *testing.T) {
	good, err := encodeIndex("deploy", []Record{{Label: label.Label{Namespace: "deploy", Name: "lie"}}})
	if err != nil {
		t.Fatal(err)
	}
	other, err := encodeIndex("build", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, a := range map[string]registry.Artifact{
		"no gzip":           {Type: indexType, Layers: []registry.Layer{registry.BytesLayer(indexTitle, indexMediaType, []byte("{}"))}},
		"cut":               {Type: indexType, Layers: []registry.Layer{registry.BytesLayer(indexTitle, indexMediaType, good[:len(good)-4])}},
		"another namespace": {Type: indexType, Layers: []registry.Layer{registry.BytesLayer(indexTitle, indexMediaType, other)}},
		"another type":      imageOf("x"),
	} {
		reg := testRegistry(t)
		fill(t, reg, 2)
		repo, err := indexRepository(reg, "deploy")
		if err != nil {
			t.Fatal(err)
		}
		desc, err := repo.Push(t.Context(), a)
		if err == nil {
			err = repo.Tag(t.Context(), desc, indexTag)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := search(t, reg, "deploy::", SearchOptions{}); got.Source != FromRegistry || len(got.Records) != 2 {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestDecodeIndexDropsWhatCannotBe(t *testing.T) {
	good := Record{Label: parse(t, "deploy::x/1:v1@s%u"), Digest: "sha256:" + "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", ID: "lie"}
	bad := make([]Record, 4)
	for i := range bad {
		bad[i] = good
	}
	bad[0].Label.Namespace = "build"
	bad[1].Label.Name = "../../x"
	bad[2].Label.Tag = ""
	bad[3].Digest = "sha256:xyz"
	data, err := encodeIndex("deploy", append(bad, good))
	if err != nil {
		t.Fatal(err)
	}
	records, err := decodeIndex(data, "deploy")
	if err != nil || len(records) != 1 || records[0].ID != "0123456789abcdef" {
		t.Errorf("%+v, %v", records, err)
	}
}

func TestSearchAnswersFromTheCache(t *testing.T) {
	var counter registrytest.Counter
	reg := at(t, registrytest.Start(t, registrytest.Referrers, counter.Middleware()))
	labels := fill(t, reg, 5)
	cacheDir := filepath.Join(t.TempDir(), "cache")
	o := SearchOptions{Cache: cacheDir}
	if a := search(t, reg, "deploy::", o); a.Source != FromRegistry || !slices.Equal(names(a.Records), labels) {
		t.Fatalf("%+v", a)
	}
	counter.Reset()
	for pattern, want := range map[string]int{"deploy::": 5, "deploy::x": 3, "deploy::y/4": 1, "deploy::none": 0} {
		if a := search(t, reg, pattern, o); a.Source != FromCache || len(a.Records) != want {
			t.Errorf("%s: %+v", pattern, a)
		}
	}
	if counter.Count("") != 0 {
		t.Errorf("requests: %s", &counter)
	}
	exact := o
	exact.Exact = true
	if a := search(t, reg, "deploy::x", exact); len(a.Records) != 0 || a.Source != FromRegistry {
		t.Errorf("another question: %+v", a)
	}
	old := o
	old.MaxAge = 1
	if a := search(t, reg, "deploy::", old); a.Source != FromRegistry {
		t.Errorf("too old: %+v", a)
	}
	fill(t, reg, 6)
	if a := search(t, reg, "deploy::", o); len(a.Records) != 5 {
		t.Errorf("still fresh: %+v", a)
	}
	Forget(cacheDir)
	if a := search(t, reg, "deploy::", o); len(a.Records) != 6 {
		t.Errorf("forgotten: %+v", a)
	}

	// Whatever is in the cache's files, they are only a cache.
	entries, err := os.ReadDir(cacheDir)
	if err != nil || len(entries) == 0 {
		t.Fatalf("%v, %v", entries, err)
	}
	for _, e := range entries {
		if err := os.WriteFile(filepath.Join(cacheDir, e.Name()), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if a := search(t, reg, "deploy::", o); len(a.Records) != 6 {
		t.Errorf("damaged: %+v", a)
	}
	if err := errors.Join(os.RemoveAll(cacheDir), os.WriteFile(cacheDir, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if a := search(t, reg, "deploy::", o); len(a.Records) != 6 {
		t.Errorf("a file in its place: %+v", a)
	}
}

func TestSearchOffline(t *testing.T) {
	down := false
	reg := at(t, registrytest.Start(t, registrytest.Referrers, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if down {
				t.Errorf("asked for %s", r.URL)
			}
			next.ServeHTTP(w, r)
		})
	}))
	fill(t, reg, 4)
	o := SearchOptions{Cache: t.TempDir(), Offline: true}
	if _, err := Search(t.Context(), reg, parse(t, "deploy::"), o); fault.KindOf(err) != fault.NotFound || fault.HintOf(err) == "" {
		t.Errorf("nothing is known: %v", err)
	}
	o.Offline = false
	search(t, reg, "deploy::", o)
	o.Offline, o.MaxAge, down = true, 1, true
	if a := search(t, reg, "deploy::x", o); len(a.Records) != 3 {
		t.Errorf("%+v", a)
	}
	down = false
	if _, err := Rebuild(t.Context(), reg, "deploy", Options{}); err != nil {
		t.Fatal(err)
	}
	Forget(o.Cache)
	o.Offline = false
	search(t, reg, "deploy::x", o)
	o.Offline, down = true, true
	if a := search(t, reg, "deploy::y", o); len(a.Records) != 1 || a.Source != FromCache {
		t.Errorf("by the index: %+v", a)
	}
}

func TestOrder(t *testing.T) {
	records := []Record{
		{Label: parse(t, "n::a/1:v1@s%u"), Size: 2, Created: "2026-01-01T00:00:00Z"},
		{Label: parse(t, "n::b/3:v1@s%u"), Size: 1, Created: "2026-03-01T00:00:00Z"},
		{Label: parse(t, "n::c/20:v1@s%u"), Size: 3},
	}
	for by, want := range map[string]string{
		"": "abc", "name": "abc", "-name": "cba", "date": "bac", "-date": "cab", "size": "cab", "-size": "bac", "version": "cba",
	} {
		order, err := ParseOrder(by)
		if err != nil {
			t.Fatal(err)
		}
		order.Sort(records)
		got := ""
		for _, r := range records {
			got += r.Label.Name
		}
		if got != want {
			t.Errorf("%q: got %s, want %s", by, got, want)
		}
	}
	for _, by := range []string{"colour", "-", "--name"} {
		if _, err := ParseOrder(by); by != "-" && fault.KindOf(err) != fault.Usage {
			t.Errorf("%q: %v", by, err)
		}
	}
	if got := Since(records, time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)); len(got) != 1 || got[0].Label.Name != "b" {
		t.Errorf("since: %+v", got)
	}
}

func TestLongUnreadFilesAreRemoved(t *testing.T) {
	c := cache(t.TempDir())
	c.write(kindAnswer, "old", 1)
	old := c.path(kindAnswer, "old")
	if err := os.Chtimes(old, time.Time{}, time.Now().Add(-2*forgetAfter)); err != nil {
		t.Fatal(err)
	}
	c.write(kindAnswer, "new", 2)
	var n int
	if c.read(kindAnswer, "old", &n) || !c.read(kindAnswer, "new", &n) || n != 2 {
		t.Errorf("got %d", n)
	}
	if strings.Contains(old, "old") {
		t.Errorf("a key in a name: %s", old)
	}
}

// A repository that may not be read hides itself and nothing else, unless it is all
// that was asked for.
func TestSearchWithoutWhatIsDenied(t *testing.T) {
	for _, what := range []string{"tags/list", "manifests/"} {
		t.Run(what, func(t *testing.T) {
			var denied atomic.Bool
			reg, err := registry.Open(registrytest.Start(t, registrytest.Referrers, func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if denied.Load() && strings.Contains(r.URL.Path, "/x1/1/"+what) {
						w.WriteHeader(http.StatusForbidden)
						return
					}
					next.ServeHTTP(w, r)
				})
			}), registry.Options{})
			if err != nil {
				t.Fatal(err)
			}
			fill(t, reg, 3)
			denied.Store(true)
			o := SearchOptions{Cache: t.TempDir()}
			for range 2 { // what is left out is asked for again
				a := search(t, reg, "deploy::", o)
				if got := names(a.Records); len(got) != 2 || a.Source != FromRegistry || !slices.Equal(a.Denied, []string{"deploy/daint/gh200/x1/1"}) {
					t.Errorf("%q from %s, denied %q", got, a.Source, a.Denied)
				}
			}
			if _, err := Search(t.Context(), reg, parse(t, "deploy::x1"), o); fault.KindOf(err) != fault.Unauthorized {
				t.Errorf("got %v", err)
			}
			// An index that lacks images would hide them from those who may read them.
			if _, err := Rebuild(t.Context(), reg, "deploy", Options{}); fault.KindOf(err) != fault.Unauthorized {
				t.Errorf("got %v", err)
			}
			q, err := ParseQuery("gcc")
			if err != nil {
				t.Fatal(err)
			}
			listed := []Record{{Label: parse(t, "deploy::x1/1:v1@daint%gh200"), Digest: "sha256:" + "0123456789012345678901234567890123456789012345678901234567890123"}}
			found, err := WithPackage(t.Context(), reg, listed, q, PackageOptions{})
			if what != "tags/list" && (err != nil || len(found) > 0) {
				t.Errorf("%v %v", found, err)
			}
		})
	}
}
