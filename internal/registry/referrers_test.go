package registry_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/proc"
	. "uenv-ci.dev/internal/registrytest"
)

var fallbackPath = regexp.MustCompile(`/manifests/sha256-`)

// overwriter plays a writer on another host: right after each of the next writes
// of a fallback tag it puts back the list that was there before.
type overwriter struct {
	before []byte // the last list that was written
	times  int
}

func (o *overwriter) middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPut || !fallbackPath.MatchString(r.URL.Path) {
			next.ServeHTTP(w, r)
			return
		}
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
		if o.times == 0 {
			o.before = body
			return
		}
		o.times--
		again := r.Clone(r.Context())
		again.Body, again.ContentLength = io.NopCloser(bytes.NewReader(o.before)), int64(len(o.before))
		next.ServeHTTP(httptest.NewRecorder(), again)
	})
}

func TestListOverwrittenByAnotherHostIsMended(t *testing.T) {
	other := &overwriter{}
	p := at(t, Start(t, Fallback, other.middleware))
	d := push(t, p, artifact(image, "hello", nil))
	theirs := push(t, p, artifact(result, "theirs", &d))
	other.times = 3
	ours := push(t, p, artifact(result, "ours", &d))
	got, err := p.Referrers(t.Context(), d, "")
	if err != nil || !slices.Equal(digests(got), digests([]ocispec.Descriptor{theirs, ours})) {
		t.Errorf("listed %v, %v", got, err)
	}
	other.times = 1000
	if _, err := p.Push(t.Context(), artifact(result, "never", &d)); err == nil {
		t.Error("a list that is always overwritten was taken for written")
	}
}

func TestRepairReferrers(t *testing.T) {
	backends(t, func(t *testing.T, b backend) {
		p := b.repository(t, hello)
		d, all := pushFamily(t, p)
		unrelated := push(t, p, artifact(result, "unrelated", &all[1]))
		gone := descriptor([]byte("gone"))
		if n, err := p.RepairReferrers(t.Context(), d, append(all, unrelated, gone)); n != 0 || err != nil {
			t.Errorf("%d repaired where nothing is lost, %v", n, err)
		}
	})
	address := Start(t, Fallback)
	p := at(t, address)
	d := push(t, p, artifact(image, "hello", nil))
	first := push(t, p, artifact(result, "first", &d))
	second := push(t, p, artifact(result, "second", &d))
	_ = p.Untag(t.Context(), strings.Replace(d.Digest.String(), ":", "-", 1))
	if refs, err := p.Referrers(t.Context(), d, ""); err != nil || len(refs) != 0 {
		t.Fatalf("the list is still there: %v, %v", refs, err)
	}
	if n, err := p.RepairReferrers(t.Context(), d, []ocispec.Descriptor{first, second}); n != 2 || err != nil {
		t.Errorf("%d repaired, %v", n, err)
	}
	if refs, err := p.Referrers(t.Context(), d, result); err != nil || len(refs) != 2 || refs[0].Annotations["dev.uenv-ci.text"] == "" {
		t.Errorf("after the repair: %v, %v", refs, err)
	}
}

func TestRegctlReadsWhatWePush(t *testing.T) {
	regctl, ok := proc.Look("regctl")
	if !ok {
		t.Skip("regctl not installed: go install github.com/regclient/regclient/cmd/regctl@v0.11.7")
	}
	for _, kind := range []Kind{Referrers, Fallback, HalfBroken, Docker, Distribution} {
		t.Run(string(kind), func(t *testing.T) {
			address := Start(t, kind)
			p := at(t, address)
			d, all := pushFamily(t, p)
			if err := p.Tag(t.Context(), d, "v1"); err != nil {
				t.Fatal(err)
			}
			out, err := proc.Cmd{
				Path: regctl, Args: []string{"--host", "reg=" + address + ",tls=disabled", "artifact", "tree", address + "/hello/1.0:v1"},
				Env: []string{"HOME=" + t.TempDir()},
			}.Output(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range all {
				if !strings.Contains(string(out), m.Digest.String()) {
					t.Errorf("regctl does not show %s:\n%s", m.Digest, out)
				}
			}
		})
	}
}
