// Command recipes measures what configuring, linting and planning real recipes
// costs, in CPU time and memory. It needs the corpus of recipes:
//
//	go run ./bench/recipes [-program uenv-ci] [-rounds 5] [-peer VERSION=COMMAND]…
//
// With -peer it runs stackinator on the same inputs in turn: COMMAND is that of the
// stackinator which reads recipes of VERSION, such as 'python v6/bin/stack-config'.
// Neither side clones anything.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"uenv-ci.dev/internal/recipe"
	"uenv-ci.dev/internal/site"
	"uenv-ci.dev/internal/stack"
)

func main() {
	program := flag.String("program", "", "the uenv-ci to measure (else it is built)")
	corpus := flag.String("corpus", cmp.Or(os.Getenv("UENV_CI_CORPUS"), "../shared/corpus"), "directory of real recipes")
	peers := map[int][]string{}
	flag.Func("peer", "stackinator to measure beside, as `VERSION=COMMAND`", func(value string) error {
		version, command, ok := strings.Cut(value, "=")
		n, err := strconv.Atoi(version)
		if !ok || err != nil || command == "" {
			return errors.New("it must be VERSION=COMMAND")
		}
		peers[n] = strings.Fields(command)
		return nil
	})
	rounds := flag.Int("rounds", 5, "how often all is measured; medians are shown")
	flag.Parse()
	b := &bench{program: *program, peers: peers, rounds: *rounds}
	if err := b.run(*corpus); err != nil {
		fmt.Fprintln(os.Stderr, "bench/recipes:", err)
		os.Exit(1)
	}
}

type bench struct {
	program      string
	peers        map[int][]string // commands by the version of recipes they read
	rounds       int
	corpus, work string
	runs         []goldenRun
}

// goldenRun is a run of stackinator that the corpus records.
type goldenRun struct {
	Name    string `json:"name"`
	System  string `json:"system"`
	UArch   string `json:"uarch"`
	Mount   string `json:"mount"`
	Recipe  string `json:"recipe"`
	Cluster string `json:"system_config"`
	Version int    `json:"recipe_version"`
	Derived string `json:"derived"`
	OK      bool   `json:"ok"`
}

func (b *bench) run(corpus string) error {
	var err error
	if b.corpus, err = filepath.Abs(corpus); err != nil {
		return err
	}
	if b.work, err = os.MkdirTemp("", "uenv-ci-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.work)
	if err := b.prepare(); err != nil {
		return err
	}
	fmt.Printf("%d configure runs, medians of %d rounds\n\n", len(b.runs), b.rounds)
	fmt.Printf("%-52s %10s %10s %10s %12s\n", "", "median", "slowest", "limit", "peak memory")
	if err := b.processes(); err != nil {
		return err
	}
	if err := b.library(); err != nil {
		return err
	}
	return b.matrix()
}

func (b *bench) prepare() error {
	if b.program == "" {
		b.program = filepath.Join(b.work, "uenv-ci")
		if out, err := exec.Command("go", "build", "-o", b.program, "./cmd/uenv-ci").CombinedOutput(); err != nil {
			return fmt.Errorf("build: %w\n%s", err, out)
		}
	}
	files, err := filepath.Glob(filepath.Join(b.corpus, "golden*", "*", "run.json"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no corpus at %s: set UENV_CI_CORPUS", b.corpus)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var r goldenRun
		if err := json.Unmarshal(data, &r); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		r.Recipe, r.Cluster = filepath.Join(b.corpus, r.Recipe), filepath.Join(b.corpus, r.Cluster)
		if r.Derived != "" {
			if r.Recipe, err = b.derive(r); err != nil {
				return err
			}
			r.Version = 3
		}
		b.runs = append(b.runs, r)
	}
	return nil
}

var versionLine = regexp.MustCompile(`(?m)^version:.*$`)

// derive copies a recipe and makes it one of version 3.
func (b *bench) derive(r goldenRun) (string, error) {
	dir := filepath.Join(b.work, "derived", r.Name)
	if err := os.CopyFS(dir, os.DirFS(r.Recipe)); err != nil {
		return "", err
	}
	config := filepath.Join(dir, "config.yaml")
	text, err := os.ReadFile(config)
	if err != nil {
		return "", err
	}
	if err := os.Remove(config); err != nil {
		return "", err
	}
	return dir, os.WriteFile(config, versionLine.ReplaceAll(text, []byte("version: 3")), 0o644)
}

// cost is what a process used.
type cost struct {
	cpu    time.Duration
	memory int64 // peak, in bytes
}

// measure runs a process and its children; ok tells whether it may fail.
func measure(ok bool, env []string, name string, args ...string) (cost, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil && ok {
		return cost{}, fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	usage, isUsage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !isUsage {
		return cost{}, fmt.Errorf("%s: no usage", name)
	}
	return cost{cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), usage.Maxrss * 1024}, nil
}

// processes configures every run in a process of its own.
func (b *bench) processes() error {
	ours, theirs := make([][]cost, len(b.runs)), make([][]cost, len(b.runs))
	for range b.rounds {
		for i, r := range b.runs {
			c, err := b.configure(r)
			if err != nil {
				return err
			}
			ours[i] = append(ours[i], c)
			if command := b.peers[r.Version]; command != nil && r.OK {
				if c, err = b.stackinator(command, r); err != nil {
					return err
				}
				theirs[i] = append(theirs[i], c)
			}
		}
	}
	show("configure, one process each", ours, "20 ms")
	if len(b.peers) > 0 {
		show("stackinator on the same", theirs, "")
	}
	return nil
}

func (b *bench) configure(r goldenRun) (cost, error) {
	out := filepath.Join(b.work, "tree")
	c, err := measure(r.OK, nil, b.program, "configure", "--quiet", "--offline", "--recipe", r.Recipe, "--cluster", r.Cluster,
		"--system", r.System, "--uarch", r.UArch, "--mount", r.Mount, "--out", out)
	return c, errors.Join(err, os.RemoveAll(out))
}

// fakeGit stands in for git in the runs of stackinator, which cannot do without
// clones: it makes what is read of them, empty, and costs next to nothing.
const fakeGit = `#!/bin/sh
for last; do :; done
case " $* " in
*" clone "*) mkdir -p "$last/.git" "$last/repos/spack_repo/builtin/packages" "$last/etc/spack/defaults" &&
  echo 'modules: {default: {roots: {tcl: x}}}' > "$last/etc/spack/defaults/modules.yaml" ;;
*" rev-parse "*) echo 0123456789012345678901234567890123456789 ;;
esac
`

func (b *bench) stackinator(command []string, r goldenRun) (cost, error) {
	bin := filepath.Join(b.work, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return cost{}, err
	}
	if err := os.WriteFile(filepath.Join(bin, "git"), []byte(fakeGit), 0o755); err != nil {
		return cost{}, err
	}
	out := filepath.Join(b.work, "theirs")
	// The mount point has to exist.
	args := append(slices.Clone(command[1:]), "-b", out, "-r", r.Recipe, "-s", r.Cluster, "-m", "/usr")
	c, err := measure(true, []string{"CLUSTER_NAME=" + r.System, "PATH=" + bin + ":" + os.Getenv("PATH")}, command[0], args...)
	return c, errors.Join(err, os.RemoveAll(out))
}

// show prints the median and the slowest of the medians of each run.
func show(title string, costs [][]cost, limit string) {
	var cpu []time.Duration
	var memory int64
	for _, of := range costs {
		if len(of) == 0 {
			continue
		}
		var times []time.Duration
		for _, c := range of {
			times = append(times, c.cpu)
			memory = max(memory, c.memory)
		}
		cpu = append(cpu, median(times))
	}
	peak := ""
	if memory > 0 {
		peak = fmt.Sprintf("%.1f MB", float64(memory)/1e6)
	}
	fmt.Printf("%-52s %10s %10s %10s %12s\n", title, millis(median(cpu)), millis(slices.Max(cpu)), limit, peak)
}

func median(d []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(d))
	return sorted[len(sorted)/2]
}

func millis(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000) }

// library does the same within this process: read, render and write. The collector
// is set as the program sets it.
func (b *bench) library() error {
	debug.SetGCPercent(400)
	read, write := make([][]cost, len(b.runs)), make([][]cost, len(b.runs))
	for range b.rounds {
		for i, r := range b.runs {
			before := ownCPU()
			tree, err := render(r)
			if err != nil {
				if r.OK {
					return fmt.Errorf("%s: %w", r.Name, err)
				}
				continue
			}
			rendered := ownCPU()
			if err := tree.Write(filepath.Join(b.work, "tree")); err != nil {
				return err
			}
			read[i] = append(read[i], cost{cpu: rendered - before})
			write[i] = append(write[i], cost{cpu: ownCPU() - before})
			if err := os.RemoveAll(filepath.Join(b.work, "tree")); err != nil {
				return err
			}
		}
	}
	show("configure as a library: read and render", read, "")
	show("configure as a library: and write", write, "5 ms")
	return nil
}

func render(r goldenRun) (*stack.Tree, error) {
	loaded, err := recipe.Load(context.Background(), r.Recipe)
	if err != nil {
		return nil, err
	}
	cluster, err := site.LoadCluster(r.Cluster)
	if err != nil {
		return nil, err
	}
	tree, _, err := stack.Render(stack.Input{Recipe: loaded, Cluster: cluster, System: r.System, Mount: r.Mount, BuildDir: "/build"})
	return tree, err
}

func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// matrix lints and plans the whole matrix of the field. Recipes that the corpus
// lacks are copies of one that it has.
func (b *bench) matrix() error {
	root, err := b.wholeMatrix()
	if err != nil {
		return err
	}
	config := filepath.Join(root, "config.yaml")
	clusters := []string{"--clusters", filepath.Join(b.corpus, "cluster-config", "main"), "--clusters-v1", filepath.Join(b.corpus, "cluster-config", "v5")}
	var lint, plan, both [][]cost
	lint, plan, both = make([][]cost, 1), make([][]cost, 1), make([][]cost, 1)
	for range b.rounds {
		l, err := measure(false, nil, b.program, append([]string{"lint", "--quiet", config}, clusters...)...)
		if err != nil {
			return err
		}
		p, err := measure(false, nil, b.program, append([]string{"ci", "plan", "--all", "--offline", "--quiet", "--matrix", config}, clusters...)...)
		if err != nil {
			return err
		}
		lint[0], plan[0] = append(lint[0], l), append(plan[0], p)
		both[0] = append(both[0], cost{l.cpu + p.cpu, max(l.memory, p.memory)})
	}
	show("lint of the whole matrix", lint, "")
	show("ci plan --all", plan, "")
	show("both", both, "300 ms")
	return nil
}

func (b *bench) wholeMatrix() (string, error) {
	root := filepath.Join(b.work, "matrix")
	if err := os.CopyFS(root, os.DirFS(filepath.Join(b.corpus, "alps-uenv"))); err != nil {
		return "", err
	}
	m, err := site.LoadMatrix(filepath.Join(root, "config.yaml"))
	if err != nil {
		return "", err
	}
	for _, v := range m.Versions {
		for _, r := range v.Recipes {
			dir := filepath.Join(root, "recipes", v.Uenv, r.Path)
			if _, err := os.Stat(dir); r.Dir != "" || err == nil {
				continue
			}
			if err := os.CopyFS(dir, os.DirFS(filepath.Join(root, "recipes", "prgenv-gnu", "25.6", "gh200"))); err != nil {
				return "", err
			}
		}
	}
	return root, nil
}
