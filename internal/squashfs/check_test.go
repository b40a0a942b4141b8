package squashfs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whoever interrupts the check is not told that the image is wrong.
func TestCheckIsInterrupted(t *testing.T) {
	g := goldenTree(t)
	out, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	p, err := write(t.Context(), g.root, out, WriteOptions{Time: testTime}, true)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.check(ctx); !errors.Is(err, context.Canceled) || strings.Contains(err.Error(), "not right") {
		t.Errorf("%v", err)
	}
	if err := p.check(t.Context()); err != nil {
		t.Error(err)
	}
}
