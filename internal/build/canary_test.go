package build_test

import (
	"archive/tar"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/stack"
	"uenv-ci.dev/internal/testdirs"
)

// TestCanary: a program of the recipe that got hold of secrets says them in every
// way, and fails. Nobody hears of them.
func TestCanary(t *testing.T) {
	needSandbox(t)
	base := t.TempDir()
	canaries := []string{"canary-of-a-variable", "canary/of?a=file", "canary-of-a-configuration"}
	t.Setenv("SOME_API_TOKEN", canaries[0])
	token := filepath.Join(base, "token")
	write(t, token, canaries[1]+"\n", 0o600)
	t.Setenv("DOCKER_CONFIG", base)
	auth := base64.StdEncoding.EncodeToString([]byte("me:" + canaries[2]))
	write(t, filepath.Join(base, "config.json"), `{"auths": {"r": {"auth": "`+auth+`"}}}`, 0o600)
	said := strings.Join(append(canaries, auth, "canary%2Fof%3Fa%3Dfile"), " ")

	var events log
	out, logs := filepath.Join(base, "out"), filepath.Join(base, "logs")
	var report build.Report
	_, err := build.Run(t.Context(), build.Options{
		Report: &report,
		Stack:  stack.Input{Recipe: script(t, "echo '"+said+"'; echo 'error: "+said+"' >&2; printf '"+strings.ReplaceAll(said, "%", "%%")+"'; exit 1\n")},
		Root:   buildRoot(t), Hide: []string{token}, ArchiveDir: out, LogDir: logs, Events: events.sink(),
	})
	if err == nil {
		t.Fatal("it built")
	}
	texts := map[string]string{"the error": err.Error(), "the events": strings.Join(events.lines, "\n"), "the archive": unpack(t, filepath.Join(out, build.LogArchive))}
	if text, err := json.Marshal(report); err == nil {
		texts["the report"] = string(text)
	}
	for _, dir := range []string{out, logs} {
		filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() && filepath.Base(path) != build.LogArchive {
				data, _ := os.ReadFile(path)
				texts[path] = string(data)
			}
			return nil
		})
	}
	if len(texts) < 5 {
		t.Errorf("only %d texts", len(texts))
	}
	for name, text := range texts {
		if !strings.Contains(text, "[secret]") {
			t.Errorf("%s shows nothing: %s", name, text)
		}
		for _, secret := range append(canaries, auth, "canary%2F") {
			if strings.Contains(text, secret) {
				t.Errorf("%s tells %s:\n%s", name, secret, text)
			}
		}
	}
}

// unpack returns the text of all files of a tar.gz.
func unpack(t *testing.T, file string) string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for r := tar.NewReader(zip); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return text.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		text.WriteString("== " + header.Name + "\n")
		if _, err := io.Copy(&text, r); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReportOfFailure(t *testing.T) {
	needSandbox(t)
	out := filepath.Join(t.TempDir(), "out")
	var r build.Report
	_, err := build.Run(t.Context(), build.Options{
		Stack: stack.Input{Recipe: script(t, "echo one; echo 'curl: (6) Could not resolve host: example.org' >&2; exit 4\n")},
		Root:  buildRoot(t), ArchiveDir: out, Report: &r, System: "here",
	})
	var f *build.Failure
	if !errors.As(err, &f) || f.Class != "network" || f.Stage != "build" || len(f.Excerpt) != 2 || fault.KindOf(err) != fault.Network || fault.HintOf(err) == "" {
		t.Errorf("%v: %+v", err, f)
	}
	if r.Failure == nil || r.Failure.Class != "network" || r.Recipe != "tool" || r.System != "here" || r.Started.IsZero() {
		t.Errorf("%+v", r)
	}
	if last := r.Stages[len(r.Stages)-1]; last.Name != "build" || !last.Failed {
		t.Errorf("%+v", r.Stages)
	}
	if text := unpack(t, filepath.Join(out, build.LogArchive)); !strings.Contains(text, "Could not resolve") {
		t.Errorf("archive: %s", text)
	}
}

// TestRestricted: nothing of what a program says gets out.
func TestRestricted(t *testing.T) {
	needSandbox(t)
	out := filepath.Join(t.TempDir(), "out")
	var events log
	var r build.Report
	_, err := build.Run(t.Context(), build.Options{
		Stack: stack.Input{Recipe: script(t, "echo 'error: licensed text'; exit 4\n")},
		Root:  buildRoot(t), ArchiveDir: out, Report: &r, Restricted: true, Events: events.sink(),
	})
	if err == nil || strings.Contains(err.Error()+strings.Join(events.lines, "\n"), "licensed text") {
		t.Errorf("%v, %q", err, events.lines)
	}
	if _, err := os.Stat(out); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an archive of logs: %v", err)
	}
	data, err := json.Marshal(r)
	if err != nil || r.Failure == nil || strings.Contains(string(data), "licensed text") {
		t.Errorf("%s, %v", data, err)
	}
}

// TestHookSecrets: the secret of a hook reaches that hook of a protected build,
// and nothing and nobody else.
func TestHookSecrets(t *testing.T) {
	needSandbox(t)
	dir := testdirs.Visible(t)
	file := filepath.Join(dir, "password")
	write(t, file, "canary-of-a-hook\n", 0o600)
	const program = `
echo "$CSCS_REGISTRY_PASSWORD"
cat ` + "FILE" + ` && exit 9
test "$CSCS_REGISTRY_PASSWORD" = canary-of-a-hook && touch "$UENV_MOUNT/got"
exit 0
`
	for name, test := range map[string]struct {
		hook      string
		protected bool
		want      bool
	}{
		"its own": {"build", true, true}, "another's": {"post-install", true, false}, "of a change": {"build", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			var events log
			logs := t.TempDir()
			r, err := build.Run(t.Context(), build.Options{
				Stack: stack.Input{Recipe: script(t, strings.Replace(program, "FILE", file, 1))}, Root: buildRoot(t), LogDir: logs, Events: events.sink(),
				Protected: test.protected, Hooks: build.Hooks{Secrets: []site.HookSecret{{Hook: test.hook, Env: "CSCS_REGISTRY_PASSWORD", File: site.Literal(file)}}},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if _, err := os.Stat(filepath.Join(r.Store, "got")); (err == nil) != test.want {
				t.Errorf("the hook has it: %v", err == nil)
			}
			text := strings.Join(events.lines, "\n")
			for _, name := range []string{"01-build.log"} {
				data, err := os.ReadFile(filepath.Join(logs, name))
				if err != nil {
					t.Error(err)
				}
				text += string(data)
			}
			if strings.Contains(text, "canary") {
				t.Errorf("told: %s", text)
			}
			if !test.protected && !strings.Contains(text, "hooks get no secrets") {
				t.Errorf("nothing is said: %s", text)
			}
		})
	}
	_, err := build.Run(t.Context(), build.Options{
		Stack: stack.Input{Recipe: script(t, "exit 0\n")}, Root: buildRoot(t), Protected: true,
		Hooks: build.Hooks{Secrets: []site.HookSecret{{Hook: "build", Env: "A", File: site.Literal(filepath.Join(dir, "none"))}}},
	})
	if err == nil {
		t.Error("a secret that is missing is none")
	}
}
