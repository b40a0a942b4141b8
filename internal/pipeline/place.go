package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"uenv-ci.dev/internal/event"
)

// placed is how much of a file is copied between two looks at the context, in bytes.
const placed = 8 << 20

// place makes a file appear at another path: by a link where that is possible, else by
// a copy, which keeps the permission to execute.
func place(ctx context.Context, from, to string, events event.Sink) error {
	file, err := filepath.EvalSymlinks(from) // or it would be the symbolic link that is linked
	if err != nil {
		return err
	}
	if os.Link(file, to) == nil {
		return nil
	}
	return copyFile(ctx, file, to, events)
}

func copyFile(ctx context.Context, from, to string, events event.Sink) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600|info.Mode().Perm()&0o100)
	if err != nil {
		return err
	}
	for done := int64(0); err == nil; {
		if err = context.Cause(ctx); err != nil {
			break
		}
		var n int64
		n, err = io.CopyN(out, in, placed)
		done += n
		events.Progress("copy", done, info.Size(), "B")
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("copy %s to %s: %w", from, to, err)
	}
	return nil
}
