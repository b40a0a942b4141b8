package pipeline

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/slurm"
)

// kinds of the exit codes that the program promises.
func kindOf(code int) fault.Kind {
	return map[int]fault.Kind{7: fault.TestsFailed, 9: fault.Untested, 130: fault.Interrupted, 3: fault.Invalid}[code]
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

const aVerdict = "results/verdict.json"

// What ends a job from outside is never a verdict about the image.
func TestJudgeJob(t *testing.T) {
	job := func(state slurm.State, exit, nodes string) slurm.Status {
		return slurm.Status{ID: "7", State: state, ExitCode: exit, Nodes: nodes}
	}
	for name, c := range map[string]struct {
		status slurm.Status
		files  map[string]string
		kind   fault.Kind
		says   string // "" if there is a verdict
	}{
		"passed":                       {status: job(slurm.Completed, "0:0", "n"), files: map[string]string{jobEnded: "0\n", aVerdict: "{}"}},
		"failed":                       {status: job(slurm.Failed, "7:0", "n"), files: map[string]string{jobEnded: "7\n", aVerdict: "{}"}},
		"untested":                     {status: job(slurm.Failed, "9:0", "n"), files: map[string]string{jobEnded: "9\n", aVerdict: "{}"}},
		"passed before the time limit": {status: job(slurm.Timeout, "0:15", "n"), files: map[string]string{jobEnded: "0\n", aVerdict: "{}"}},
		"passed without memory":        {status: job(slurm.OutOfMemory, "0:125", "n"), files: map[string]string{jobEnded: "0\n", aVerdict: "{}"}},
		"failed without memory":        {job(slurm.OutOfMemory, "0:125", "n"), map[string]string{jobEnded: "7\n", aVerdict: "{}"}, fault.Network, "OUT_OF_MEMORY"},
		"no ReFrame there":             {job(slurm.Failed, "9:0", "n"), map[string]string{jobEnded: "9\n", jobErrors: `{"error":"no ReFrame","code":9,"hint":"install it"}` + "\n"}, fault.Untested, "no ReFrame"},
		"a bad recipe":                 {job(slurm.Failed, "3:0", "n"), map[string]string{jobEnded: "3\n", jobErrors: "a warning\n" + `{"error":"bad","code":3}` + "\n"}, fault.Invalid, "bad"},
		"another architecture":         {job(slurm.Failed, "126:0", "n"), map[string]string{jobEnded: "126\n", jobErrors: "slurm_script: 3: uenv-ci: Exec format error\n"}, fault.Failure, "Exec format error"},
		"the time limit":               {job(slurm.Timeout, "0:15", "n"), map[string]string{jobLog: "x\n*** DUE TO TIME LIMIT ***\n"}, fault.Untested, "TIME LIMIT"},
		"the time limit, told to end":  {job(slurm.Timeout, "0:15", "n"), map[string]string{jobEnded: "130\n"}, fault.Untested, "TIMEOUT"},
		"cancelled":                    {job(slurm.Cancelled, "0:15", "n"), map[string]string{jobEnded: "130\n"}, fault.Untested, "CANCELLED"},
		"cancelled, and so its tests":  {job(slurm.Cancelled, "0:15", "n"), map[string]string{jobEnded: "7\n", aVerdict: "{}"}, fault.Untested, "CANCELLED"},
		"ended, and so its tests":      {job(slurm.Timeout, "0:15", "n"), map[string]string{jobEnded: "7\n", aVerdict: "{}"}, fault.Untested, "TIMEOUT"},
		"cancelled while it waited":    {job(slurm.Cancelled, "0:0", ""), nil, fault.Untested, "CANCELLED"},
		"deadline":                     {job(slurm.Deadline, "0:1", ""), nil, fault.Untested, "DEADLINE"},
		"node failed":                  {job(slurm.NodeFail, "143:0", "n"), nil, fault.Network, "NODE_FAIL"},
		"memory":                       {job(slurm.OutOfMemory, "0:125", "n"), nil, fault.Network, "OUT_OF_MEMORY"},
		"preempted":                    {job(slurm.Preempted, "0:15", "n"), map[string]string{jobEnded: "130\n"}, fault.Network, "PREEMPTED"},
		"did not boot":                 {job(slurm.BootFail, "0:0", ""), nil, fault.Network, "BOOT_FAIL"},
		"killed":                       {job(slurm.Failed, "0:9", "n"), nil, fault.Network, "FAILED"},
		"the program killed":           {job(slurm.Failed, "137:0", "n"), map[string]string{jobEnded: "137\n", jobErrors: "Killed\n"}, fault.Network, "FAILED"},
		"no such directory there":      {job(slurm.Failed, "0:53", "n"), nil, fault.Untested, "could not use"},
		"bad constraints":              {job(slurm.Failed, "0:1", ""), nil, fault.Untested, "never ran"},
	} {
		dir := t.TempDir()
		write(t, dir, c.files)
		s := InSlurm{Dir: dir, KindOf: kindOf}
		err := s.judge(t.Context(), c.status)
		if (err == nil) != (c.says == "") || err != nil && (fault.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: got kind %v: %v", name, fault.KindOf(err), err)
		}
		if fault.KindOf(err) == fault.TestsFailed {
			t.Errorf("%s is told as a failure of the tests", name)
		}
	}
}

// The script passes arguments on as they are, outlives a signal, and says how the
// program ended.
func TestJobScript(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "it's a $(dir)")
	write(t, dir, map[string]string{jobProgram: "#!/bin/sh\nkill -TERM $PPID\nprintf '%s\\n' \"$@\"\necho said >&2\nexit 7\n"})
	if err := os.Chmod(filepath.Join(dir, jobProgram), 0o700); err != nil {
		t.Fatal(err)
	}
	s := InSlurm{Dir: dir, Args: func(p JobPlaces) []string { return []string{"a b", "'; exit 0 #", p.Timeout.String()} }}
	err := proc.Cmd{Path: "/bin/sh", Stdin: strings.NewReader(s.script(time.Minute)), Env: []string{"PATH=" + os.Getenv("PATH")}}.Run(context.Background())
	if err == nil {
		t.Error("the job has another exit code than the program")
	}
	for name, want := range map[string]string{jobResult: "a b\n'; exit 0 #\n1m0s\n", jobErrors: "said\n"} {
		if data, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(data) != want {
			t.Errorf("%s: got %q, %v", name, data, err)
		}
	}
	if code, ok := s.ended(); !ok || code != 7 {
		t.Errorf("ended with %d, %v", code, ok)
	}
}

// What the program in the job says is told here when its line is complete, but for what
// we tell ourselves.
func TestHearing(t *testing.T) {
	file := filepath.Join(t.TempDir(), jobErrors)
	var told []string
	h := &hearing{file: file, events: func(e event.Event) { told = append(told, string(e.Kind)+" "+e.Stage+" "+e.Message) }}
	h.listen()
	for _, part := range []string{
		`{"level":"info","stage":"test","event":"started","message":"test: extra/test"}` + "\n",
		`{"level":"info","stage":"test","event":"info","mess`, `age":"test: fail greeting"}` + "\nno JSON\n",
		`{"level":"warn","stage":"mount","event":"warning","message":"mount: slow"}` + "\n" + `{"error":"tests failed","code":7}` + "\n",
	} {
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err == nil {
			_, err = f.WriteString(part)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		h.listen()
	}
	if want := []string{"info test fail greeting", "warning mount slow"}; !slices.Equal(told, want) {
		t.Errorf("told %q", told)
	}
}

// What a test without a sandbox puts in the file's place keeps nobody waiting.
func TestHearingEnds(t *testing.T) {
	dir := t.TempDir()
	pipe, endless, link := filepath.Join(dir, "pipe"), filepath.Join(dir, "endless"), filepath.Join(dir, "link")
	err := errors.Join(unix.Mkfifo(pipe, 0o600), os.WriteFile(endless, nil, 0o600), os.Truncate(endless, 1<<40), os.Symlink("/dev/zero", link))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{pipe, endless, link} {
		ended := make(chan struct{})
		h := &hearing{file: file}
		go func() {
			h.listen()
			h.listen()
			close(ended)
		}()
		select {
		case <-ended:
		case <-time.After(time.Minute):
			t.Fatalf("%s: still listening", filepath.Base(file))
		}
		if h.read > maxToldInside || len(h.rest) > atOnce {
			t.Errorf("%s: read %d bytes", filepath.Base(file), h.read)
		}
	}
}

// The tests end so long before the job that their end is a verdict.
func TestJobTimeout(t *testing.T) {
	for limit, want := range map[string]time.Duration{"": 0, "5": 4 * time.Minute, "3:00:00": 2*time.Hour + 59*time.Minute, "0": 0} {
		dir := t.TempDir()
		write(t, dir, map[string]string{"real": "x", "program": "y"})
		if err := os.Symlink("real", filepath.Join(dir, "image")); err != nil {
			t.Fatal(err)
		}
		s := InSlurm{Dir: filepath.Join(dir, "job"), Program: filepath.Join(dir, "program"), Settings: slurm.Settings{"time": limit}}
		if err := os.Mkdir(s.Dir, 0o700); err != nil {
			t.Fatal(err)
		}
		o := TestOptions{Image: Runnable{Path: filepath.Join(dir, "image")}}
		if got, err := s.prepare(t.Context(), o); err != nil || got != want {
			t.Errorf("%q: got %v, %v", limit, got, err)
		}
		for _, name := range []string{jobImage, jobProgram, jobSite} {
			if _, err := os.Stat(filepath.Join(s.Dir, name)); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestCopyFile(t *testing.T) {
	dir := t.TempDir()
	from, copied := filepath.Join(dir, "from"), filepath.Join(dir, "copied")
	write(t, dir, map[string]string{"from": "text"})
	if err := os.Chmod(from, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := copyFile(t.Context(), from, copied, nil); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(copied); err != nil || info.Mode().Perm()&0o700 != 0o700 || info.Size() != 4 {
		t.Errorf("got %v, %v", info, err)
	}
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if err := copyFile(stopped, from, filepath.Join(dir, "stopped"), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestWithoutSlurm(t *testing.T) {
	got := withoutSlurm([]string{"PATH=/bin", "SLURM_JOB_ID=1", "SLURM_TIMELIMIT=5", "RFM_X=y"})
	if !slices.Equal(got, []string{"PATH=/bin", "RFM_X=y"}) {
		t.Errorf("got %v", got)
	}
}

func TestJobSettings(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"config.yaml": `clusters:
  eiger:
    targets:
      - {uarch: zen2, partition: normal, variables: {SLURM_CONSTRAINT: mc, SLURM_TIMELIMIT: "500"}}
    runner: f7t
  two:
    targets:
      - {uarch: a100, partition: gpu, variables: {SLURM_ACCOUNT: own}}
      - {uarch: zen3, partition: cpu}
    runner: {slurm-tag: t, baremetal-tag: null}
uenvs: {}
`})
	matrix := filepath.Join(dir, "config.yaml")
	for name, c := range map[string]struct {
		system, uarch string
		want          string
	}{
		"a target":          {"eiger", "zen2", "account=csstaff constraint=mc partition=normal time=500"},
		"the only target":   {"eiger", "", "account=csstaff constraint=mc partition=normal time=500"},
		"one of two":        {"two", "a100", "account=own partition=gpu"},
		"which of the two?": {"two", "", ""},
		"no such target":    {"eiger", "gh200", ""},
		"no such cluster":   {"daint", "gh200", ""},
	} {
		got, err := JobSettings(matrix, c.system, c.uarch)
		var words []string
		for _, name := range slurm.Names() {
			if value, ok := got[name]; ok {
				words = append(words, name+"="+value)
			}
		}
		if text := strings.Join(words, " "); err != nil || text != c.want {
			t.Errorf("%s: got %q, %v", name, text, err)
		}
	}
	if got, err := JobSettings("", "eiger", "zen2"); got != nil || err != nil {
		t.Errorf("without a matrix: %v, %v", got, err)
	}
}
