package lifecycle

import (
	"context"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/registry"
)

func pushed(t *testing.T) (*registry.Repository, ocispec.Descriptor) {
	t.Helper()
	reg, err := registry.Open("oci:"+t.TempDir(), registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	repo, err := reg.Repository("deploy/eiger/zen2/hello/1.0")
	if err != nil {
		t.Fatal(err)
	}
	desc, err := repo.Push(context.Background(), registry.Artifact{
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

func TestARecordThatCannotBeReadIsAnError(t *testing.T) {
	repo, image := pushed(t)
	subject := ocispec.Descriptor{MediaType: image.MediaType, Digest: image.Digest, Size: image.Size}
	_, err := repo.Push(t.Context(), registry.Artifact{
		Type: meta.TypeDeprecation, Subject: &subject,
		Layers: []registry.Layer{registry.BytesLayer(meta.DeprecationTitle, meta.MediaTypeJSON, []byte(`{"version":1`))},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Status(t.Context(), repo, image); err == nil || !strings.Contains(err.Error(), "uenv/deprecation sha256:") {
		t.Errorf("got %v", err)
	}
}
