package build_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/stack"
	"uenv-ci.dev/internal/testdirs"
)

// TestHostileRecipe tries what a malicious recipe would try. Every line that it
// writes is something that it got.
func TestHostileRecipe(t *testing.T) {
	needSandbox(t)
	base := testdirs.Visible(t)
	root := filepath.Join(base, "builds")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(base, "control"), "seen", 0o644)
	checkout, token := filepath.Join(base, "checkout"), filepath.Join(base, "token")
	write(t, filepath.Join(checkout, ".git/config"), "canary", 0o644)
	write(t, filepath.Join(checkout+".tmp/CI_VARIABLE"), "canary", 0o644)
	write(t, filepath.Join(base, "docker/config.json"), "canary", 0o644)
	write(t, token, "canary", 0o644)
	t.Setenv("DOCKER_CONFIG", filepath.Join(base, "docker"))
	other, err := build.Run(t.Context(), build.Options{
		Stack: stack.Input{Recipe: script(t, "echo canary > $UENV_MOUNT/secret\n")}, Root: root,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()

	dir := filepath.Join(checkout, "recipe")
	write(t, filepath.Join(dir, "config.yaml"), "name: hostile\nbuilder: script\nstore: /uenv-ci-test\n", 0o644)
	write(t, filepath.Join(dir, "build"), fmt.Sprintf(`#!/bin/sh
got() { echo "$1" >> $UENV_MOUNT/got; }
cat %[1]s/checkout/.git/config %[1]s/checkout.tmp/* && got "secrets of the checkout"
cat %[1]s/docker/config.json && got "docker configuration"
cat %[2]s && got "token"
cat %[3]s/secret && got "other build"
grep -rl canary %[4]s /dev/shm /tmp "$HOME" && got "something of other builds"
echo x >> %[5]s/config.yaml && got "write to the recipe"
echo x > /etc/uenv-ci && got "write to /etc"
mount -o remount,rw /etc && got "remount"
tr '\0' '\n' < /proc/1/environ | grep DOCKER_CONFIG && got "our environment"
cat %[1]s/control > $UENV_MOUNT/control
exit 0
`, base, token, other.Store, root, dir), 0o755)
	r, err := recipe.Load(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	result, err := build.Run(t.Context(), build.Options{Stack: stack.Input{Recipe: r}, Root: root, Hide: []string{token}})
	if err != nil {
		t.Fatal(err)
	}
	defer result.Close()
	if got, err := os.ReadFile(filepath.Join(result.Store, "control")); err != nil || string(got) != "seen" {
		t.Errorf("the recipe cannot see what it may, so the test shows nothing: %q, %v", got, err)
	}
	if got, err := os.ReadFile(filepath.Join(result.Store, "got")); err == nil {
		t.Errorf("the recipe got:\n%s", got)
	}
}
