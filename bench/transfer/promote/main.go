// Command promote measures 'uenv-ci promote' of an image with three referrers from
// one namespace of a registry to another, for a small and for a large image.
//
//	go tool -modfile tools/go.mod task build && go run ./bench/transfer/promote -program bin/uenv-ci
//
// The registry has its files in memory; each promotion goes to a name of its own.
// docker-registry and distribution 3 have no referrers API. The times are those of
// whole processes; what the program takes to start is measured beside it, with
// 'version'.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/bench/transfer/lab"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/registry"
)

func main() {
	program := flag.String("program", "./uenv-ci", "the program to measure")
	large := flag.Int64("size", 2_000_000_000, "bytes of the large image")
	rounds := flag.Int("rounds", 9, "how often each is measured")
	server := lab.RegistryFlag()
	flag.Parse()
	if err := run(context.Background(), *server, *program, *large, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "promote:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, server, program string, large int64, rounds int) error {
	l, err := lab.New(ctx, server)
	if err != nil {
		return err
	}
	defer l.Close()
	contenders := []*lab.Contender{{Name: "start of the program", Command: proc.Cmd{Path: program, Args: []string{"version"}, Env: l.Env(l.Address)}}}
	for name, size := range map[string]int64{"small": 1_000_000, "large": large} {
		source := "build::" + name + "/1:1@daint%gh200"
		_, image, err := l.PushRandom(ctx, source, size)
		if err == nil {
			err = refer(ctx, l, source, image)
		}
		if err != nil {
			return err
		}
		c := &lab.Contender{Name: fmt.Sprintf("promote, %d MB", size/1e6)}
		n := 0
		c.Before = func() error {
			n++
			to := fmt.Sprintf("deploy::%s/%d:1@daint%%gh200", name, n)
			c.Command = proc.Cmd{Path: program, Env: l.Env(l.Address), Args: []string{
				"promote", source, to, "--override", "tests", "--override", "uarch", "--reason", "a benchmark", "--quiet",
			}}
			return nil
		}
		contenders = append(contenders, c)
	}
	if err := lab.Rounds(ctx, rounds, contenders...); err != nil {
		return err
	}
	lab.Report(contenders...)
	return nil
}

// refer attaches two documents more, besides the metadata.
func refer(ctx context.Context, l *lab.Lab, label string, image ocispec.Descriptor) error {
	repo, _, err := l.Repository(label)
	if err != nil {
		return err
	}
	for _, kind := range []string{meta.TypeSBOM, meta.TypeProvenance} {
		_, err := repo.Push(ctx, registry.Artifact{
			Type: kind, Subject: &image, Layers: []registry.Layer{registry.BytesLayer("document.json", meta.MediaTypeJSON, []byte("{}"))},
			Annotations: map[string]string{ocispec.AnnotationCreated: "2026-01-02T03:04:05Z"},
		})
		if err != nil {
			return err
		}
	}
	return nil
}
