package build_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/sandbox"
	"uenv-ci.dev/internal/stack"
)

// needSandbox skips a test where sandboxes do not work.
func needSandbox(t *testing.T) {
	t.Helper()
	if err := sandbox.Available(t.Context()); err != nil {
		t.Skipf("no sandbox here: %v", err)
	}
}

// buildRoot returns a directory for builds and checks at the end that it is empty.
func buildRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	t.Cleanup(func() {
		left, err := filepath.Glob(filepath.Join(root, "*", "*"))
		if err != nil || len(left) > 0 {
			t.Errorf("left behind: %q (%v)", left, err)
		}
	})
	return root
}

// script writes a recipe of the script builder.
func script(t *testing.T, program string) *recipe.Recipe {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "recipe")
	files := map[string]string{
		"config.yaml":       "name: tool\ndescription: a tool\nbuilder: script\nstore: /uenv-ci-test\n",
		"environments.yaml": "views:\n  default:\n    description: all of it\n    prefix_paths:\n      PATH: [bin]\n",
		"data.txt":          "data of the recipe\n",
	}
	for name, text := range files {
		write(t, filepath.Join(dir, name), text, 0o644)
	}
	write(t, filepath.Join(dir, "build"), "#!/bin/sh -e\n"+program, 0o755)
	r, err := recipe.Load(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// log is a sink that remembers. Events come from several goroutines.
type log struct {
	mu    sync.Mutex
	lines []string
}

func (l *log) sink() event.Sink {
	return func(e event.Event) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lines = append(l.lines, string(e.Kind)+" "+e.Stage+": "+e.Message)
	}
}

const installTool = `
mkdir -p "$UENV_MOUNT/bin"
{ echo '#!/bin/sh'; echo "echo $UENV_SYSTEM $UENV_UARCH $UENV_JOBS"; } > "$UENV_MOUNT/bin/tool"
chmod 700 "$UENV_MOUNT/bin/tool"
cp "$UENV_SOURCE/data.txt" "$UENV_MOUNT/data.txt"
ln -s "$UENV_MOUNT/bin/tool" "$UENV_MOUNT/link"
`

func TestScript(t *testing.T) {
	needSandbox(t)
	var events log
	r, err := build.Run(t.Context(), build.Options{
		Stack: stack.Input{Recipe: script(t, installTool+"echo building\n")}, Root: buildRoot(t),
		System: "here", UArch: "zen2", Jobs: 3, Events: events.sink(),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	checkStore(t, r)
	if !strings.Contains(strings.Join(events.lines, "\n"), "info build: building") {
		t.Errorf("events: %q", events.lines)
	}
	if _, err := os.Lstat("/uenv-ci-test"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the mount point was made on the host: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func checkStore(t *testing.T, r *build.Result) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(r.Store, "bin/tool"))
	if want := "#!/bin/sh\necho here zen2 3\n"; err != nil || string(text) != want {
		t.Errorf("bin/tool: %q, %v", text, err)
	}
	if info, err := os.Stat(filepath.Join(r.Store, "bin/tool")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("bin/tool: %v, %v", info.Mode(), err)
	}
	for _, name := range []string{"data.txt", "meta/env.json", "meta/configure.json", "meta/recipe/build", "meta/recipe/config.yaml"} {
		if _, err := os.Stat(filepath.Join(r.Store, name)); err != nil {
			t.Error(err)
		}
	}
	view := r.Meta.Views["default"]
	ops := view.Env.Values.List["PATH"]
	if len(ops) != 1 || ops[0].Op != "prepend" || ops[0].Value[0] != r.Mount+"/bin" || view.Description != "all of it" {
		t.Errorf("view: %+v", view)
	}
	if r.Meta.Name != "tool" || r.Meta.Description != "a tool" || r.Meta.Mount != r.Mount {
		t.Errorf("meta: %+v", r.Meta)
	}
}

func TestScriptWithoutSandbox(t *testing.T) {
	mount := filepath.Join(t.TempDir(), "mount")
	r, err := build.Run(t.Context(), build.Options{
		Stack: stack.Input{Recipe: script(t, installTool), Mount: mount}, Root: buildRoot(t), NoSandbox: true,
		System: "here", UArch: "zen2", Jobs: 3,
	})
	if err != nil {
		t.Fatal(err)
	}
	checkStore(t, r)
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(mount); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the mount point is still there: %v", err)
	}
}

func TestUnusableMountPoints(t *testing.T) {
	full := t.TempDir()
	write(t, filepath.Join(full, "file"), "x", 0o644)
	for mount, want := range map[string]fault.Kind{
		full: fault.Refused, "/no/such/parent": fault.Refused,
		"/usr": fault.Usage, "/etc/x": fault.Usage, "/": fault.Usage, "/uenv-ci": fault.Usage, "/a,b": fault.Usage,
	} {
		r := script(t, "exit 0\n")
		_, err := build.Run(t.Context(), build.Options{
			Stack: stack.Input{Recipe: r, Mount: mount}, Root: buildRoot(t), NoSandbox: true,
		})
		if fault.KindOf(err) != want {
			t.Errorf("%s: %v", mount, err)
		}
	}
	if _, err := os.Stat(filepath.Join(full, "file")); err != nil {
		t.Error(err)
	}
}

func TestEmptyMountPointComesBack(t *testing.T) {
	mount := filepath.Join(t.TempDir(), "mount")
	if err := os.Mkdir(mount, 0o755); err != nil {
		t.Fatal(err)
	}
	r, err := build.Run(t.Context(), build.Options{
		Stack: stack.Input{Recipe: script(t, installTool), Mount: mount}, Root: buildRoot(t), NoSandbox: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(mount); err != nil || len(entries) > 0 {
		t.Errorf("%v, %v", entries, err)
	}
}

func TestFailingScript(t *testing.T) {
	needSandbox(t)
	logs := t.TempDir()
	_, err := build.Run(t.Context(), build.Options{
		Stack: stack.Input{Recipe: script(t, "echo one; echo the reason >&2; exit 4\n")}, Root: buildRoot(t), LogDir: logs,
	})
	if err == nil || !strings.Contains(err.Error(), "build exited with code 4") || !strings.Contains(err.Error(), "the reason") {
		t.Errorf("error: %v", err)
	}
	found, _ := filepath.Glob(filepath.Join(logs, "*build.log"))
	if len(found) != 1 {
		t.Fatalf("logs: %q", found)
	}
	if text, _ := os.ReadFile(found[0]); string(text) != "one\nthe reason\n" {
		t.Errorf("log: %q", text)
	}
}

func TestEnvironment(t *testing.T) {
	needSandbox(t)
	t.Setenv("UENV_CI_TEST_SECRET", "canary")
	t.Setenv("UENV_CI_TEST_ASKED", "asked")
	t.Setenv("UENV_CIBUILDV_LICENCE", "granted")
	r, err := build.Run(t.Context(), build.Options{
		Stack: stack.Input{Recipe: script(t, `env > "$UENV_MOUNT/env"; tr '\0' '\n' < /proc/1/environ >> "$UENV_MOUNT/env"`)},
		Root:  buildRoot(t), Env: []string{"UENV_CI_TEST_ASKED", "UENV_CI_TEST_UNSET"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := os.ReadFile(filepath.Join(r.Store, "env"))
	if err != nil {
		t.Fatal(err)
	}
	text := "\n" + string(data)
	for _, want := range []string{"UENV_CI_TEST_ASKED=asked", "LICENCE=granted", "TZ=UTC", "SOURCE_DATE_EPOCH=315576060", "UENV_MOUNT=/uenv-ci-test"} {
		if !strings.Contains(text, "\n"+want+"\n") {
			t.Errorf("%s is missing", want)
		}
	}
	if strings.Contains(text, "canary") {
		t.Error("a variable that nobody asked for is seen")
	}
}

func TestRecipeIsReadOnly(t *testing.T) {
	needSandbox(t)
	r, err := build.Run(t.Context(), build.Options{Root: buildRoot(t), Stack: stack.Input{Recipe: script(t, `
for f in "$UENV_SOURCE/data.txt" "$UENV_MOUNT/meta/recipe/data.txt" /uenv-ci/store/meta/recipe/data.txt; do
	cat "$f" > /dev/null
	if echo changed > "$f"; then exit 9; fi
done`)}})
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
}

func TestCancel(t *testing.T) {
	needSandbox(t)
	o := build.Options{Stack: stack.Input{Recipe: script(t, "echo ready; sleep 1000\n")}, Root: buildRoot(t)}
	ctx, cancel := cancelOn(t, &o, func(e event.Event) bool { return e.Message == "ready" })
	defer cancel()
	if _, err := build.Run(ctx, o); fault.KindOf(err) != fault.Interrupted {
		t.Errorf("error: %v", err)
	}
}

// cancelOn returns a context that ends when a build emits an event.
func cancelOn(t *testing.T, o *build.Options, is func(event.Event) bool) (context.Context, context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	o.Events = func(e event.Event) {
		if is(e) {
			cancel()
		}
	}
	return ctx, cancel
}

func TestNoRoom(t *testing.T) {
	_, err := build.Run(t.Context(), build.Options{
		Stack: stack.Input{Recipe: script(t, "exit 0\n")}, Root: buildRoot(t), Size: 1 << 60, NoSandbox: true,
	})
	if err == nil || !strings.Contains(err.Error(), "MiB left") || fault.HintOf(err) == "" {
		t.Errorf("error: %v", err)
	}
}
