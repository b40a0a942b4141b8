package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/registry"
	. "uenv-ci.dev/internal/registrytest"
)

// fileOf returns an open file.
func fileOf(t *testing.T, content []byte) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "base")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// partsAt returns parts that a file has where the blob has them.
func partsAt(f *os.File, spans ...registry.Span) []registry.Part {
	var parts []registry.Part
	for _, s := range spans {
		parts = append(parts, registry.Part{Span: s, From: f, At: s.Offset})
	}
	return parts
}

// What Seed brings is not fetched, at whatever borders it ends.
func TestSeed(t *testing.T) {
	content, l := randomBlob(6*mib + 100)
	base := fileOf(t, content)
	var seen Counter
	p := at(t, Start(t, Referrers, seen.Middleware()))
	push(t, p, registry.Artifact{Type: image, Layers: []registry.Layer{l}})
	const all = 6*mib + 100
	errSeed := errors.New("on purpose")
	for name, c := range map[string]struct {
		spans []registry.Span
		err   error
		most  int64 // bytes that may be fetched
	}{
		"all":                  {spans: []registry.Span{{Offset: 0, Length: all}}, most: 0},
		"in pieces":            {spans: []registry.Span{{Offset: 0, Length: 100}, {Offset: 100, Length: 2 * mib}, {Offset: 2*mib + 100, Length: 4 * mib}}, most: 0},
		"a gap":                {spans: []registry.Span{{Offset: 0, Length: 2*mib + 5}, {Offset: 3*mib - 5, Length: 3*mib + 105}}, most: mib},
		"the end":              {spans: []registry.Span{{Offset: 5*mib + 1, Length: mib + 99}}, most: 6 * mib},
		"less than a chunk":    {spans: []registry.Span{{Offset: 10, Length: mib}}, most: all},
		"nothing":              {most: all},
		"an error half-way":    {spans: []registry.Span{{Offset: 0, Length: 4 * mib}}, err: errSeed, most: 2*mib + 100},
		"chunks one after one": {spans: []registry.Span{{Offset: mib, Length: mib}, {Offset: 2 * mib, Length: mib}, {Offset: 4 * mib, Length: mib}}, most: 3*mib + 100},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.squashfs")
			err := p.Seed(t.Context(), l.Descriptor, path, registry.DownloadOptions{}, func(ctx context.Context, f *registry.Filling) error {
				return errors.Join(f.Copy(ctx, partsAt(base, c.spans...)), c.err)
			})
			if !errors.Is(err, c.err) {
				t.Fatal(err)
			}
			seen.Reset()
			if err := p.Download(t.Context(), l.Descriptor, path, registry.DownloadOptions{}); err != nil {
				t.Fatal(err)
			}
			checkDownload(t, path, content)
			if seen.Bytes() > c.most {
				t.Errorf("%d bytes were fetched, at most %d are needed", seen.Bytes(), c.most)
			}
		})
	}
}

// What Seed brings is not believed: the digest of the whole decides.
func TestSeedOfWrongBytes(t *testing.T) {
	content, l := randomBlob(3 * mib)
	p := at(t, Start(t, Referrers))
	push(t, p, registry.Artifact{Type: image, Layers: []registry.Layer{l}})
	dir := t.TempDir()
	path := filepath.Join(dir, "store.squashfs")
	wrong := bytes.Clone(content)
	wrong[mib+7] ^= 1
	seed := func(base *os.File) error {
		return p.Seed(t.Context(), l.Descriptor, path, registry.DownloadOptions{}, func(ctx context.Context, f *registry.Filling) error {
			return f.Copy(ctx, partsAt(base, registry.Span{Length: 3 * mib}))
		})
	}
	if err := seed(fileOf(t, wrong)); !errors.Is(err, registry.ErrUnfit) {
		t.Fatalf("got %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left are %v, %v", left, err)
	}
	if err := seed(fileOf(t, content[:2*mib])); err == nil || errors.Is(err, registry.ErrUnfit) {
		t.Errorf("a file that is too short: %v", err)
	}
	if err := seed(fileOf(t, content)); err != nil {
		t.Fatal(err)
	}
	checkDownload(t, path, content)
	if err := seed(nil); err != nil {
		t.Errorf("of a file that is there: %v", err)
	}
}

// A second attempt finds the chunks that the first one completed, whatever became
// of that, and brings the rest.
func TestSeedGoesOn(t *testing.T) {
	content, l := randomBlob(6*mib + 100)
	base := fileOf(t, content)
	var seen Counter
	p := at(t, Start(t, Referrers, seen.Middleware()))
	push(t, p, registry.Artifact{Type: image, Layers: []registry.Layer{l}})
	path := filepath.Join(t.TempDir(), "store.squashfs")
	seed := func(fill func(context.Context, *registry.Filling) error) error {
		return p.Seed(t.Context(), l.Descriptor, path, registry.DownloadOptions{}, fill)
	}
	killed := errors.New("killed")
	err := seed(func(ctx context.Context, f *registry.Filling) error {
		if f.Done() != 0 {
			t.Errorf("at first %d bytes", f.Done())
		}
		err := f.Copy(ctx, partsAt(base, registry.Span{Length: 2*mib + 7}))
		return errors.Join(err, f.Fetch(ctx, []registry.Span{{Offset: 4 * mib, Length: mib + 5}}, 0, 1), killed)
	})
	if !errors.Is(err, killed) {
		t.Fatal(err)
	}
	seen.Reset()
	err = seed(func(ctx context.Context, f *registry.Filling) error {
		if f.Done() != 3*mib {
			t.Errorf("then %d bytes", f.Done())
		}
		return f.Fetch(ctx, []registry.Span{{Length: 6*mib + 100}}, 0, 2)
	})
	// Two chunks, and the last one with its rest.
	if err != nil || seen.Bytes() < 3*mib+100 || seen.Bytes() > 3*mib+2000 {
		t.Errorf("%d bytes, %v", seen.Bytes(), err)
	}
	checkDownload(t, path, content)
}

// scattered is many spans of a blob, with gaps of step bytes from one to the next.
func scattered(size, length, step int64) (spans, rest []registry.Span) {
	for at := int64(0); at < size; at += step {
		spans = append(spans, registry.Span{Offset: at, Length: min(length, size-at)})
		if left := min(step, size-at) - length; left > 0 {
			rest = append(rest, registry.Span{Offset: at + length, Length: left})
		}
	}
	return spans, rest
}

// Many ranges come with few requests where a registry can send them so, and come
// right wherever it cannot, or says so and then does something else.
func TestSeedFetchesManyRanges(t *testing.T) {
	content, l := randomBlob(8*mib + 100)
	base := fileOf(t, content)
	spans, rest := scattered(int64(len(content)), 3000, 20_000) // some 420
	serve := func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}
	// lying sends the parts of another request for many.
	lying := func(ranges string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if bytes.Contains([]byte(r.Header.Get("Range")), []byte(",")) {
				r.Header.Set("Range", ranges)
			}
			serve(w, r)
		}
	}
	answer := func(contentType, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if !bytes.Contains([]byte(r.Header.Get("Range")), []byte(",")) {
				serve(w, r)
				return
			}
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(http.StatusPartialContent)
			fmt.Fprint(w, body)
		}
	}
	var asked atomic.Int64
	for name, c := range map[string]struct {
		serve http.HandlerFunc
		most  int // requests
	}{
		"many at once":     {serve, 10},
		"first range only": {lying("bytes=0-2999"), 500},
		"whole":            {lying(""), 500},
		"in another order": {lying("bytes=20000-22999,0-2999"), 500},
		"too few":          {lying("bytes=0-2999,20000-22999"), 500},
		"no boundary":      {answer("multipart/byteranges", "--x\r\n"), 500},
		"no parts":         {answer("multipart/byteranges; boundary=x", "--x--\r\n"), 500},
		"no range of it":   {answer("multipart/byteranges; boundary=x", "--x\r\nContent-Type: a/b\r\n\r\nabc"), 500},
		"endless line":     {answer("multipart/byteranges; boundary=x", string(bytes.Repeat([]byte("-"), 100_000))), 500},
		"endless header":   {answer("multipart/byteranges; boundary=x", "--x\r\n"+string(bytes.Repeat([]byte("a: b\r\n"), 1000))), 500},
		"refused":          {func(w http.ResponseWriter, r *http.Request) { answer("text/plain", "")(refusing{w}, r) }, 500},
		"broken off twice": {func(w http.ResponseWriter, r *http.Request) {
			if asked.Add(1) < 3 {
				ResetAfter(10_000)(w, r, http.HandlerFunc(serve))
				return
			}
			serve(w, r)
		}, 20},
	} {
		t.Run(name, func(t *testing.T) {
			var seen Counter
			p := at(t, Serve(t, seen.Middleware()(c.serve)))
			path := filepath.Join(t.TempDir(), "store.squashfs")
			err := p.Seed(t.Context(), l.Descriptor, path, registry.DownloadOptions{}, func(ctx context.Context, f *registry.Filling) error {
				return errors.Join(f.Copy(ctx, partsAt(base, rest...)), f.Fetch(ctx, spans, 0, 2))
			})
			if err != nil {
				t.Fatal(err)
			}
			checkDownload(t, path, content)
			if n := seen.Count("GET blobs"); n > c.most {
				t.Errorf("%d requests, at most %d are needed", n, c.most)
			}
			parts, err := p.ReaderAt(t.Context(), l.Descriptor).ReadParts(spans[:20])
			if c.most == 500 {
				wantKind(t, err, fault.Refused)
				return
			}
			for i, s := range spans[:20] {
				if err != nil || !bytes.Equal(parts[i], content[s.Offset:s.Offset+s.Length]) {
					t.Fatalf("part %d: %v", i, err)
				}
			}
		})
	}
}

// refusing answers requests that would get many parts with 416.
type refusing struct{ http.ResponseWriter }

func (r refusing) WriteHeader(code int) {
	if r.Header().Get("Content-Type") == "text/plain" {
		code = http.StatusRequestedRangeNotSatisfiable
	}
	r.ResponseWriter.WriteHeader(code)
}

// Where each range takes a request, near ones come together, with what is between
// them, as far as that is no more than may be spared.
func TestSeedJoinsNearRanges(t *testing.T) {
	content, l := randomBlob(8 * mib)
	base := fileOf(t, content)
	// Pairs 50 bytes apart, and 100,000 bytes from one pair to the next.
	var spans, rest []registry.Span
	for at := int64(0); at+100_000 < 8*mib; at += 100_000 {
		spans = append(spans, registry.Span{Offset: at, Length: 10_000}, registry.Span{Offset: at + 10_050, Length: 10_000})
		rest = append(rest, registry.Span{Offset: at + 10_000, Length: 50}, registry.Span{Offset: at + 20_050, Length: 79_950})
	}
	end := spans[len(spans)-1].Offset + 89_950
	rest = append(rest, registry.Span{Offset: end, Length: 8*mib - end})
	var seen Counter
	slow := func(w http.ResponseWriter, r *http.Request) {
		if bytes.Contains([]byte(r.Header.Get("Range")), []byte(",")) {
			r.Header.Del("Range")
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}
	p := at(t, Serve(t, seen.Middleware()(http.HandlerFunc(slow))))
	pairs := len(spans) / 2
	for _, c := range []struct {
		spare       int64
		least, most int // requests
	}{
		{int64(pairs) * 50, 1, len(spans) * 2 / 3},
		{int64(pairs)*50 - 1, len(spans), len(spans) + 1},
	} {
		seen.Reset()
		path := filepath.Join(t.TempDir(), "store.squashfs")
		err := p.Seed(t.Context(), l.Descriptor, path, registry.DownloadOptions{}, func(ctx context.Context, f *registry.Filling) error {
			return errors.Join(f.Copy(ctx, partsAt(base, rest...)), f.Fetch(ctx, spans, c.spare, 1))
		})
		if err != nil {
			t.Fatal(err)
		}
		checkDownload(t, path, content)
		if n := seen.Count("GET blobs"); n < c.least || n > c.most {
			t.Errorf("%d bytes to spare: %d requests for %d ranges in pairs", c.spare, n, len(spans))
		}
	}
}
