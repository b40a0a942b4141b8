package image

import (
	"os"
	"testing"
)

// TestMain keeps what is remembered of files out of the user's cache.
func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	cache, err := os.MkdirTemp("", "uenv-ci-image-test-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(cache)
	if err := os.Setenv("XDG_CACHE_HOME", cache); err != nil {
		panic(err)
	}
	return m.Run()
}
