package evidence

import (
	"bufio"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"uenv-ci.dev/internal/bounded"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/sandbox"
)

// boxed returns the command that runs c, which is the image's own program or
// loads code of the image, in a sandbox: with the work directory to write to, and
// nothing of what we or our user have.
func (o Options) boxed(ctx context.Context, l layout, c proc.Cmd, readable ...string) (proc.Cmd, error) {
	if o.NoSandbox {
		return o.wrap(c)
	}
	if err := sandbox.Available(ctx); err != nil {
		return c, fault.WithHint(fault.Wrap(fault.KindOf(err), err, "run the image's own tests"),
			"%s; --no-sandbox runs them on the bare machine", fault.HintOf(err))
	}
	c.Env = append(slices.Clip(c.Env), "TMPDIR=/tmp")
	spec := sandbox.Spec{Network: o.Network, Home: l.home, Tmp: l.tmp, Hide: append(slices.Clip(o.Hide), sandbox.RootOnly()...)}
	for _, path := range append(readable, o.Extra) {
		if path != "" {
			spec.Binds = append(spec.Binds, sandbox.Bind{Source: path, Target: path})
		}
	}
	spec.Binds = append(spec.Binds, sandbox.Bind{Source: l.work, Target: l.work, Writable: true})
	if o.Mounted == nil {
		return spec.Command(c)
	}
	return o.Mounted.Sandboxed(spec, c)
}

// installation returns what belongs to a Python program, with its interpreter: it
// may be where a sandbox would hide it.
func installation(program string) []string {
	var found []string
	for _, path := range []string{program, interpreter(program)} {
		real, err := filepath.EvalSymlinks(path)
		if path == "" || err != nil {
			continue
		}
		found = append(found, real)
		prefix := filepath.Dir(filepath.Dir(real))
		if prefix == "/" || prefix == "/usr" {
			continue // all sandboxes have it
		}
		for _, name := range []string{"bin", "lib", "lib64", "pyvenv.cfg", "reframe", "external"} {
			path := filepath.Join(prefix, name)
			if _, err := os.Stat(path); err == nil {
				found = append(found, path)
			}
		}
	}
	return found
}

// interpreter returns the path in a script's first line, "" if it has none.
func interpreter(script string) string {
	f, err := os.Open(script)
	if err != nil {
		return ""
	}
	defer f.Close()
	line, _ := bufio.NewReader(io.LimitReader(f, 4<<10)).ReadString('\n')
	fields := strings.Fields(strings.TrimPrefix(line, "#!"))
	if !strings.HasPrefix(line, "#!") || len(fields) == 0 {
		return ""
	}
	return fields[0]
}

// readWritten reads a file that tests wrote below dir. They may have put
// something else there: a link out of it is not followed, a pipe not waited for.
func readWritten(dir, name string, limit int64) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return bounded.ReadFileIn(root, name, limit)
}
