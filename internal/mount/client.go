package mount

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/localrepo"
	"uenv-ci.dev/internal/proc"
)

const (
	clientName       = "uenv"
	firstDefaultView = 10 // major version that loads an image's default view by itself
)

// Client is the installed uenv client, to which a run is handed over.
type Client struct {
	Path  string
	Major int // version
}

// FindClient looks for a client that can run images: it needs the setuid
// program that mounts.
func FindClient(ctx context.Context) (Client, bool) {
	path, ok := proc.Look(clientName)
	if !ok {
		return Client{}, false
	}
	if _, ok := proc.Look(string(Helper)); !ok {
		return Client{}, false
	}
	major, err := majorVersion(ctx, path)
	return Client{path, major}, err == nil
}

// Run is what is handed over.
type Run struct {
	Repo       string        // local repository, "" for a loose file
	Digest     digest.Digest // the image's in the repository
	File       string        // path of a loose file
	MountPoint string        // "" where the image wants to be
	Wanted     string        // where the image wants to be; "" if nothing says so
	Views      []string      // all that are to be loaded
	Command    []string
}

// Check tells why the client cannot do this run: its grammar of paths is narrow,
// and it needs the mount point on the host.
func (c Client) Check(r Run) error {
	for _, path := range []string{r.Repo, r.File, r.MountPoint} {
		if !localrepo.UsableByClient(path) {
			return fmt.Errorf("the uenv client cannot use the path %s", path)
		}
	}
	point := cmp.Or(r.MountPoint, r.Wanted)
	if info, err := os.Stat(point); point != "" && (err != nil || !info.IsDir()) {
		return fmt.Errorf("the uenv client needs a directory %s on the host", point)
	}
	return nil
}

// Args returns the client's arguments for a run. The image is named by its whole
// digest and for any system, so that the client finds what we found.
func (c Client) Args(r Run) []string {
	var args []string
	what := r.File
	if r.Repo != "" {
		args = append(args, "--repo="+r.Repo)
		what = r.Digest.Encoded() + "@*"
	}
	if r.MountPoint != "" {
		what += ":" + r.MountPoint
	}
	args = append(args, "run")
	switch {
	case len(r.Views) > 0:
		args = append(args, "--view="+strings.Join(r.Views, ","))
	case c.Major >= firstDefaultView:
		args = append(args, "--no-default-view")
	}
	return append(append(args, what, "--"), r.Command...)
}
