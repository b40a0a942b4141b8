package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/spack"
)

// Failure is the first real error of a build that failed.
type Failure struct {
	Stage string `json:"stage"`
	// Class is the name of a class in docs/build-errors.md.
	Class   string `json:"class"`
	Package string `json:"package,omitempty"` // name-version, "" if none was being installed
	Phase   string `json:"phase,omitempty"`   // of the package's build
	Message string `json:"message"`
	// Excerpt is the part of the log that matters, at most 20 lines. A
	// restricted image has none.
	Excerpt []string `json:"excerpt,omitempty"`
	Hint    string   `json:"hint,omitempty"`
	Log     string   `json:"log,omitempty"` // its file among the logs
	Retried bool     `json:"retried,omitempty"`

	retry bool // another try may help
	// elsewhere says that it is only what became of a failure of another process.
	elsewhere bool
	kind      fault.Kind
	cause     error // nil for what a program said
}

// Unwrap returns the error of our own that the failure is.
func (f *Failure) Unwrap() error { return f.cause }

// Error tells what failed, why, and the lines of the log that matter.
func (f *Failure) Error() string {
	text := f.Message
	switch {
	case f.Package != "" && f.Phase != "":
		text = fmt.Sprintf("%s failed in phase %s: %s", f.Package, f.Phase, f.Message)
	case f.Package != "":
		text = f.Package + ": " + f.Message
	}
	if len(f.Excerpt) > 0 {
		text += "\n  " + strings.Join(f.Excerpt, "\n  ")
	}
	return text
}

// fault returns the failure as an error with kind and hint.
func (f *Failure) fault() error {
	err := fault.New(f.kind, "%w", f)
	if f.Hint == "" {
		return err
	}
	return fault.WithHint(err, "%s", f.Hint)
}

// explain turns the error of a step into a Failure, as far as it is the error of
// a program that ran. Its class is fallback unless it can be told better.
func (j *job) explain(ctx context.Context, fallback string, err error) error {
	var e *stepError
	if !errors.As(err, &e) || ctx.Err() != nil {
		return err
	}
	classes, err := taxonomy()
	if err != nil {
		return err
	}
	f := &Failure{Class: fallback, Message: e.Error(), Log: filepath.Base(e.log)}
	if said, ok := spack.ReadFailure(e.log); ok {
		j.explainSpack(f, classes, said)
	} else {
		lines := tail(e.log, maxLines)
		found, ok := classifyProgram(classes, lines)
		f.recognize(found, ok)
		if e.code == 128+int(unix.SIGKILL) && !ok {
			f.Class, f.retry = classMemory, true // nobody else would have killed it
		}
		f.Excerpt = lines[max(0, len(lines)-errorLines):]
		if ok {
			f.Excerpt = telling(lines, found.line)
		}
	}
	if j.Restricted {
		f.Message, _, _ = strings.Cut(f.Message, "\n")
		f.Excerpt = nil
	}
	return f.fault()
}

// explainOwn turns an error of our own into a Failure if it is one of the known
// classes, such as no more room or no network.
func explainOwn(ctx context.Context, err error) error {
	if _, ok := errors.AsType[*Failure](err); ok || ctx.Err() != nil {
		return err
	}
	classes, taxonomyErr := taxonomy()
	if taxonomyErr != nil {
		return errors.Join(err, taxonomyErr)
	}
	found, ok := classifyProgram(classes, strings.Split(strings.Replace(err.Error(), syscall.ENOSPC.Error(), "No space left on device", 1), "\n"))
	if !ok {
		return err
	}
	f := &Failure{Message: err.Error(), cause: err}
	f.recognize(found, true)
	if hint := fault.HintOf(err); hint != "" {
		f.Hint = hint
	}
	if kind := fault.KindOf(err); kind != fault.Failure {
		f.kind = kind
	}
	return f.fault()
}

func (j *job) explainSpack(f *Failure, classes []class, said spack.Failure) {
	f.Package, f.Phase, f.Message, f.elsewhere = said.Package, said.Phase, said.Message, said.Elsewhere()
	if said.Package != "" {
		f.Class = classPackage
	}
	var log []string
	if said.Log != "" {
		f.Log = j.keepPackageLogs(said)
		log = tail(filepath.Join(j.cell.logs, f.Log), maxLines)
	}
	found, ok := classify(classes, strings.Split(said.Message, "\n"), log)
	f.recognize(found, ok)
	f.Excerpt = telling(log, found.line)
}

func (f *Failure) recognize(found finding, ok bool) {
	if ok {
		f.Class, f.Hint, f.retry, f.kind = found.name, found.hint, found.retry, found.kind
	}
}

// keepPackageLogs copies the logs of a package that failed to those of the build,
// and returns the name of the main one there. Its path is what a program said, so
// nothing outside the build directory is read.
func (j *job) keepPackageLogs(f spack.Failure) string {
	name := "package-" + filepath.Base(f.Package) + ".log"
	root, err := os.OpenRoot(j.cell.host)
	if err != nil {
		j.Events.Warn("logs", "a log is lost: %v", err)
		return name
	}
	defer root.Close()
	main, err := filepath.Rel(j.cell.host, j.cell.onHost(f.Log))
	if err != nil || !filepath.IsLocal(main) {
		j.Events.Warn("logs", "%s is not a log of this build", f.Log)
		return name
	}
	j.keepLog(root, main, name)
	found := 0
	fs.WalkDir(root.FS(), filepath.Dir(main), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && slices.Contains(moreLogs, d.Name()) && found < maxMoreLogs {
			found++
			j.keepLog(root, path, fmt.Sprintf("package-%s.%d-%s", filepath.Base(f.Package), found, d.Name()))
		}
		return nil
	})
	return name
}

// moreLogs are the files in which the usual build systems write why a check
// failed.
var moreLogs = []string{"config.log", "CMakeError.log", "CMakeOutput.log", "CMakeConfigureLog.yaml", "meson-log.txt"}

const (
	maxMoreLogs = 10
	maxLog      = 32 << 20 // bytes of the end of a log that are kept
)

func (j *job) keepLog(root *os.Root, from, name string) {
	var data []byte
	f, err := root.OpenFile(from, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err == nil {
		data, err = readTail(f, maxLog)
		f.Close()
	}
	if err == nil {
		text := j.redact.Text(strings.ToValidUTF8(string(data), "?"))
		err = os.WriteFile(filepath.Join(j.cell.logs, name), []byte(text), 0o644)
	}
	if err != nil {
		j.Events.Warn("logs", "a log is lost: %v", err)
	}
}

// maxLines is how many lines of a log are searched for an error.
const maxLines = 20_000

var errorWord = regexp.MustCompile(`(?i)\berror\b|undefined reference|not found|cannot find`)

// telling returns the lines of a log that matter: from shortly before the line
// at which its class was recognized, else before the first error, else the last.
func telling(lines []string, start int) []string {
	if start < 0 {
		start = slices.IndexFunc(lines, errorWord.MatchString)
	}
	if start < 0 {
		start = len(lines) - errorLines
	}
	start = max(start-2, 0)
	return lines[start:min(start+errorLines, len(lines))]
}
