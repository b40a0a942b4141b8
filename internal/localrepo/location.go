package localrepo

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Priorities of repositories: the lowest is searched first.
const (
	priorityDefault = 9
	priorityOther   = 10
)

// Location is where a local repository is or would be.
type Location struct {
	Name     string `json:"name"`
	Path     string `json:"path"`
	Priority int    `json:"priority"`
	Source   string `json:"source"`  // the file or rule that says so
	Default  bool   `json:"default"` // the one into which the client pulls
}

// CanWrite tells whether we could write into a repository at path, which need not
// exist.
func CanWrite(path string) bool {
	path, err := filepath.Abs(path)
	if err != nil {
		return false
	}
	if exists(filepath.Join(path, databaseName)) {
		return writableBy(path)
	}
	for !exists(path) {
		path = filepath.Dir(path)
	}
	return unix.Access(path, unix.W_OK) == nil
}

// Locations returns the repositories that the uenv client would search, in that
// order: those of its configuration files, and the default one.
func Locations(getenv func(string) string) ([]Location, error) {
	config, err := readClientConfig(getenv)
	if err != nil {
		return nil, err
	}
	var all []Location
	if config.repo != nil {
		all = append(all, *config.repo)
	} else if path := searchDefault(getenv); path != "" {
		all = append(all, Location{Name: "default", Path: path, Priority: priorityDefault, Source: "default search", Default: true})
	}
	all = append(all, config.others...)
	slices.SortStableFunc(all, func(a, b Location) int { return cmp.Compare(a.Priority, b.Priority) })
	return all, nil
}

type candidate struct{ base, repo string }

func (c candidate) path() string { return filepath.Join(c.base, c.repo) }

func (c candidate) exists() bool {
	info, err := os.Stat(filepath.Join(c.path(), databaseName))
	return err == nil && info.Mode().IsRegular()
}

func (c candidate) writable() bool {
	return writableMode(c.base) && (!c.exists() || writableMode(c.path()))
}

// writableMode looks at the mode bits only, as the client does.
func writableMode(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().Perm()&0o222 != 0
}

// searchDefault finds the client's default repository: the first place of its
// list with a writable repository, else the first in which one can be made.
func searchDefault(getenv func(string) string) string {
	candidates := defaultCandidates(getenv)
	for _, c := range candidates {
		if c.exists() && c.writable() {
			return c.path()
		}
	}
	for _, c := range candidates {
		if c.writable() {
			return c.path()
		}
	}
	return ""
}

// scratchNames lists the scratch file systems in which the client looks on a
// cluster, and whether it knows the cluster; on others it also looks at $SCRATCH.
func scratchNames(cluster string) (names []string, known bool) {
	switch cluster {
	case "daint", "eiger", "pilatus":
		return []string{"ritom", "capstor", "iopsstor"}, true
	case "clariden", "bristen":
		return []string{"iopsstor", "capstor"}, true
	case "santis":
		return []string{"capstor", "iopsstor"}, true
	}
	return []string{"ritom", "capstor", "iopsstor"}, false
}

// defaultCandidates is the client's list of places, which depends on the cluster.
func defaultCandidates(getenv func(string) string) []candidate {
	var found []candidate
	if user := getenv("USER"); user != "" {
		names, known := scratchNames(getenv("CLUSTER_NAME"))
		for _, name := range names {
			found = append(found, candidate{filepath.Join("/", name, "scratch", "cscs", user), ".uenv-images"})
		}
		if scratch := getenv("SCRATCH"); scratch != "" && !known {
			found = append(found, candidate{scratch, ".uenv-images"})
		}
	}
	if home := getenv("HOME"); home != "" {
		found = append(found, candidate{home, ".uenv/repo"})
	}
	return found
}
