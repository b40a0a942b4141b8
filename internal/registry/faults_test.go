package registry_test

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/registry"
	. "uenv-ci.dev/internal/registrytest"
)

// at opens the repository hello/1.0 of a server at a loopback address.
func at(t *testing.T, address string) *registry.Repository {
	return backend{address: address}.repository(t, "hello/1.0")
}

// blobOf returns a layer of n bytes that differ from each other.
func blobOf(n int) registry.Layer {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i) ^ byte(i>>8) ^ byte(i>>16)
	}
	return registry.BytesLayer("store.squashfs", "", data)
}

func TestPassingFaultsAreOutlived(t *testing.T) {
	for name, f := range map[string]Fault{
		"500": Status(500), "502": Status(502), "503": Status(503), "504": Status(504),
		"429":                  Status(429),
		"429 with Retry-After": Status(429, "Retry-After: 1"),
		"503 with a date":      Status(503, "Retry-After: Wed, 21 Oct 2026 07:28:00 GMT"),
		"reset":                Reset,
	} {
		t.Run(name, func(t *testing.T) {
			var rules []Rule
			for _, method := range []string{"HEAD", "GET", "POST", "PUT", "PATCH"} {
				rules = append(rules, Rule{Method: method, Path: "blobs", Times: 2, Fault: f}, Rule{Method: method, Path: "manifests", Times: 2, Fault: f})
			}
			p := at(t, Start(t, Referrers, Faults(rules...)))
			large := blobOf(17 << 20)
			d := push(t, p, registry.Artifact{Type: image, Layers: []registry.Layer{large, registry.BytesLayer("small", "", []byte("small"))}})
			if err := p.Tag(t.Context(), d, "v1"); err != nil {
				t.Fatal(err)
			}
			m, _, err := p.Manifest(t.Context(), d)
			if err != nil {
				t.Fatal(err)
			}
			for _, l := range m.Layers {
				readAll(t, p, l)
			}
		})
	}
}

func TestLastingFaultsAreReported(t *testing.T) {
	for name, c := range map[string]struct {
		fault Fault
		kind  fault.Kind
		says  string
	}{
		"500":       {Status(500), fault.Network, "500"},
		"429":       {Status(429), fault.Network, "429"},
		"reset":     {Reset, fault.Network, ""},
		"401":       {Status(401), fault.Unauthorized, "401"},
		"403":       {Status(403), fault.Unauthorized, "403"},
		"404":       {Status(404), fault.NotFound, "not found"},
		"web page":  {HTML, fault.Network, "web page"},
		"418":       {Status(418), fault.Network, "418"},
		"no answer": {Status(204), fault.Network, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := at(t, Start(t, Referrers, Faults(Rule{Path: "/v2/.", Fault: c.fault})))
			blob := blobOf(10).Descriptor
			gone := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: blob.Digest, Size: blob.Size}
			_, _, manifest := p.Manifest(t.Context(), gone)
			_, fetch := p.Fetch(t.Context(), blob)
			for what, err := range map[string]error{"manifest": manifest, "fetch": fetch} {
				wantKind(t, err, c.kind)
				if err != nil && !strings.Contains(strings.ToLower(err.Error()), c.says) {
					t.Errorf("%s: %q does not say %q", what, err, c.says)
				}
			}
			_, err := p.Resolve(t.Context(), "v1")
			wantKind(t, err, c.kind)
			if _, err := p.Push(t.Context(), artifact(image, "x", nil)); err == nil {
				t.Error("pushed")
			}
		})
	}
}

func TestFetchGoesOnWhereItBroke(t *testing.T) {
	const size = 3 << 20
	l := blobOf(size)
	want, _ := l.Open()
	content, _ := io.ReadAll(want)
	for name, c := range map[string]struct {
		rules []Rule
		most  int64 // bytes that may be sent
	}{
		"three breaks": {[]Rule{
			{Method: "GET", Path: "blobs", Times: 1, Fault: ResetAfter(1 << 20)},
			{Method: "GET", Path: "blobs", Times: 1, Fault: ResetAfter(10)},
			{Method: "GET", Path: "blobs", Times: 1, Fault: Reset},
		}, size + 1<<20},
		"ranges ignored": {[]Rule{
			{Method: "GET", Path: "blobs", Times: 1, Fault: ResetAfter(1 << 20)},
			{Method: "GET", Path: "blobs", Fault: IgnoreRange},
		}, 2*size + 1<<20},
	} {
		t.Run(name, func(t *testing.T) {
			var seen Counter
			p := at(t, Start(t, Referrers, seen.Middleware(), Faults(c.rules...)))
			push(t, p, registry.Artifact{Type: image, Layers: []registry.Layer{l}})
			seen.Reset()
			if got := readAll(t, p, l.Descriptor); !bytes.Equal(got, content) {
				t.Error("another content came")
			}
			if seen.Bytes() > c.most {
				t.Errorf("%d bytes were sent, more than %d", seen.Bytes(), c.most)
			}
		})
	}
}

func TestStalledTransferIsTakenUpAgain(t *testing.T) {
	l := blobOf(1 << 20)
	stalled := make(chan struct{})
	address := Start(t, Referrers, Faults(
		Rule{Method: "GET", Path: "blobs", Times: 1, Fault: Slow(1<<19, func() func() {
			pieces := 0
			return func() {
				if pieces++; pieces > 1 {
					<-stalled
				}
			}
		}())},
		Rule{Method: "GET", Path: "blobs", Times: 1, Fault: func(http.ResponseWriter, *http.Request, http.Handler) { panic(http.ErrAbortHandler) }},
	))
	t.Cleanup(func() { close(stalled) })
	r, err := registry.Open(address, registry.Options{Retry: registry.RetryOptions{Attempts: 4, Wait: 1, Stall: 200 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	p := repository(t, r, "hello/1.0")
	push(t, p, registry.Artifact{Type: image, Layers: []registry.Layer{l}})
	if got := readAll(t, p, l.Descriptor); len(got) != 1<<20 {
		t.Errorf("%d bytes", len(got))
	}
}

// serveBlob answers every GET of a blob by the given handler.
func serveBlob(t *testing.T, h http.HandlerFunc) *registry.Repository {
	return at(t, Serve(t, h))
}

func TestBadContentIsRefused(t *testing.T) {
	content := bytes.Repeat([]byte("uenv"), 1000)
	d := ocispec.Descriptor{MediaType: "text/plain", Digest: digest.FromBytes(content), Size: int64(len(content))}
	broken := func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(content) }
	for name, h := range map[string]http.HandlerFunc{
		"one bit flipped":  func(w http.ResponseWriter, r *http.Request) { FlipBit(2000)(w, r, http.HandlerFunc(broken)) },
		"a web page":       func(w http.ResponseWriter, r *http.Request) { HTML(w, r, nil) },
		"too long, said":   func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(append(content, 'x')) },
		"too short, said":  func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(content[:3999]) },
		"always cut":       func(w http.ResponseWriter, r *http.Request) { ResetAfter(0)(w, r, http.HandlerFunc(broken)) },
		"endless, unsaid":  func(w http.ResponseWriter, r *http.Request) { flush(w); _, _ = w.Write(append(content, content...)) },
		"too short unsaid": func(w http.ResponseWriter, r *http.Request) { flush(w); _, _ = w.Write(content[:10]) },
		"wrong range": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", "bytes 5-10/4000")
			w.WriteHeader(http.StatusPartialContent)
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := serveBlob(t, h)
			rc, err := p.Fetch(t.Context(), d)
			var got []byte
			if err == nil {
				got, err = io.ReadAll(rc)
				rc.Close()
			}
			wantKind(t, err, fault.Network)
			if int64(len(got)) > d.Size {
				t.Errorf("%d bytes came through", len(got))
			}
		})
	}
}

func flush(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() }

func TestLyingManifestsAreRefused(t *testing.T) {
	other := digest.FromString("another").String()
	data, d, err := artifact(image, "hello", nil).Manifest()
	if err != nil {
		t.Fatal(err)
	}
	answer := func(body []byte, headers ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", d.MediaType)
			for i := 0; i < len(headers); i += 2 {
				w.Header().Set(headers[i], headers[i+1])
			}
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			if r.Method == http.MethodPut {
				w.Header().Del("Content-Length")
				w.WriteHeader(http.StatusCreated)
			} else if r.Method == http.MethodGet {
				_, _ = w.Write(body)
			}
		}
	}
	changed := bytes.Replace(data, []byte("file"), []byte("fire"), 1)
	for name, h := range map[string]http.HandlerFunc{
		"other bytes":  answer(changed),
		"longer":       answer(append(data, ' ')),
		"endless":      answer(bytes.Repeat([]byte(" "), registry.MaxManifest+1)),
		"a text":       answer(data, "Content-Type", "text/plain"),
		"other digest": answer(changed, "Docker-Content-Digest", other),
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := at(t, Serve(t, h)).Manifest(t.Context(), d)
			wantKind(t, err, fault.Network)
		})
	}
	lying := at(t, Serve(t, answer(data, "Docker-Content-Digest", other)))
	_, err = lying.Resolve(t.Context(), "v1")
	wantKind(t, err, fault.Network)
	if err := lying.Tag(t.Context(), d, "v1"); err == nil || !strings.Contains(err.Error(), other) {
		t.Errorf("a manifest that was stored as another: %v", err)
	}
	huge := at(t, Serve(t, answer(bytes.Repeat([]byte(" "), registry.MaxManifest+1), "Docker-Content-Digest", other)))
	_, err = huge.Resolve(t.Context(), "v1")
	wantKind(t, err, fault.Network)
}

func TestBrokenUploadIsResumedOrRepeated(t *testing.T) {
	l := blobOf(20 << 20)
	for _, kind := range []Kind{Referrers, Fallback, Docker, Distribution} {
		t.Run(string(kind), func(t *testing.T) {
			var seen Counter
			p := at(t, Start(t, kind, seen.Middleware(), Faults(
				Rule{Method: "PATCH", Times: 1, Fault: ResetUploadAfter(9 << 20)},
				Rule{Method: "PUT", Path: "blobs/uploads", Times: 1, Fault: Status(503)},
			)))
			push(t, p, registry.Artifact{Type: image, Layers: []registry.Layer{l}})
			if seen.Count("PATCH blobs/uploads") < 2 {
				t.Errorf("the break was not seen:\n%s", &seen)
			}
			readAll(t, p, l.Descriptor)
		})
	}
}

// A registry that takes everything and keeps nothing does not hold us for ever.
func TestUploadThatStandsStill(t *testing.T) {
	for name, received := range map[string]string{"nothing": "0-0", "too much": "0-99999999"} {
		t.Run(name, func(t *testing.T) {
			p := at(t, Start(t, Referrers, Faults(Rule{Method: "PATCH", Fault: func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
				_, _ = io.Copy(io.Discard, r.Body)
				w.Header().Set("Location", r.URL.RequestURI())
				w.Header().Set("Range", received)
				w.WriteHeader(http.StatusAccepted)
			}})))
			_, err := p.Push(t.Context(), registry.Artifact{Type: image, Layers: []registry.Layer{blobOf(17 << 20)}})
			wantKind(t, err, fault.Network)
		})
	}
}

// Retries on several levels must not multiply.
func TestLastingFaultsAreNotAskedForEver(t *testing.T) {
	var seen Counter
	r := backend{address: Start(t, Referrers, seen.Middleware(), Faults(
		Rule{Method: "POST", Path: "/bad/", Fault: Status(503)},
		Rule{Method: "GET", Path: "blobs", Times: 1, Fault: ResetAfter(10)},
		Rule{Method: "GET", Path: "blobs", Fault: Status(503)},
	))}.open(t)
	a := registry.Artifact{Type: image, Layers: []registry.Layer{blobOf(100)}}
	_, err := repository(t, r, "bad/1.0").Push(t.Context(), a)
	wantKind(t, err, fault.Network)
	if n := seen.Count("POST blobs/uploads"); n > 2*quickly.Attempts { // there are two blobs
		t.Errorf("%d uploads were opened", n)
	}
	good := repository(t, r, "good/1.0")
	push(t, good, a)
	rc, err := good.Fetch(t.Context(), a.Layers[0].Descriptor)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	_, err = io.ReadAll(rc)
	wantKind(t, err, fault.Network)
	if n := seen.Count("GET blobs"); n < 2 || n > 1+quickly.Attempts {
		t.Errorf("the blob was asked for %d times", n)
	}
}

// GitLab's registry answers for the fallback tag with the subject itself.
func TestFallbackTagThatIsTheSubject(t *testing.T) {
	address := Start(t, Fallback, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				r.URL.Path = strings.Replace(r.URL.Path, "/manifests/sha256-", "/manifests/sha256:", 1)
			}
			next.ServeHTTP(w, r)
		})
	})
	p := at(t, address)
	d := push(t, p, artifact(image, "hello", nil))
	if refs, err := p.Referrers(t.Context(), d, ""); err != nil || len(refs) != 0 {
		t.Errorf("referrers %v, %v", refs, err)
	}
}

func TestServersThatDoNotKnowReferrers(t *testing.T) {
	for _, code := range []int{400, 404, 405, 501} {
		p := at(t, Start(t, Fallback, Faults(Rule{Path: "/referrers/", Fault: Status(code)})))
		d := push(t, p, artifact(image, "hello", nil))
		attached := push(t, p, artifact(meta, "attached", &d))
		refs, err := p.Referrers(t.Context(), d, "")
		if err != nil || !slices.Equal(digests(refs), digests([]ocispec.Descriptor{attached})) {
			t.Errorf("%d: %v, %v", code, refs, err)
		}
	}
}

func TestCatalogThatIsNotOffered(t *testing.T) {
	for _, code := range []int{403, 404, 405} {
		r := backend{address: Start(t, Referrers, Faults(Rule{Path: "_catalog", Fault: Status(code)}))}.open(t)
		_, err := r.Repositories(t.Context(), "deploy")
		wantKind(t, err, fault.Refused)
		if fault.HintOf(err) == "" {
			t.Errorf("%d: no hint in %v", code, err)
		}
	}
}

func TestDeletionThatIsNotAllowed(t *testing.T) {
	p := at(t, Start(t, Fallback, Faults(Rule{Method: "DELETE", Fault: Status(405)})))
	d := push(t, p, artifact(image, "hello", nil))
	wantKind(t, p.Delete(t.Context(), d), fault.Refused)
	push(t, p, artifact(meta, "one", &d)) // old fallback indexes stay, which does no harm
	push(t, p, artifact(meta, "two", &d))
	if refs, err := p.Referrers(t.Context(), d, ""); err != nil || len(refs) != 2 {
		t.Errorf("referrers %v, %v", refs, err)
	}
}

// docker-registry 2.8 does not find a blob for the moment in which another writer
// sends the same one again. The answer was recorded from it.
func TestTagIsRepeatedWhileABlobIsRewritten(t *testing.T) {
	const answer = `{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match uploaded content"},` +
		`{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry","detail":{"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}}]}`
	for times, fails := range map[int]bool{2: false, 9: true} {
		address := Start(t, Referrers, Faults(Rule{
			Method: http.MethodPut, Path: "/manifests/v1$", Times: times,
			Fault: func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
				w.Header().Set("Content-Type", "application/json; charset=utf-8")
				w.WriteHeader(http.StatusBadRequest)
				io.WriteString(w, answer)
			},
		}))
		p := backend{address: address}.repository(t, "build/eiger/zen2/hello/1.0")
		d := push(t, p, artifact(image, "hello", nil))
		err := p.Tag(t.Context(), d, "v1")
		if fails {
			wantKind(t, err, fault.Network)
		} else if err != nil {
			t.Errorf("%d times: %v", times, err)
		}
	}
}
