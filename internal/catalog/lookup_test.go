package catalog

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/registrytest"
)

// What the site lists is found where the registry lists nothing, as the registry has it
// now.
func TestLookupInAListing(t *testing.T) {
	dir := t.TempDir()
	listing := func(name string, labels ...string) string {
		var records []Record
		for _, l := range labels {
			records = append(records, Record{
				Label: parse(t, l), Digest: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", Created: "2026-01-02T03:04:05Z",
			})
		}
		data, err := EncodeListing(records, nil)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, name)
	}
	stale := listing("stale", "deploy::x/1:gone@daint%gh200", "deploy::none/1:v1@daint%gh200", "deploy::y/1:v1@eiger%zen2")
	other := listing("other", "service::x/1:v1@daint%gh200")

	closed := at(t, registrytest.Start(t, registrytest.Referrers, noCatalog))
	open := at(t, registrytest.Start(t, registrytest.Referrers))
	_, image := push(t, closed, "deploy::x/1:v1@daint%gh200", imageOf("x"))
	push(t, open, "deploy::x/1:v1@daint%gh200", imageOf("x"))

	for name, c := range map[string]struct {
		reg     string
		listing string
		pattern string
		want    int
		kind    fault.Kind
	}{
		"a tag that is not listed yet":        {"closed", stale, "deploy::x", 1, 0},
		"a tag that is gone":                  {"closed", stale, "deploy::x:gone", 0, 0},
		"a repository that is gone":           {"closed", stale, "deploy::none", 0, 0},
		"nothing of that name is listed":      {"closed", stale, "deploy::z", 0, 0},
		"a listing of another namespace":      {"open", other, "deploy::x", 1, 0},
		"the registry's list is newer":        {"open", stale, "deploy::x:v1", 1, 0},
		"no listing, no list, no index":       {"closed", "", "deploy::x", 0, fault.Refused},
		"the listing cannot be read":          {"closed", filepath.Join(dir, "none"), "deploy::x", 0, fault.NotFound},
		"the listing cannot be read, no harm": {"open", filepath.Join(dir, "none"), "deploy::x", 1, 0},
	} {
		reg := open
		if c.reg == "closed" {
			reg = closed
		}
		records, err := Lookup(t.Context(), reg, parse(t, c.pattern), c.listing, Digests)
		if len(records) != c.want || (err != nil) != (c.kind != 0) || err != nil && fault.KindOf(err) != c.kind {
			t.Errorf("%s: %v, %v", name, records, err)
		}
		if c.want == 1 && err == nil && records[0].Digest != image.Digest {
			t.Errorf("%s: the digest is that of the listing", name)
		}
	}
}

func TestLookupInAnIndex(t *testing.T) {
	hidden := false
	closed := at(t, registrytest.Start(t, registrytest.Referrers, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if hidden {
				noCatalog(next).ServeHTTP(w, r)
			} else {
				next.ServeHTTP(w, r)
			}
		})
	}))
	push(t, closed, "deploy::x/1:v1@daint%gh200", imageOf("x"))
	if _, err := Rebuild(t.Context(), closed, "deploy", Options{}); err != nil {
		t.Fatal(err)
	}
	hidden = true
	for pattern, want := range map[string]int{"deploy::x": 1, "deploy::y": 0} {
		if records, err := Lookup(t.Context(), closed, parse(t, pattern), "", Digests); err != nil || len(records) != want {
			t.Errorf("%s: %v, %v", pattern, records, err)
		}
	}
}

// As in the uenv client an image may be named by its id or digest, wherever the answer
// comes from.
func TestFindByDigest(t *testing.T) {
	reg := at(t, registrytest.Start(t, registrytest.Referrers))
	_, image := push(t, reg, "deploy::x/1:v1@daint%gh200", imageOf("x"))
	push(t, reg, "deploy::y/1:v1@daint%gh200", imageOf("y"))
	encoded := image.Digest.Encoded()
	cache := t.TempDir()
	for _, pattern := range []string{encoded[:16], encoded, "sha256:" + encoded} {
		ask := func(name string, o SearchOptions, where string, want int) {
			t.Helper()
			a := search(t, reg, "deploy::"+pattern+where, o)
			if len(a.Records) != want || want > 0 && a.Records[0].Label.String() != "deploy::x/1:v1@daint%gh200" {
				t.Errorf("%s%s, %s: %+v", pattern, where, name, a.Records)
			}
		}
		search(t, reg, "deploy::", SearchOptions{Cache: cache, Options: Options{Depth: Labels}})
		for _, depth := range []Depth{All, Images, Labels} {
			ask("registry", SearchOptions{Options: Options{Depth: depth}}, "", 1)
			ask("cache", SearchOptions{Cache: cache, Options: Options{Depth: depth}}, "", 1)
		}
		ask("another cluster", SearchOptions{}, "@eiger", 0)
		if records, err := Lookup(t.Context(), reg, parse(t, "deploy::"+pattern), "", Digests); err != nil || len(records) != 1 {
			t.Errorf("%s: %v, %v", pattern, records, err)
		}
	}
	if _, err := Rebuild(t.Context(), reg, "deploy", Options{}); err != nil {
		t.Fatal(err)
	}
	if a := search(t, reg, "deploy::"+encoded[:16], SearchOptions{}); a.Source != FromIndex || len(a.Records) != 1 {
		t.Errorf("%+v", a)
	}
	if a := search(t, reg, "deploy::"+encoded[:15], SearchOptions{}); len(a.Records) != 0 {
		t.Errorf("part of an id: %+v", a)
	}
}
