package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"uenv-ci.dev/internal/registrytest"
)

// commands are what scripts can do besides testscript's own commands.
var commands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"exits":    cmdExits,
	"json":     cmdJSON,
	"save":     cmdSave,
	"registry": cmdRegistry,
	"requests": cmdRequests,
	"breaks":   cmdBreaks,
	"craft":    cmdCraft,
	"blob":     cmdBlob,
	"flip":     cmdFlip,
	"truncate": cmdTruncate,
	"same":     cmdSame,
	"waitfor":  cmdWaitFor,
	"alive":    cmdAlive,
	"tmpfs":    cmdTmpfs,
	"readonly": cmdReadOnly,
	"lockdb":   cmdLockDB,
	"gitlab":   cmdGitLab,
	"slurm":    cmdSlurm,
}

type stateKey struct{}

// state is what a script has started.
type state struct {
	t        testing.TB
	kind     registrytest.Kind
	counter  registrytest.Counter
	breakage breakage
}

func stateOf(ts *testscript.TestScript) *state { return ts.Value(stateKey{}).(*state) }

func usage(ts *testscript.TestScript, ok bool, text string) {
	if !ok {
		ts.Fatalf("usage: %s", text)
	}
}

// exits CODE PROGRAM [ARG...] runs a program that must end with the exit code.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) > 1, "exits CODE PROGRAM [ARG...]")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var ended interface{ ExitCode() int }
	switch err := ts.Exec(args[1], args[2:]...); {
	case errors.As(err, &ended):
		got = ended.ExitCode()
	case err != nil:
		ts.Fatalf("%s: %v", args[1], err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// json FILE PATH REGEXP checks a value of a JSON document, such as .stages.0.name;
// FILE may be stdout or stderr. The .len of a list is its length.
func cmdJSON(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) == 3, "[!] json FILE PATH REGEXP")
	value := lookup(ts, args[0], args[1])
	matched, err := regexp.MatchString("^(?:"+args[2]+")$", value)
	ts.Check(err)
	if matched == neg {
		ts.Fatalf("%s is %q", args[1], value)
	}
}

// save NAME FILE PATH puts a value of a JSON document into a variable.
func cmdSave(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 3, "save NAME FILE PATH")
	value := lookup(ts, args[1], args[2])
	if value == "" {
		ts.Fatalf("%s is empty", args[2])
	}
	ts.Setenv(args[0], value)
}

func lookup(ts *testscript.TestScript, file, path string) string {
	var value any
	decoder := json.NewDecoder(strings.NewReader(ts.ReadFile(file)))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		ts.Fatalf("%s is no JSON: %v", file, err)
	}
	if decoder.More() {
		ts.Fatalf("%s holds more than one JSON document", file)
	}
	for _, key := range strings.Split(strings.TrimPrefix(path, "."), ".") {
		switch v := value.(type) {
		case map[string]any:
			value = v[key]
		case []any:
			if key == "len" {
				return strconv.Itoa(len(v))
			}
			i, err := strconv.Atoi(key)
			if err != nil || i < 0 || i >= len(v) {
				return ""
			}
			value = v[i]
		default:
			return ""
		}
	}
	if value == nil {
		return ""
	}
	if text, ok := value.(string); ok {
		return text
	}
	data, err := json.Marshal(value)
	ts.Check(err)
	return string(data)
}

// flip FILE OFFSET changes a bit of a file; a negative offset counts from the end.
func cmdFlip(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "flip FILE OFFSET")
	path := ts.MkAbs(args[0])
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	data, err := os.ReadFile(path)
	ts.Check(err)
	if at < 0 {
		at += len(data)
	}
	if at < 0 || at >= len(data) {
		ts.Fatalf("%s has %d bytes", args[0], len(data))
	}
	data[at] ^= 0x10
	ts.Check(os.WriteFile(path, data, 0o644))
}

// truncate FILE SIZE cuts a file.
func cmdTruncate(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 2, "truncate FILE SIZE")
	size, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	ts.Check(os.Truncate(ts.MkAbs(args[0]), size))
}

// same DIR DIR compares names, kinds, permissions to execute and contents below
// two directories.
func cmdSame(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) == 2, "[!] same DIR DIR")
	a, err := listing(ts.MkAbs(args[0]))
	ts.Check(err)
	b, err := listing(ts.MkAbs(args[1]))
	ts.Check(err)
	if (a == b) == neg {
		ts.Fatalf("%s:\n%s\n%s:\n%s", args[0], a, args[1], b)
	}
}

func listing(root string) (string, error) {
	var out strings.Builder
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		content := ""
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			content = fmt.Sprintf("%v %q", info.Mode()&0o100 != 0, data)
		case info.Mode()&os.ModeSymlink != 0:
			if content, err = os.Readlink(path); err != nil {
				return err
			}
		}
		fmt.Fprintf(&out, "%v %s %s\n", info.Mode().Type(), name, content)
		return nil
	})
	return out.String(), err
}

// waitfor PATTERN waits until a file appears.
func cmdWaitFor(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, !neg && len(args) == 1, "waitfor PATTERN")
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		found, err := filepath.Glob(ts.MkAbs(args[0]))
		ts.Check(err)
		if len(found) > 0 {
			return
		}
	}
	ts.Fatalf("%s has not appeared", args[0])
}

// alive COMMAND tells whether a process with this command line lives; "! alive"
// gives it some time to end.
func cmdAlive(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) == 1, "[!] alive COMMAND")
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		alive := lives(ts, args[0])
		if alive != neg {
			return
		}
		if !neg || time.Now().After(end) {
			ts.Fatalf("%s: alive is %v", args[0], alive)
		}
	}
}

func lives(ts *testscript.TestScript, command string) bool {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	ts.Check(err)
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err == nil && strings.ReplaceAll(strings.TrimRight(string(line), "\x00"), "\x00", " ") == command {
			return true
		}
	}
	return false
}
