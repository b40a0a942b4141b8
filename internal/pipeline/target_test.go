package pipeline_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/image"
	"uenv-ci.dev/internal/pipeline"
)

// TestMetadataBesideAnImage has something else where metadata of a loose file is
// looked for: whoever opens a pipe waits for ever.
func TestMetadataBesideAnImage(t *testing.T) {
	store := t.TempDir()
	writeTree(t, store, map[string]string{"meta/env.json": `{"name": "inside", "mount": "/user-environment", "views": {}}`})
	file := filepath.Join(t.TempDir(), "store.squashfs")
	if _, err := image.Pack(t.Context(), store, file, image.PackOptions{Created: time.Unix(1767225600, 0)}); err != nil {
		t.Fatal(err)
	}
	metadata := filepath.Join(filepath.Dir(file), "meta")
	silently := func() {
		t.Helper()
		r, err := pipeline.FileRunnable(file, func(e event.Event) { t.Errorf("told %s", e.Message) })
		if err != nil || r.Env.Name != "inside" {
			t.Errorf("nothing there: %+v, %v", r, err)
		}
	}
	silently()
	if err := os.WriteFile(metadata, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	silently()
	if err := os.Remove(metadata); err != nil {
		t.Fatal(err)
	}
	beside := filepath.Join(metadata, "env.json")
	if err := os.MkdirAll(metadata, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, put := range map[string]func() error{
		"a pipe":      func() error { return syscall.Mkfifo(beside, 0o600) },
		"no metadata": func() error { return os.WriteFile(beside, []byte("{"), 0o600) },
		"a large file": func() error {
			if err := os.WriteFile(beside, nil, 0o600); err != nil {
				return err
			}
			return os.Truncate(beside, 1<<40)
		},
	} {
		if err := put(); err != nil {
			t.Fatal(err)
		}
		var told []string
		events := func(e event.Event) { told = append(told, e.Message) }
		if r, err := pipeline.FileRunnable(file, events); err != nil || r.Env.Name != "inside" || len(told) != 1 || !strings.Contains(told[0], beside) {
			t.Errorf("%s: %+v, %v, told %q", name, r, err, told)
		}
		if err := os.Remove(beside); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(beside, []byte(`{"name": "beside", "mount": "/user-environment", "views": {}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	silent := func(e event.Event) { t.Errorf("told %s", e.Message) }
	if r, err := pipeline.FileRunnable(file, silent); err != nil || r.Env.Name != "beside" {
		t.Errorf("metadata: %+v, %v", r, err)
	}
}
