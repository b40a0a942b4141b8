package cli

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/plan"
)

// dir is where everything about a job is kept.
func (r *planRunner) dir(j plan.Job) string {
	name := resultsName(j)
	for _, other := range r.plan.Jobs {
		if other.ID != j.ID && resultsName(other) == name { // a/b-1 and a-b/1
			name += fmt.Sprintf("-%.4x", sha256.Sum256([]byte(j.ID)))
			break
		}
	}
	return filepath.Join(r.String("out"), name)
}

func resultsName(j plan.Job) string {
	return strings.Join([]string{j.Name, j.Version, j.System, j.UArch}, "-")
}

// claim makes a job's directory ours until it is released: of two runs at once one would
// remove what the other keeps. A link, which a change of recipes may have brought along,
// would lead to files of others.
func claim(dir string) (release func(), err error) {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, fault.Wrap(fault.Usage, err, "keep the results")
	}
	info, err := os.Lstat(dir)
	if err == nil && !info.IsDir() {
		err = errors.New("it is a link")
	}
	if err != nil {
		return nil, fault.Wrap(fault.Usage, err, "keep the results in %s", dir)
	}
	lock, err := os.OpenFile(filepath.Join(dir, ".lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o666)
	if err != nil {
		return nil, fault.Wrap(fault.Usage, err, "keep the results")
	}
	// Where files cannot be locked, runs go on as if they were alone.
	if errors.Is(unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK) {
		lock.Close()
		err := fault.New(fault.Refused, "another run is just keeping its results in %s", dir)
		return nil, fault.WithHint(err, "wait for its end, or give each run its own --out")
	}
	return func() { lock.Close() }, nil
}
