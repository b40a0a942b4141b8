package recipe

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"uenv-ci.dev/internal/fault"
)

func TestStoreIsAMountPoint(t *testing.T) {
	for store, good := range map[string]bool{"/user-environment": true, "/user-tools/": true, "/etc/env": false, "/tmp": false, "relative": false, "/a b": false} {
		dir := t.TempDir()
		err := errors.Join(
			os.WriteFile(filepath.Join(dir, "config.yaml"), []byte("name: x\nbuilder: script\nstore: "+store+"\n"), 0o644),
			os.WriteFile(filepath.Join(dir, "build"), []byte("#!/bin/sh\n"), 0o755))
		if err != nil {
			t.Fatal(err)
		}
		_, err = Load(t.Context(), dir)
		var problems fault.Problems
		if good && err != nil || !good && (!errors.As(err, &problems) || problems[0].Line != 3) {
			t.Errorf("%s: %v", store, err)
		}
	}
}
