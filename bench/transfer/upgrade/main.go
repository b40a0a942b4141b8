// Command upgrade measures what it takes to pull an image of which the one before
// is here: bytes on the wire and time, beside a full pull.
//
//	go build -o uenv-ci ./cmd/uenv-ci && go run ./bench/transfer/upgrade -program ./uenv-ci
//
// It makes a tree of files that compress as installed software does, changes five
// per cent of its bytes, in whole packages or in directories scattered over all of
// them, packs and pushes both to a registry, and pulls them. Bytes are
// counted by a relay, once; times are taken without it. Everything is in memory; all
// rounds run in turn. On a link of 1 Gbit/s, where tc is to be had:
//
//	unshare -n sh -c 'ip link set lo up && tc qdisc add dev lo root tbf rate 1gbit burst 256kb latency 50ms && ./upgrade …'
//
// Packing takes longer than measuring: -images DIR keeps what was packed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"uenv-ci.dev/bench/transfer/lab"
	"uenv-ci.dev/internal/proc"
)

type settings struct {
	server   string // the registry
	program  string
	images   string // directory of packed images
	packages int
	dirs     int // in each package
	files    int // in each directory
	mean     int // bytes in a file
	rounds   int
}

func main() {
	var s settings
	flag.StringVar(&s.program, "program", "./uenv-ci", "the program to measure")
	flag.StringVar(&s.images, "images", "", "keep packed images in this `DIR`, and take them from there")
	flag.IntVar(&s.packages, "packages", 220, "packages in the tree")
	flag.IntVar(&s.dirs, "dirs", 65, "directories in each")
	flag.IntVar(&s.files, "files", 5, "files in each of those")
	flag.IntVar(&s.mean, "mean", 28_000, "mean size of a file, in bytes")
	flag.IntVar(&s.rounds, "rounds", 5, "how often each is measured")
	server := lab.RegistryFlag()
	flag.Parse()
	s.server = *server
	if err := run(context.Background(), s); err != nil {
		fmt.Fprintln(os.Stderr, "upgrade:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings) error {
	l, err := lab.New(ctx, s.server)
	if err != nil {
		return err
	}
	defer l.Close()
	relay, err := lab.NewLink(l.Address, 0, 0)
	if err != nil {
		return err
	}
	defer relay.Close()
	if s.images == "" {
		s.images = l.Dir
	}
	b := &bench{settings: s, lab: l, relay: relay}
	old, err := b.release(ctx, "1", "old", func(int, int) byte { return 0 })
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
	lab   *lab.Lab
	relay *lab.Link
}

// compare measures pulls of an image that differs from the first.
func (b *bench) compare(ctx context.Context, name string, changed func(p, d int) byte) error {
	file := strings.ReplaceAll(name, " ", "-")
	fresh, err := b.release(ctx, "2", file, changed)
	if err != nil {
		return err
	}
	alone, err := b.pack(ctx, file+"-alone", changed, true)
	if err != nil {
		return err
	}
	repo := filepath.Join(b.lab.Dir, "repo")
	forget := func() error { return os.RemoveAll(repo) }
	before := func() error {
		return errors.Join(forget(), b.do(ctx, b.lab.Address, "pull", labelOf("1"), "--repo", repo))
	}
	if err := before(); err != nil {
		return err
	}
	b.relay.Sent()
	if err := b.do(ctx, b.relay.Address, "pull", labelOf("2"), "--repo", repo); err != nil {
		return err
	}
	wire := b.relay.Sent()
	pull := proc.Cmd{Path: b.program, Args: []string{"pull", labelOf("2"), "--repo", repo, "--quiet"}, Env: b.lab.Env(b.lab.Address)}
	full := &lab.Contender{Name: "in full", Command: pull, Before: forget}
	difference := &lab.Contender{Name: "by difference", Command: pull, Before: before}
	if err := lab.Rounds(ctx, b.rounds, full, difference); err != nil {
		return err
	}
	fmt.Printf("%s, 5%% changed: image %s, the change alone packs to %s\n", name, mb(fresh), mb(alone))
	fmt.Printf("bytes by difference %s: %.2f of the change, %.3f of the image\n", mb(wire), float64(wire)/float64(alone), float64(wire)/float64(fresh))
	lab.Report(full, difference)
	fmt.Printf("wall by difference: %.2f of a full pull\n", difference.Median().Seconds()/full.Median().Seconds())
	return nil
}

func mb(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

func labelOf(version string) string { return "build::stack/" + version + ":1@daint%gh200" }

func (b *bench) do(ctx context.Context, address string, args ...string) error {
	_, err := proc.Cmd{Path: b.program, Args: append(args, "--quiet"), Env: b.lab.Env(address)}.Output(ctx)
	return err
}

// release packs a tree and pushes it; it returns the image's size.
func (b *bench) release(ctx context.Context, version, file string, changed func(p, d int) byte) (int64, error) {
	size, err := b.pack(ctx, file, changed, false)
	if err != nil {
		return 0, err
	}
	return size, b.do(ctx, b.lab.Address, "push", b.fileOf(file), labelOf(version))
}

func (b *bench) fileOf(name string) string { return filepath.Join(b.images, name+".squashfs") }

// pack packs a tree, or with only what changed in it, unless that was done before.
func (b *bench) pack(ctx context.Context, name string, changed func(p, d int) byte, only bool) (int64, error) {
	if info, err := os.Stat(b.fileOf(name)); err == nil {
		return info.Size(), nil
	}
	root := filepath.Join(b.lab.Dir, "tree")
	defer os.RemoveAll(root)
	if err := b.tree(root, changed, only); err != nil {
		return 0, err
	}
	if err := b.do(ctx, b.lab.Address, "pack", root, "--out", b.fileOf(name)); err != nil {
		return 0, err
	}
	info, err := os.Stat(b.fileOf(name))
	if err != nil {
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
