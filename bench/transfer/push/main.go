// Command push measures the upload of a large image over loopback, beside curl
// with the same requests: POST, and PUT of the whole.
//
//	go build -o uenv-ci ./cmd/uenv-ci && go run ./bench/transfer/push -program ./uenv-ci
//
// "upload" is what a build does, which knows the digest from packing: this program
// runs itself and sends the file with internal/registry. 'uenv-ci push' has to read
// the file first, for its digest, and describes it by chunks. All run in turn against a
// registry with its files in memory, into a repository of their own each time.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/bench/transfer/lab"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/registry"
)

type settings struct {
	server  string // the registry
	program string
	size    int64
	rounds  int
}

func main() {
	var s settings
	flag.StringVar(&s.program, "program", "./uenv-ci", "the program to measure")
	flag.Int64Var(&s.size, "size", 2_000_000_000, "bytes of the image")
	flag.IntVar(&s.rounds, "rounds", 5, "how often each is measured")
	upload := flag.String("upload", "", "send this FILE to the repository in the environment")
	server := lab.RegistryFlag()
	flag.Parse()
	s.server = *server
	err := error(nil)
	if *upload != "" {
		err = send(context.Background(), *upload)
	} else {
		err = run(context.Background(), s)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "push:", err)
		os.Exit(1)
	}
}

// send is what a build does with the image that it has packed.
func send(ctx context.Context, file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	reg, err := registry.Open(os.Getenv("BENCH_REGISTRY"), registry.Options{})
	if err != nil {
		return err
	}
	repo, err := reg.Repository(os.Getenv("BENCH_REPOSITORY"))
	if err != nil {
		return err
	}
	layer := registry.FileLayer(file, meta.ImageTitle, digest.Digest(os.Getenv("BENCH_DIGEST")), info.Size())
	d, err := repo.Push(ctx, registry.Artifact{Type: meta.TypeImage, Layers: []registry.Layer{layer}})
	if err == nil {
		err = repo.Tag(ctx, d, "1")
	}
	return err
}

func run(ctx context.Context, s settings) error {
	if err := lab.Programs(s.program, "curl", s.server); err != nil {
		return err
	}
	l, err := lab.New(ctx, s.server)
	if err != nil {
		return err
	}
	defer l.Close()
	file, tree := filepath.Join(l.Dir, "image"), filepath.Join(l.Dir, "tree")
	if err := s.image(ctx, l, tree, file); err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	sum, err := digest.FromReader(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	// Blobs that are there would not be sent again.
	forget := func() error { return os.RemoveAll(filepath.Join(l.Dir, "data", "docker")) }
	const script = `set -e
location=$(curl -sS --fail -X POST -D - -o /dev/null "$1/v2/$2/blobs/uploads/" | tr -d '\r' | sed -n 's/^Location: //p')
curl -sS --fail -T "$3" -H 'Content-Type: application/octet-stream' "$location&digest=$4"`
	env := append(os.Environ(), "BENCH_REGISTRY=http://"+l.Address, "BENCH_REPOSITORY=upload", "BENCH_DIGEST="+sum.String())
	upload := &lab.Contender{Name: "upload", Before: forget, Command: proc.Cmd{Path: self, Args: []string{"-upload", file}, Env: env}}
	curl := &lab.Contender{Name: "curl", Before: forget, Command: proc.Cmd{
		Path: "sh", Args: []string{"-c", script, "sh", "http://" + l.Address, "curl", file, sum.String()}, Env: os.Environ(),
	}}
	push := &lab.Contender{Name: "uenv-ci push", Before: forget, Command: proc.Cmd{
		Path: s.program, Args: []string{"push", file, "build::random/1:1@daint%gh200", "--quiet"}, Env: l.Env(l.Address),
	}}
	if err := lab.Rounds(ctx, s.rounds, curl, upload, push); err != nil {
		return err
	}
	fmt.Printf("image of about %d bytes, %d rounds\n", s.size, s.rounds)
	lab.Report(curl, upload, push)
	return nil
}

// image packs a tree of random files.
func (s settings) image(ctx context.Context, l *lab.Lab, tree, file string) error {
	defer os.RemoveAll(tree)
	err := errors.Join(
		os.MkdirAll(filepath.Join(tree, "meta"), 0o755),
		os.WriteFile(filepath.Join(tree, "meta", "env.json"), []byte(`{"name":"random","mount":"/user-environment","views":{}}`), 0o644),
	)
	if err != nil {
		return err
	}
	if _, err := l.RandomFile(filepath.Join(tree, "data"), s.size); err != nil {
		return err
	}
	return proc.Cmd{Path: s.program, Args: []string{"pack", tree, "--out", file, "--quiet"}, Env: l.Env(l.Address)}.Run(ctx)
}
