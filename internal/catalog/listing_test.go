package catalog

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/registrytest"
)

func TestListingIsWhatClientsAccept(t *testing.T) {
	reg := testRegistry(t)
	labels := fill(t, reg, 4)
	records, err := Find(t.Context(), reg, parse(t, "deploy::"), Options{Depth: Images})
	if err != nil {
		t.Fatal(err)
	}
	early, undated := records[0], records[0]
	early.Created, undated.Created = "1980-01-01T00:00:00Z", ""
	warnings := 0
	data, err := EncodeListing(append(records, early, undated), func(e event.Event) { warnings++ })
	if err != nil || warnings != 2 {
		t.Fatalf("%d warnings, %v", warnings, err)
	}
	var doc struct {
		Results []map[string]any `json:"results"`
	}
	if err := json.Unmarshal(data, &doc); err != nil || len(doc.Results) != len(labels) {
		t.Fatalf("%s, %v", data, err)
	}
	for _, row := range doc.Results {
		// The rules of the client: a fraction in the date, a number as size.
		created, _ := row["created"].(string)
		if !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z$`).MatchString(created) {
			t.Errorf("created %q", created)
		}
		if size, ok := row["size"].(float64); !ok || size <= 0 {
			t.Errorf("size %v", row["size"])
		}
		if path, _ := row["path"].(string); strings.Count(path, "/") != 5 {
			t.Errorf("path %q", path)
		}
	}
	back, err := ParseListing(data)
	if err != nil || len(back) != len(records) {
		t.Fatalf("%+v, %v", back, err)
	}
	for i := range back {
		if back[i].Label != records[i].Label || back[i].Digest != records[i].Digest || back[i].Size != records[i].Size || back[i].Created != records[i].Created {
			t.Errorf("%+v is not %+v", back[i], records[i])
		}
	}
}

func TestParseListing(t *testing.T) {
	const sha = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	row := func(path, sha, created string) string {
		return fmt.Sprintf(`{"path":%q,"sha256":%q,"created":%q,"size":5,"repo":"uenv","stats":{}}`, path, sha, created)
	}
	good := "deploy/daint/gh200/prgenv-gnu/24.11/v1"
	for text, want := range map[string]int{
		row(good, sha, "2024-07-01T12:34:56.789Z"):          1,
		row(good, sha, "2024-07-01 12:34:56"):               1,
		row(good, sha, "once"):                              1,
		row("deploy/daint/gh200/prgenv-gnu/24.11", sha, ""): 0,
		row(good+"/x", sha, ""):                             0,
		row("deploy/../../../etc/passwd", sha, ""):          0,
		row(good, "abc", ""):                                0,
		row(good, strings.ToUpper(sha), ""):                 0,
		"{}":                                                0,
	} {
		records, err := ParseListing([]byte(`{"results":[` + text + `]}`))
		if err != nil || len(records) != want {
			t.Errorf("%s: %+v, %v", text, records, err)
		}
	}
	for _, text := range []string{"", "<html>", `{"results":[{"size":"5"}]}`, "[]"} {
		if _, err := ParseListing([]byte(text)); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: %v", text, err)
		}
	}
	records, err := ParseListing([]byte(`{"results":[` + row(good, sha, "2024-07-01 12:34:56") + `]}`))
	if err != nil || records[0].Created != "2024-07-01T12:34:56Z" || records[0].Size != 5 || records[0].ID != sha[:16] {
		t.Errorf("%+v, %v", records, err)
	}
}

// TestSearchByAListing is for registries that do not list their repositories.
func TestSearchByAListing(t *testing.T) {
	reg := at(t, registrytest.Start(t, registrytest.Referrers, noCatalog))
	labels := fill(t, reg, 4)
	var known []Record
	for _, l := range labels {
		repo, err := reg.Repository(parse(t, l).Repository())
		if err != nil {
			t.Fatal(err)
		}
		d, err := repo.Resolve(t.Context(), "v1")
		if err != nil {
			t.Fatal(err)
		}
		known = append(known, Record{Label: parse(t, l), Digest: d.Digest, Size: 7, Created: "2026-01-02T03:04:05Z"})
	}
	gone := known[0]
	gone.Label.Name, gone.Digest = "gone", "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	illegal := known[0]
	illegal.Label.Name = "Upper"
	data, err := EncodeListing(append(known, gone, illegal), nil)
	if err != nil {
		t.Fatal(err)
	}
	asked, unchanged := 0, 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.URL.Path != "/list" || r.URL.RawQuery != "namespace=deploy" {
			t.Errorf("asked for %s", r.URL)
		}
		w.Header().Set("ETag", `"1"`)
		if r.Header.Get("If-None-Match") == `"1"` {
			unchanged++
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Write(data)
	}))
	defer server.Close()
	o := SearchOptions{Listing: server.URL + "/list", Cache: t.TempDir(), MaxAge: 1}
	for range 2 {
		a := search(t, reg, "deploy::", o)
		if a.Source != FromListing || len(a.Records) != 4 || len(a.Records[0].Results) != 1 {
			t.Fatalf("%+v", a)
		}
	}
	if asked != 2 || unchanged != 1 {
		t.Errorf("asked %d times, %d times it was unchanged", asked, unchanged)
	}
	o.Depth = Images
	if a := search(t, reg, "deploy::y", o); len(a.Records) != 1 || a.Records[0].Size != 7 {
		t.Errorf("sizes are not those of the listing: %+v", a)
	}

	file := filepath.Join(t.TempDir(), "listing.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if a := search(t, reg, "deploy::x", SearchOptions{Listing: file}); len(a.Records) != 3 {
		t.Errorf("from a file: %+v", a)
	}
	for from, kind := range map[string]fault.Kind{
		file + ".none": fault.NotFound, server.URL[:len(server.URL)-1] + "0/list": fault.Network, "http://[": fault.Usage,
	} {
		if _, err := Search(t.Context(), reg, parse(t, "deploy::"), SearchOptions{Listing: from}); fault.KindOf(err) != kind {
			t.Errorf("%s: %v", from, err)
		}
	}
}

func TestListingThatFailsIsAnError(t *testing.T) {
	for _, h := range []http.HandlerFunc{
		func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "down", http.StatusServiceUnavailable) },
		func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") },
		func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "{")
		},
	} {
		server := httptest.NewServer(h)
		_, err := Search(t.Context(), testRegistry(t), parse(t, "deploy::"), SearchOptions{Listing: server.URL})
		if k := fault.KindOf(err); k != fault.Network && k != fault.Invalid {
			t.Errorf("got %v", err)
		}
		server.Close()
	}
}

func TestListingErrorsHaveNoCredentials(t *testing.T) {
	const secret = "s3cret"
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/gone" {
			panic(http.ErrAbortHandler)
		}
		fmt.Fprint(w, "no listing")
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	for _, from := range []string{
		"http://user:" + secret + "@" + host + "/list", server.URL + "/gone?token=" + secret, "http://user:" + secret + "@a b/", "http://user:" + secret + "/x@host/",
	} {
		_, err := Search(t.Context(), testRegistry(t), parse(t, "deploy::"), SearchOptions{Listing: from})
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("got %v", err)
		}
	}
}
