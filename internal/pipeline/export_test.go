package pipeline

import (
	"context"

	"uenv-ci.dev/internal/image"
)

// KeyOfBuild is the content key that a build has.
func KeyOfBuild(ctx context.Context, b BuildOptions, pack image.PackOptions, o KeyOptions) (ContentKey, error) {
	in, err := b.Load(ctx)
	if err != nil {
		return ContentKey{}, err
	}
	return keyOf(ctx, in, b.UArch, pack, o, b.Events)
}
