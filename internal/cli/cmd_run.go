package cli

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/mount"
	"uenv-ci.dev/internal/pipeline"
	"uenv-ci.dev/internal/proc"
)

// Exit codes of run beside those of the command: as of env(1).
const (
	cannotRun = 125 // the image could not be mounted
	notFound  = 127 // there is no such command
)

func runCommand() *command {
	return &command{
		name: "run", group: "Users", forUsers: true, takesLocal: true, usage: "run a command inside an image",
		args: "(LABEL|FILE) -- COMMAND [ARG…]", minArgs: 1, maxArgs: 1, takesCmd: true,
		details: `The image is mounted for this command only, with the environment of the given views,
or of the image's default view. The exit code is the command's; 125 means that the
image could not be mounted, 126 and 127 that the command could not be run.`,
		examples: `uenv-ci run prgenv-gnu/25.11:v1 -- gcc --version
uenv-ci run --view modules ./store.squashfs -- bash`,
		flags: append([]cli.Flag{
			&cli.StringSliceFlag{Name: "view", Aliases: []string{"v"}, Usage: "load the `VIEW`; may be repeated, or a comma-separated list"},
			&cli.BoolFlag{Name: "no-default-view", Usage: "load no view unless one is given"},
		}, mountFlags()...),
		run: runRun,
	}
}

func runRun(ctx context.Context, in *invocation) (result, error) {
	if len(in.tail) == 0 {
		return nil, usageError([]string{"run"}, "no command given after '--'")
	}
	if err := mount.CheckSession(in.getenv); err != nil {
		return nil, err
	}
	image, err := in.runnable(ctx, 0)
	if err != nil {
		return nil, hintDescription(err, in.arg(0))
	}
	views := image.ChooseViews(commaList(in.StringSlice("view")), !in.Bool("no-default-view"))
	environ, err := image.Environ(in.environ, views)
	if err != nil {
		return nil, err
	}
	if len(in.StringSlice("method")) == 0 {
		if client, ok := mount.FindClient(ctx); ok {
			if run := in.handover(image, views); client.Check(run) == nil {
				if err := image.Verify(ctx, in.onlyWarnings()); err != nil {
					return nil, err
				}
				return nil, proc.Replace(client.Path, append([]string{"uenv"}, client.Args(run)...), in.environ)
			}
		}
	}
	mounted, err := in.mount(ctx, image)
	if err != nil {
		in.explain(err)
		return nil, exitStatus(cannotRun)
	}
	defer mounted.Close()
	return nil, in.execute(ctx, mounted, image, views, environ)
}

// handover is the run as the installed uenv client is asked to do it.
func (in *invocation) handover(image pipeline.Runnable, views []string) mount.Run {
	run := mount.Run{MountPoint: in.String("mount"), Wanted: image.Env.Mount, Views: views, Command: in.tail, Repo: image.Repo, Digest: image.Identity}
	if image.Repo == "" {
		run.File = image.Path
	}
	return run
}

func (in *invocation) mount(ctx context.Context, image pipeline.Runnable) (*mount.Mount, error) {
	methods, err := mountMethods(in.StringSlice("method"))
	if err != nil {
		return nil, err
	}
	return image.Mount(ctx, pipeline.MountOptions{MountPoint: in.String("mount"), Methods: methods, Server: server(), Events: in.onlyWarnings()})
}

// execute runs the user's command on the user's terminal.
func (in *invocation) execute(ctx context.Context, m *mount.Mount, image pipeline.Runnable, views, environ []string) error {
	environ = append(environ, m.Session(image.Env.Name, views)...)
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unlessIgnored(syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP)...)
	defer signal.Stop(signals)
	err := m.Run(ctx, proc.Cmd{
		Path: in.tail[0], Args: in.tail[1:], Env: environ,
		Stdin: in.stdin, Stdout: in.stdout, Stderr: in.stderr,
		Foreground: isTerminal(in.stdin) || isTerminal(in.stdout) || isTerminal(in.stderr),
	}, signals)
	var exit *proc.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit):
		if offered := image.Env.ViewNames(); exit.Code == notFound && len(views) == 0 && len(offered) > 0 {
			in.events.Warn("run", "no view of the image was loaded: --view loads %s", strings.Join(offered, ", "))
		}
		return exitStatus(exit.Code)
	}
	in.explain(err)
	return exitStatus(cannotRun)
}

// explain reports an error whose exit code is not that of its kind.
func (in *invocation) explain(err error) { reportError(in.stderr, err, in.format == "json") }

// runnable returns the image that argument i names: a file if it looks like a
// path or is one, else a label of the local repository.
func (in *invocation) runnable(ctx context.Context, i int) (pipeline.Runnable, error) {
	if isPath(in.arg(i)) {
		return pipeline.FileRunnable(in.arg(i), in.events)
	}
	l, err := in.hereLabel(i, "")
	if err != nil {
		return pipeline.Runnable{}, err
	}
	l.Namespace = ""
	all, err := in.openLocals(ctx)
	if err != nil {
		return pipeline.Runnable{}, hintPull(err, l)
	}
	defer all.Close()
	local, records, err := all.lookup(ctx, l)
	if err != nil {
		return pipeline.Runnable{}, hintPull(err, l)
	}
	return pipeline.LocalRunnable(local, records[0])
}

// hintDescription says how that is done here which the uenv client writes into its
// argument: a mount point, and several images.
func hintDescription(err error, arg string) error {
	image, point, mounted := strings.Cut(arg, ":/")
	switch {
	case err == nil:
		return nil
	case strings.Contains(arg, ","):
		return fault.WithHint(err, "one image is taken; the uenv client mounts several at once")
	case mounted:
		return fault.WithHint(err, "a mount point has a flag: %s --mount /%s", image, point)
	}
	return err
}

func hintPull(err error, l label.Label) error {
	if fault.KindOf(err) != fault.NotFound {
		return err
	}
	return fault.WithHint(err, "'uenv-ci pull %s' fetches it, 'uenv-ci ls' lists what is there", l)
}

// mountFlags say where and how an image is mounted.
func mountFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "mount", Usage: "mount at `PATH` instead of the image's own mount point"},
		&cli.StringSliceFlag{Name: "method", Usage: "mount only by `squashfs-mount|kernel|squashfuse|fuse|unpack`"},
	}
}

func mountMethods(names []string) ([]mount.Method, error) {
	var methods []mount.Method
	for _, name := range commaList(names) {
		m, err := mount.ParseMethod(name)
		if err != nil {
			return nil, fault.New(fault.Usage, "%w", err)
		}
		methods = append(methods, m)
	}
	return methods, nil
}
