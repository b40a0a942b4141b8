package cli

import (
	"context"
	"os"

	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/mount"
)

func mountCommand() *command {
	return &command{
		name: "mount", group: "Image files", forUsers: true, usage: "mount an image at a directory",
		args: "(LABEL|FILE) DIR", minArgs: 2, maxArgs: 2,
		details: `The content is available, read-only, until DIR is unmounted or this program ends, for
example by Ctrl-C. It is served by FUSE; ordinary users need the program fusermount3
(package fuse3), root needs nothing. To run a command in an image, prefer 'run': it
loads views, needs no helper and leaves nothing to clean up.`,
		examples: `uenv-ci mount ./store.squashfs /tmp/look
# in the background of a shell
uenv-ci mount prgenv-gnu/25.11:v1 /tmp/look & ls /tmp/look; umount /tmp/look`,
		flags: []cli.Flag{
			&cli.BoolFlag{Name: "alone", Usage: "mount without fusermount3: as root, or in namespaces made by 'unshare --mount --map-root-user'"},
		},
		run: runMount,
	}
}

type mountResult struct {
	Label string `json:"label,omitempty"`
	Path  string `json:"path"`
	Dir   string `json:"dir"`
}

func (r mountResult) text(p *printer) {
	what := r.Label
	if what == "" {
		what = r.Path
	}
	p.printf("%s is at %s until 'umount %s' or Ctrl-C", what, r.Dir, r.Dir)
}

// runMount tells its result when the content is there, and then waits.
func runMount(ctx context.Context, in *invocation) (result, error) {
	image, err := in.runnable(ctx, 0)
	if err != nil {
		return nil, err
	}
	if err := image.Verify(ctx, in.events); err != nil {
		return nil, err
	}
	var shown error
	err = mount.Serve(ctx, mount.Served{
		Image: image.Path, Dir: in.arg(1), Alone: in.Bool("alone"), Events: in.events,
		Ready: func() {
			shown = show(in.streams, mountResult{image.Label, image.Path, in.arg(1)}, in.format == "json")
		},
	})
	if err == nil {
		err = shown
	}
	return nil, err
}

// server is the command by which this program serves an image to itself; nil if
// it does not know where it is.
func server() []string {
	self, err := os.Executable()
	if err != nil {
		return nil
	}
	return []string{self, "mount", "--quiet", "--alone"}
}
