// Command upgrade measures what it takes to pull an image of which the one before
// is here: bytes on the wire and time, beside a full pull.
//
//	go build -o uenv-ci ./cmd/uenv-ci && go run ./bench/transfer/upgrade -program ./uenv-ci
//
// It makes a tree of files that compress as installed software does, changes five
// per cent of its bytes, in whole packages or in directories scattered over all of
// them, packs and pushes both to Debian's docker-registry, and pulls them through
// a proxy that counts. Everything is in memory; all rounds run in turn. On a link
// of 1 Gbit/s, where tc is to be had:
//
//	unshare -n sh -c 'ip link set lo up && tc qdisc add dev lo root tbf rate 1gbit burst 1mb latency 50ms && go run …'
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"uenv-ci.dev/internal/proc"
)

type settings struct {
	program  string
	packages int
	dirs     int // in each package
	files    int // in each directory
	mean     int // bytes in a file
	rounds   int
}

func main() {
	var s settings
	flag.StringVar(&s.program, "program", "./uenv-ci", "the program to measure")
	flag.IntVar(&s.packages, "packages", 100, "packages in the tree")
	flag.IntVar(&s.dirs, "dirs", 65, "directories in each")
	flag.IntVar(&s.files, "files", 5, "files in each of those")
	flag.IntVar(&s.mean, "mean", 28_000, "mean size of a file, in bytes")
	flag.IntVar(&s.rounds, "rounds", 5, "how often each is measured")
	flag.Parse()
	if err := run(context.Background(), s); err != nil {
		fmt.Fprintln(os.Stderr, "upgrade:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings) error {
	dir, err := os.MkdirTemp("/dev/shm", "uenv-ci-bench-upgrade-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{settings: s, dir: dir}
	stop, err := b.start(ctx)
	if err != nil {
		return err
	}
	defer stop()
	old, err := b.release(ctx, "1", func(int, int) byte { return 0 })
	if err != nil {
		return err
	}
	fmt.Printf("image of %d files: %s\n", s.packages*s.dirs*s.files, mb(old))
	for _, pattern := range []struct {
		name    string
		changed func(p, d int) byte
	}{
		{"whole packages", func(p, _ int) byte { return is(p%20 == 7) }},
		{"scattered directories", func(p, d int) byte { return is((p*s.dirs+d)%20 == 7) }},
	} {
		if err := b.compare(ctx, pattern.name, pattern.changed); err != nil {
			return fmt.Errorf("%s: %w", pattern.name, err)
		}
	}
	return nil
}

func is(b bool) byte {
	if b {
		return 1
	}
	return 0
}

type bench struct {
	settings
	dir   string
	env   []string
	bytes atomic.Int64 // sent to clients
}

// compare measures pulls of an image that differs from the first.
func (b *bench) compare(ctx context.Context, name string, changed func(p, d int) byte) error {
	fresh, err := b.release(ctx, "2", changed)
	if err != nil {
		return err
	}
	alone, err := b.alone(ctx, changed)
	if err != nil {
		return err
	}
	var wires, wholes []int64
	var times, fullTimes []time.Duration
	for range b.rounds {
		repo := filepath.Join(b.dir, "repo")
		if _, _, err := b.pull(ctx, repo, "1"); err != nil {
			return err
		}
		wire, took, err := b.pull(ctx, repo, "2")
		if err != nil {
			return err
		}
		empty := filepath.Join(b.dir, "empty")
		whole, fullTook, err := b.pull(ctx, empty, "2")
		if err := errors.Join(err, os.RemoveAll(repo), os.RemoveAll(empty)); err != nil {
			return err
		}
		wires, wholes = append(wires, wire), append(wholes, whole)
		times, fullTimes = append(times, took), append(fullTimes, fullTook)
	}
	wire, whole, took, full := median(wires), median(wholes), median(times), median(fullTimes)
	fmt.Printf("%s, 5%% changed: image %s, the change alone packs to %s\n", name, mb(fresh), mb(alone))
	fmt.Printf("  bytes   %s by difference, %s in full: %.2f of the change, %.3f of the image\n",
		mb(wire), mb(whole), float64(wire)/float64(alone), float64(wire)/float64(fresh))
	fmt.Printf("  wall    %.2f s by difference, %.2f s in full: %.2f\n", took.Seconds(), full.Seconds(), took.Seconds()/full.Seconds())
	return nil
}

func median[T int64 | time.Duration](values []T) T {
	slices.Sort(values)
	return values[len(values)/2]
}

func mb(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

func (b *bench) pull(ctx context.Context, repo, version string) (int64, time.Duration, error) {
	b.bytes.Store(0)
	start := time.Now()
	err := b.do(ctx, "pull", "build::stack/"+version+":1@daint%gh200", "--repo", repo)
	return b.bytes.Load(), time.Since(start), err
}

func (b *bench) do(ctx context.Context, args ...string) error {
	_, err := proc.Cmd{Path: b.program, Args: append(args, "--quiet"), Env: b.env}.Output(ctx)
	return err
}

// release makes a tree, packs it and pushes it; it returns the image's size.
func (b *bench) release(ctx context.Context, version string, changed func(p, d int) byte) (int64, error) {
	file := filepath.Join(b.dir, version+".squashfs")
	size, err := b.pack(ctx, file, changed, false)
	if err == nil {
		err = b.do(ctx, "push", file, "build::stack/"+version+":1@daint%gh200")
	}
	return size, errors.Join(err, os.Remove(file))
}

// alone is the size of an image of what changed only.
func (b *bench) alone(ctx context.Context, changed func(p, d int) byte) (int64, error) {
	file := filepath.Join(b.dir, "alone.squashfs")
	size, err := b.pack(ctx, file, changed, true)
	return size, errors.Join(err, os.Remove(file))
}

func (b *bench) pack(ctx context.Context, file string, changed func(p, d int) byte, only bool) (int64, error) {
	root := filepath.Join(b.dir, "tree")
	if err := b.tree(root, changed, only); err != nil {
		return 0, err
	}
	err := b.do(ctx, "pack", root, "--out", file)
	info, statErr := os.Stat(file)
	if err := errors.Join(err, statErr, os.RemoveAll(root)); err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// tree writes the files; with only, those that changed.
func (b *bench) tree(root string, changed func(p, d int) byte, only bool) error {
	env := `{"name":"stack","mount":"/user-environment","views":{}}`
	if err := errors.Join(os.MkdirAll(filepath.Join(root, "meta"), 0o755), os.WriteFile(filepath.Join(root, "meta", "env.json"), []byte(env), 0o644)); err != nil {
		return err
	}
	for p := range b.packages {
		for d := range b.dirs {
			generation := changed(p, d)
			if only && generation == 0 {
				continue
			}
			dir := filepath.Join(root, fmt.Sprintf("package-%d/dir%d", p, d))
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			for f := range b.files {
				seed := [32]byte{byte(p), byte(d), byte(f), generation}
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file%d", f)), content(seed, b.mean), 0o644); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// content is random words, of which some are common: it compresses to about two
// fifths. Most files are small and a few are large.
func content(seed [32]byte, mean int) []byte {
	random := rand.New(rand.NewChaCha8(seed))
	size := int(random.ExpFloat64() * random.ExpFloat64() * float64(mean))
	data := make([]byte, 0, size+16)
	for len(data) < size {
		if random.IntN(3) == 0 {
			data = fmt.Appendf(data, "%x", random.Uint64())
		} else {
			data = append(data, words[random.IntN(len(words))]...)
		}
	}
	return data[:size]
}

var words = []string{
	"\x7fELF\x02\x01\x01", "static const int ", "return 0;\n", "#include <mpi.h>\n", "\x00\x00\x00\x00\x00\x00\x00\x00", "H\x89\xe5AWAVAU", "void *", "template <typename T> ",
}

// start runs the registry, and a proxy before it that counts what it sends.
func (b *bench) start(ctx context.Context) (stop func(), err error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: %s}\n",
		filepath.Join(b.dir, "data"), address)
	file := filepath.Join(b.dir, "config.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	process, err := proc.Cmd{Path: "docker-registry", Args: []string{"serve", file}, Env: os.Environ()}.Start(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	end := func() { cancel(); process.Wait() }
	if err := waitFor("http://" + address + "/v2/"); err != nil {
		end()
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		end()
		return nil, err
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: address})
	go http.Serve(counting{listener, &b.bytes}, proxy)
	b.env = append(os.Environ(), "UENV_CI_REGISTRY="+listener.Addr().String()+"/uenv", "HOME="+b.dir, "UENV_CI_SITE=", "SOURCE_DATE_EPOCH=1767225600")
	return func() { listener.Close(); end() }, nil
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func waitFor(address string) error {
	for range 100 {
		if resp, err := http.Get(address); err == nil {
			return resp.Body.Close()
		}
		time.Sleep(50 * time.Millisecond)
	}
	return errors.New("docker-registry does not answer")
}

// counting counts the bytes that its connections send, headers included.
type counting struct {
	net.Listener
	bytes *atomic.Int64
}

func (l counting) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return counted{c, l.bytes}, err
}

type counted struct {
	net.Conn
	bytes *atomic.Int64
}

func (c counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.bytes.Add(int64(n))
	return n, err
}
