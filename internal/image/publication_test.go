package image

import (
	"context"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
)

// Images that can be reproduced say when their recipe changed: when they came has to be
// told by something else, before their tag.
func TestPublicationTellsWhenAnImageCame(t *testing.T) {
	repo, file := repository(t), pack(t, map[string]string{"meta/env.json": env})
	for _, c := range []struct {
		after time.Duration // since the image was made
		tag   string
		more  int
	}{
		{time.Minute, "1", 0},
		{48 * time.Hour, "1", 0}, // nothing came
		{48 * time.Hour, "2", 1},
		{48*time.Hour + time.Minute, "3", 1},
		{96 * time.Hour, "4", 2},
	} {
		now := day.Add(c.after)
		o := PublishOptions{Created: day, Tags: []string{c.tag}, First: func(ctx context.Context, desc ocispec.Descriptor) error {
			return AttachPublication(ctx, repo, desc, c.tag, now)
		}}
		image, err := Publish(t.Context(), repo, file, o)
		if err != nil {
			t.Fatal(err)
		}
		attached, err := repo.Referrers(t.Context(), image, meta.TypePublication)
		if err != nil || len(attached) != c.more {
			t.Errorf("%v later: %d, %v", c.after, len(attached), err)
		}
		if newest := meta.Newest(append(attached, image)); c.tag != "1" && now.Sub(newest) >= fresh {
			t.Errorf("%v later: it seems to be of %v", c.after, newest)
		}
	}
}

// On registries that keep lists of what is attached, those make an image without a tag be
// found: before anything is in them there is what tells the time.
func TestPublishTellsTheTimeFirst(t *testing.T) {
	repo, file := repository(t), pack(t, map[string]string{"meta/env.json": env})
	var image ocispec.Descriptor
	o := PublishOptions{Created: day, Tags: []string{"1"}, First: func(ctx context.Context, desc ocispec.Descriptor) error {
		image = desc
		return fault.New(fault.Network, "broken off")
	}}
	if _, err := Publish(t.Context(), repo, file, o); fault.KindOf(err) != fault.Network {
		t.Errorf("got %v", err)
	}
	if attached, err := repo.Referrers(t.Context(), image, ""); err != nil || len(attached) != 0 {
		t.Errorf("attached before: %v, %v", attached, err)
	}
}

func TestCopyTellsWhenAnImageCame(t *testing.T) {
	repo, file := repository(t), pack(t, map[string]string{"meta/env.json": env})
	made, err := Publish(t.Context(), repo, file, PublishOptions{Created: day, Tags: []string{"1"}})
	if err != nil {
		t.Fatal(err)
	}
	image := ocispec.Descriptor{MediaType: made.MediaType, Digest: made.Digest, Size: made.Size} // as a tag is resolved
	elsewhere, now := repository(t), day.Add(48*time.Hour)
	for _, dst := range []struct {
		name, tag string
		after     time.Duration
		more      int
	}{{"at once", "2", time.Minute, 0}, {"later again", "2", 48 * time.Hour, 0}, {"later", "3", 48 * time.Hour, 1}} {
		if _, err := Copy(t.Context(), repo, image, elsewhere, dst.tag, day.Add(dst.after)); err != nil {
			t.Fatal(err)
		}
		attached, err := elsewhere.Referrers(t.Context(), image, meta.TypePublication)
		if err != nil || len(attached) != dst.more {
			t.Errorf("%s: %d, %v", dst.name, len(attached), err)
		}
	}
	if _, err := Copy(t.Context(), repo, image, repo, "2", now); err != nil {
		t.Fatal(err)
	}
	attached, err := repo.Referrers(t.Context(), image, "")
	if err != nil || len(attached) != 2 || !meta.Newest(attached).Equal(now) {
		t.Errorf("another tag: %v, %v", attached, err)
	}
}
