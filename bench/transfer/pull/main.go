// Command pull measures 'uenv-ci pull' of a large image over loopback, beside
// 'crane blob' and a bare curl.
//
//	go build -o uenv-ci ./cmd/uenv-ci && go build -C tools -o "$PWD/bin/" tool
//	go run ./bench/transfer/pull -program ./uenv-ci -crane bin/crane
//
// The blob is random, the registry has it in memory, and what is pulled goes to
// memory. All run in turn; the times are those of whole processes, and each file
// is compared with its digest afterwards. curl checks nothing: it shows what the
// bytes alone cost. The oras client is no module that tools/go.mod could build.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/bench/memory"
	"uenv-ci.dev/bench/transfer/lab"
	"uenv-ci.dev/internal/proc"
)

type settings struct {
	program, crane, server string
	size                   int64
	rounds                 int
	connections            string
}

func main() {
	var s settings
	flag.StringVar(&s.program, "program", "./uenv-ci", "the program to measure")
	flag.StringVar(&s.crane, "crane", "crane", "crane, built from tools/go.mod")
	flag.Int64Var(&s.size, "size", 2_000_000_000, "bytes of the image")
	flag.IntVar(&s.rounds, "rounds", 7, "how often each is measured")
	flag.StringVar(&s.connections, "connections", "", "pull with so many connections instead of adapting")
	server := lab.RegistryFlag()
	flag.Parse()
	s.server = *server
	if err := run(context.Background(), s); err != nil {
		fmt.Fprintln(os.Stderr, "pull:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings) error {
	if err := lab.Programs(s.program, s.crane, "curl", s.server); err != nil {
		return err
	}
	l, err := lab.New(ctx, s.server)
	if err != nil {
		return err
	}
	defer l.Close()
	const label = "build::random/1:1@daint%gh200"
	layer, _, err := l.PushRandom(ctx, label, s.size)
	if err != nil {
		return err
	}
	release, err := memory.Keep(l.Dir, 2*s.size)
	if err != nil {
		return err
	}
	defer release()
	fmt.Printf("image of %d bytes, %d rounds\n", s.size, s.rounds)
	contenders := s.contenders(l, label, layer)
	if err := lab.Rounds(ctx, s.rounds, contenders...); err != nil {
		return err
	}
	lab.Report(contenders...)
	return nil
}

func (s settings) contenders(l *lab.Lab, label string, layer ocispec.Descriptor) []*lab.Contender {
	repo, file := filepath.Join(l.Dir, "repo"), filepath.Join(l.Dir, "file")
	clean := func() error { return os.RemoveAll(repo) }
	pulled := func() error {
		found, err := filepath.Glob(filepath.Join(repo, "images", "*", "store.squashfs"))
		if err == nil && len(found) != 1 {
			err = fmt.Errorf("%d images in the repository", len(found))
		}
		if err != nil {
			return err
		}
		if err := lab.CheckFile(found[0], layer); err != nil {
			return err
		}
		return os.RemoveAll(repo)
	}
	args := []string{"pull", label, "--repo", repo, "--quiet"}
	if s.connections != "" {
		args = append(args, "--connections", s.connections)
	}
	fetched := func() error {
		if err := lab.CheckFile(file, layer); err != nil {
			return err
		}
		return os.Remove(file)
	}
	name := l.Address + "/uenv/build/daint/gh200/random/1"
	url := fmt.Sprintf("http://%s/v2/uenv/build/daint/gh200/random/1/blobs/%s", l.Address, layer.Digest)
	return []*lab.Contender{
		{Name: "uenv-ci pull", Command: proc.Cmd{Path: s.program, Args: args, Env: l.Env(l.Address)}, Before: clean, After: pulled},
		{Name: "crane blob", Command: proc.Cmd{Path: s.crane, Args: []string{"blob", "--insecure", name + "@" + layer.Digest.String()}, Env: os.Environ()}, Out: file, After: fetched},
		{Name: "curl", Command: proc.Cmd{Path: "curl", Args: []string{"-sS", "--fail", "-o", file, url}, Env: os.Environ()}, After: fetched},
	}
}
