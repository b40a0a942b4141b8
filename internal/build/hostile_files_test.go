package build_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/stack"
)

// withMarkers are the lines of a program that tell which of its attempts worked.
const withMarkers = `got() { echo "$1" >> $UENV_MOUNT/got; }` + "\n"

// got returns what a hostile program wrote that it got.
func got(t *testing.T, r *build.Result) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(r.Store, "got"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(data)
}

// TestStoreIsNotReplaced has a program put a link to a directory of the host in the
// place of the store, which would be changed and packed.
func TestStoreIsNotReplaced(t *testing.T) {
	needSandbox(t)
	victim := t.TempDir()
	env := filepath.Join(victim, "meta/env.json.in")
	write(t, env, `{"name":"x","mount":"/uenv-ci-test","views":{}}`, 0o600)
	r := mustBuild(t, build.Options{Root: buildRoot(t), Stack: stack.Input{Recipe: script(t, withMarkers+`
mv /uenv-ci/store /uenv-ci/old && ln -s '`+victim+`' /uenv-ci/store && got "the name of the store"
mv /uenv-ci /old && got "the name of the build directory"
rm -f /uenv-ci/config/x && touch /uenv-ci/config/x && got "the configuration"
exit 0
`)}})
	if what := got(t, r); what != "" {
		t.Errorf("the program got:\n%s", what)
	}
	if info, err := os.Lstat(r.Store); err != nil || !info.IsDir() {
		t.Errorf("the store: %v, %v", info, err)
	}
	if info, err := os.Stat(env); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("a file of the host was changed: %v, %v", info, err)
	}
	if _, err := os.Lstat(filepath.Join(victim, "meta/env.json")); err == nil {
		t.Error("a file of the host was written")
	}
}

// TestMetadataIsNotFollowed has a program put links where the host writes and reads.
func TestMetadataIsNotFollowed(t *testing.T) {
	needSandbox(t)
	for name, attack := range map[string]string{
		"file":      `ln -s "$victim" "$UENV_MOUNT/meta/env.json"`,
		"template":  `rm "$UENV_MOUNT/meta/env.json.in"; ln -s "$victim" "$UENV_MOUNT/meta/env.json.in"`,
		"directory": `mv "$UENV_MOUNT/meta" "$UENV_MOUNT/other"; ln -s "${victim%/*}" "$UENV_MOUNT/meta"`,
		"database":  `mkdir "$UENV_MOUNT/.spack-db"; touch "$UENV_MOUNT/.spack-db/index_verifier"; ln -s "$victim" "$UENV_MOUNT/.spack-db/index.json"`,
	} {
		t.Run(name, func(t *testing.T) {
			victim := filepath.Join(t.TempDir(), "env.json")
			const text = `{"name":"canary","mount":"/uenv-ci-test","views":{}}`
			write(t, victim, text, 0o600)
			r, err := build.Run(t.Context(), build.Options{
				Root: buildRoot(t), Stack: stack.Input{Recipe: script(t, "victim='"+victim+"'\n"+attack+"\n")},
			})
			if err == nil {
				defer r.Close()
				if r.Meta.Name == "canary" {
					t.Error("a file of the host became metadata")
				}
			}
			if data, err := os.ReadFile(victim); err != nil || string(data) != text {
				t.Errorf("the file of the host became %q (%v)", data, err)
			}
			if info, err := os.Stat(victim); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("the file of the host has changed: %v, %v", info, err)
			}
		})
	}
}

// TestPipesAreNotReadFrom has a program put pipes where the host reads: opening
// one waits for ever.
func TestPipesAreNotReadFrom(t *testing.T) {
	needSandbox(t)
	for _, name := range []string{"meta/env.json.in", "meta/env.json", ".spack-db/index.json", ".spack-db/index_verifier"} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		done := make(chan error, 1)
		r := script(t, `
mkdir -p "$UENV_MOUNT/.spack-db"; echo x > "$UENV_MOUNT/.spack-db/index_verifier"; echo '{}' > "$UENV_MOUNT/.spack-db/index.json"
rm -f "$UENV_MOUNT/`+name+`"; mkfifo "$UENV_MOUNT/`+name+`"
`)
		go func() {
			result, err := build.Run(ctx, build.Options{Root: t.TempDir(), Stack: stack.Input{Recipe: r}})
			if err == nil {
				err = result.Close()
			}
			done <- err
		}()
		select {
		case err := <-done:
			if err != nil && !strings.Contains(err.Error(), "regular file") {
				t.Errorf("%s: %v", name, err)
			}
		case <-ctx.Done():
			t.Fatalf("%s: the build waits for a pipe", name)
		}
	}
}

// hostileSpack returns a recipe for Spack with another pre-install hook.
func hostileSpack(t *testing.T, hook string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "recipe")
	if err := os.CopyFS(dir, os.DirFS("../../recipes/hello-spack/1.0")); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "pre-install"), "#!/bin/sh\n"+hook, 0o755)
	if _, err := recipe.Load(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestBuildFilesAreNotFollowed has a hook put links where files for Spack are
// written. What it leaves in its working directory stays there for packages.
func TestBuildFilesAreNotFollowed(t *testing.T) {
	needSpack(t)
	victim := filepath.Join(t.TempDir(), "victim")
	write(t, victim, "kept", 0o600)
	r := mustBuild(t, options(t, hostileSpack(t, withMarkers+`
for dir in environments environments/hello compilers compilers/gcc config engine modules; do
	mkdir -p /uenv-ci/$dir
	for name in spack.yaml packages.yaml compilers.yaml config.yaml modules.yaml; do
		ln -sf '`+victim+`' /uenv-ci/$dir/$name
	done
done
mv /uenv-ci/environments /uenv-ci/e && got "the environments"
ln -sf '`+victim+`' /uenv-ci/environments/hello/spack.yaml && got "the environment's file"
echo source > {{ env.build }}/source.tar && [ -f /uenv-ci/source.tar ] || got "no place for sources"
for name in env.json activate.sh; do
	mkdir -p {{ env.mount }}/env/default; ln -s '`+victim+`' {{ env.mount }}/env/$name
done
exit 0
`)))
	if what := got(t, r); what != "" {
		t.Errorf("the hook got:\n%s", what)
	}
	if data, err := os.ReadFile(victim); err != nil || string(data) != "kept" {
		t.Errorf("a file of the host became %q (%v)", data, err)
	}
}

// TestLogsAreOfTheBuild has a package name files of the host as its build log.
func TestLogsAreOfTheBuild(t *testing.T) {
	needSpack(t)
	secret := filepath.Join(t.TempDir(), "config.json")
	write(t, secret, "error: canary\n", 0o644)
	for name, said := range map[string]string{
		"path": secret, "link": "/tmp/spack-stage/log", "dots": "/tmp/../../../../../../../.." + secret,
		"pipe": "/tmp/spack-stage/pipe", "store": "/user-environment/log",
	} {
		t.Run(name, func(t *testing.T) {
			dir := hostileSpack(t, `
mkdir -p /tmp/spack-stage; ln -s '`+secret+`' /tmp/spack-stage/log; ln -s '`+secret+`' {{ env.mount }}/log
mkfifo /tmp/spack-stage/pipe
`)
			file := filepath.Join(dir, "repo/packages/hello-uenv/package.py")
			code, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			write(t, file, `import os, sys
print("==> Installing hello-uenv-1.0-`+strings.Repeat("a", 32)+` [1/1]\n==> Error: x\n\nSee build log for details:\n  `+said+`\n")
sys.stdout.flush()
os._exit(1)
`+string(code), 0o644)
			o := options(t, dir)
			var events log
			o.Events = events.sink()
			r, err := build.Run(t.Context(), o)
			if err == nil {
				r.Close()
				t.Fatal("it was built")
			}
			text := err.Error() + strings.Join(events.lines, "\n")
			logs, globErr := filepath.Glob(filepath.Join(o.LogDir, "*"))
			if globErr != nil || len(logs) == 0 {
				t.Fatalf("no logs (%v): %s", globErr, text)
			}
			for _, file := range logs {
				data, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				text += string(data)
			}
			if strings.Contains(text, "canary") {
				t.Errorf("a file of the host was read:\n%s", text)
			}
			if !strings.Contains(text, "See build log for details") {
				t.Errorf("the package did not do what the test is about:\n%s", text)
			}
		})
	}
}
