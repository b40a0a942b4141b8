package pipeline_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

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
	beside := filepath.Join(metadata, "env.json")
	if err := os.MkdirAll(metadata, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, put := range map[string]func() error{
		"a pipe": func() error { return syscall.Mkfifo(beside, 0o600) },
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
		if r, err := pipeline.FileRunnable(file); err != nil || r.Env.Name != "inside" {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		if err := os.Remove(beside); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(beside, []byte(`{"name": "beside", "mount": "/user-environment", "views": {}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := pipeline.FileRunnable(file); err != nil || r.Env.Name != "beside" {
		t.Errorf("metadata: %+v, %v", r, err)
	}
}
