package evidence

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/sandbox"
)

func needSandbox(t *testing.T) {
	t.Helper()
	if err := sandbox.Available(t.Context()); err != nil {
		t.Skipf("%v: apt-get install bubblewrap, and allow user namespaces", err)
	}
}

// TestTheImagesTestIsConfined has it look at what is ours, and change what is.
func TestTheImagesTestIsConfined(t *testing.T) {
	needSandbox(t)
	secret := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(secret, []byte("canary"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, mounted := range []Mounted{nil, inside{}} {
		o := options(t, extra(t, map[string]string{"test": check(
			`! cat `+secret+` >&2`,
			`! cat "$PWD/../results/logs/test.log"`,
			`! (cd .. && mv results other && ln -s `+filepath.Dir(secret)+` results)`,
			`touch "$HOME/x" "$TMPDIR/x" here`,
			`[ "$(cat /proc/net/dev | grep -c :)" = 1 ]`, // the loopback device
			`! touch "${0%/*}/new"`,
		)}))
		o.NoSandbox, o.Mounted, o.Hide = false, mounted, []string{secret}
		if v := run(t, o); v.State != meta.Pass || v.Counts.Passed != 6 || !v.Runner.Sandbox {
			log, _ := os.ReadFile(filepath.Join(o.Scratch, "results", "logs", "test.log"))
			t.Errorf("%s: %s\n%s", v.State, v.Reason, log)
		}
	}
}

func TestNoSandboxNoTest(t *testing.T) {
	ran := filepath.Join(t.TempDir(), "ran")
	o := options(t, extra(t, map[string]string{"test": "#!/bin/sh\ntouch " + ran + "\n"}))
	o.NoSandbox = false
	t.Setenv("PATH", t.TempDir())
	if _, err := Run(t.Context(), o); fault.KindOf(err) != fault.Failure || !strings.Contains(fault.HintOf(err), "--no-sandbox") {
		t.Errorf("got %v (%s)", err, fault.HintOf(err))
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("the test ran on the bare machine")
	}
}

// TestTheImagesChecksAreConfined has Python code of the image look at what is ours
// when ReFrame loads it, and put links where results are read.
func TestTheImagesChecksAreConfined(t *testing.T) {
	needSandbox(t)
	secrets := t.TempDir()
	if err := os.WriteFile(filepath.Join(secrets, "rfm_token.out"), []byte("canary"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := withReFrame(t, options(t, extra(t, map[string]string{"reframe/checks.py": `
import os
try:
    print('got', open('` + secrets + `/rfm_token.out').read())
except OSError:
    pass
` + header + `
@rfm.simple_test
class Works(Base):
    executable = 'echo good'

    @run_after('cleanup')
    def leave(self):
        os.chdir(os.environ['OUT'])
        os.rename('stage', 'other')
        os.symlink('` + secrets + `', 'stage')
`})))
	o.Environ, o.Pass = append(o.Environ, "OUT="+filepath.Join(o.Scratch, "work", outDir)), []string{"OUT"}
	o.NoSandbox, o.Hide = false, []string{secrets}
	r, err := Run(t.Context(), o)
	log, _ := os.ReadFile(filepath.Join(o.Scratch, "results", "logs", "reframe.log"))
	if err != nil && !strings.Contains(err.Error(), "keep the output of tests") { // the link is refused
		t.Fatalf("%v\n%s", err, log)
	}
	if err == nil && (r.Verdict.State != meta.Pass || !r.Verdict.Runner.Sandbox) || !strings.Contains(string(log), "Works") {
		t.Errorf("%s: %s\n%s", r.Verdict.State, r.Verdict.Reason, log)
	}
	err = filepath.WalkDir(filepath.Join(o.Scratch, "results"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if strings.Contains(string(text), "canary") {
			t.Errorf("%s holds the secret", path)
		}
		return errors.Join(err)
	})
	if err != nil {
		t.Error(err)
	}
}

func TestReadWritten(t *testing.T) {
	dir := t.TempDir()
	err := errors.Join(
		os.WriteFile(filepath.Join(dir, "file"), []byte("text"), 0o600), os.Symlink("/etc/passwd", filepath.Join(dir, "link")),
		os.WriteFile(filepath.Join(dir, "large"), make([]byte, 11), 0o600), os.Mkdir(filepath.Join(dir, "directory"), 0o700))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if data, err := readWritten(dir, "file", 10); err != nil || string(data) != "text" {
		t.Errorf("got %q, %v", data, err)
	}
	for _, name := range []string{"link", "large", "directory", "pipe", "none"} {
		if data, err := readWritten(dir, name, 10); err == nil {
			t.Errorf("%s: got %q", name, data)
		}
	}
}
