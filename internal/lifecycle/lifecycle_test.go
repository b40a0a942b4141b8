package lifecycle

import (
	"fmt"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/registrytest"
)

func pushed(t *testing.T) (*registry.Repository, ocispec.Descriptor) {
	t.Helper()
	return pushedTo(t, "oci:"+t.TempDir())
}

func pushedTo(t *testing.T, address string) (*registry.Repository, ocispec.Descriptor) {
	t.Helper()
	reg, err := registry.Open(address, registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	repo, err := reg.Repository("deploy/eiger/zen2/hello/1.0")
	if err != nil {
		t.Fatal(err)
	}
	desc, err := repo.Push(t.Context(), registry.Artifact{
		Type: meta.TypeImage, Layers: []registry.Layer{registry.BytesLayer(meta.ImageTitle, "", []byte("hsqs"))},
	})
	if err != nil {
		t.Fatal(err)
	}
	return repo, desc
}

func note(reason string, at time.Time) Note { return Note{Who: "me", Reason: reason, When: at} }

func TestTheNewestRecordHolds(t *testing.T) {
	repo, image := pushed(t)
	day := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if s, err := Status(t.Context(), repo, image); err != nil || s.Deprecation != nil {
		t.Fatalf("new image: got %+v, %v", s, err)
	}
	if _, err := Deprecate(t.Context(), repo, image, note("old", day)); err != nil {
		t.Fatal(err)
	}
	if s, err := Status(t.Context(), repo, image); err != nil || s.Deprecation == nil || s.Deprecation.Reason != "old" {
		t.Fatalf("deprecated: got %+v, %v", s, err)
	}
	// The clock went back: the withdrawal is the newest all the same.
	if _, err := Undeprecate(t.Context(), repo, image, note("a mistake", day.Add(-time.Hour))); err != nil {
		t.Fatal(err)
	}
	s, err := Status(t.Context(), repo, image)
	if err != nil || s.Deprecation != nil || len(s.History) != 2 || s.History[0].State != meta.Withdrawn {
		t.Fatalf("withdrawn: got %+v, %v", s, err)
	}
}

func TestSayingItAgainAddsNothing(t *testing.T) {
	repo, image := pushed(t)
	for i := range 3 {
		if _, err := Deprecate(t.Context(), repo, image, note("old", time.Date(2026, 1, 1+i, 0, 0, 0, 0, time.UTC))); err != nil {
			t.Fatal(err)
		}
	}
	if s, err := Status(t.Context(), repo, image); err != nil || len(s.History) != 1 {
		t.Errorf("got %+v, %v", s, err)
	}
}

func TestUndeprecateNeedsADeprecation(t *testing.T) {
	repo, image := pushed(t)
	if _, err := Undeprecate(t.Context(), repo, image, note("x", time.Now())); fault.KindOf(err) != fault.NotFound {
		t.Errorf("got %v", err)
	}
}

func TestARecordThatCannotBeReadStopsNobody(t *testing.T) {
	repo, image := pushed(t)
	subject := ocispec.Descriptor{MediaType: image.MediaType, Digest: image.Digest, Size: image.Size}
	_, err := repo.Push(t.Context(), registry.Artifact{
		Type: meta.TypeDeprecation, Subject: &subject,
		Layers: []registry.Layer{registry.BytesLayer(meta.DeprecationTitle, meta.MediaTypeJSON, []byte(`{"version":1`))},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Deprecate(t.Context(), repo, image, note("old", time.Now())); err != nil {
		t.Fatal(err)
	}
	s, err := Status(t.Context(), repo, image)
	if err != nil || s.Deprecation == nil || len(s.Problems) != 1 || !strings.Contains(s.Problems[0], "uenv/deprecation sha256:") {
		t.Errorf("got %+v, %v", s, err)
	}
}

func TestEveryKindOfRegistry(t *testing.T) {
	for _, kind := range registrytest.InProcess {
		repo, image := pushedTo(t, registrytest.Start(t, kind))
		n := note("old", time.Unix(1_700_000_000, 0))
		n.Replacement = "hello/2.0"
		n.Until = new(meta.Date)
		*n.Until, _ = meta.ParseDate("2027-01-31")
		if _, err := Deprecate(t.Context(), repo, image, n); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		s, err := Status(t.Context(), repo, image)
		if err != nil || s.Deprecation == nil || s.Deprecation.Replacement != "hello/2.0" || s.Deprecation.Until.String() != "2027-01-31" {
			t.Errorf("%s: got %+v, %v", kind, s, err)
		}
		back, err := Undeprecate(t.Context(), repo, image, note("a mistake", time.Unix(0, 0)))
		if err != nil || !back.When.After(s.Deprecation.When.Time) {
			t.Errorf("%s: recorded %+v, %v", kind, back, err)
		}
		if s, err = Status(t.Context(), repo, image); err != nil || s.Deprecation != nil || len(s.History) != 2 || s.History[0].When != back.When {
			t.Errorf("%s: got %+v, %v", kind, s, err)
		}
	}
}

// Records that several people write at once are all kept.
func TestConcurrentRecords(t *testing.T) {
	repo, image := pushed(t)
	const people = 8
	group, ctx := errgroup.WithContext(t.Context())
	for i := range people {
		group.Go(func() error {
			_, err := Deprecate(ctx, repo, image, note(fmt.Sprint("reason ", i), time.Unix(int64(i), 0)))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	s, err := Status(t.Context(), repo, image)
	if err != nil || len(s.History) != people || s.Deprecation == nil {
		t.Errorf("got %d records of %d, %v", len(s.History), people, err)
	}
}

func TestANoteNeedsANameAndAReason(t *testing.T) {
	repo, image := pushed(t)
	for _, n := range []Note{{Reason: "r", When: time.Now()}, {Who: "me", When: time.Now()}} {
		if _, err := Deprecate(t.Context(), repo, image, n); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%+v: %v", n, err)
		}
	}
	if s, err := Status(t.Context(), repo, image); err != nil || len(s.History) != 0 {
		t.Errorf("got %+v, %v", s, err)
	}
}
