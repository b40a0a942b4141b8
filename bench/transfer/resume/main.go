// Command resume measures what a pull fetches again after it was killed.
//
//	go build -o uenv-ci ./cmd/uenv-ci && go run ./bench/transfer/resume -program ./uenv-ci
//
// A pull gets SIGKILL when nine tenths of the image are in its journal; another
// process pulls the same label. What the registry sends to the second one is
// counted on its connections, headers included.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/bench/transfer/lab"
	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/registry"
)

const label = "build::random/1:1@daint%gh200"

func main() {
	program := flag.String("program", "./uenv-ci", "the program to measure")
	size := flag.Int64("size", 2_000_000_000, "bytes of the image")
	rounds := flag.Int("rounds", 5, "how often it is measured")
	share := flag.Float64("share", 0.9, "share of the image at which the pull is killed")
	server := lab.RegistryFlag()
	flag.Parse()
	if err := run(context.Background(), *server, *program, *size, *rounds, *share); err != nil {
		fmt.Fprintln(os.Stderr, "resume:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, server, program string, size int64, rounds int, share float64) error {
	l, err := lab.New(ctx, server)
	if err != nil {
		return err
	}
	defer l.Close()
	layer, _, err := l.PushRandom(ctx, label, size)
	if err != nil {
		return err
	}
	link, err := lab.NewLink(l.Address, 0, 0)
	if err != nil {
		return err
	}
	defer link.Close()
	var shares []float64
	for range rounds {
		again, err := once(ctx, l, link, program, layer, share)
		if err != nil {
			return err
		}
		shares = append(shares, float64(again)/float64(size))
	}
	fmt.Printf("image of %d bytes, killed at %.0f %%: the second process transfers %.1f %% (median of %d; %.4f)\n",
		size, share*100, lab.Median(shares)*100, rounds, shares)
	return nil
}

// once kills a pull and returns what the next one receives, in bytes.
func once(ctx context.Context, l *lab.Lab, link *lab.Link, program string, layer ocispec.Descriptor, share float64) (int64, error) {
	repo := filepath.Join(l.Dir, "repo")
	defer os.RemoveAll(repo)
	pull := proc.Cmd{Path: program, Args: []string{"pull", label, "--repo", repo, "--quiet"}, Env: l.Env(link.Address)}
	p, err := pull.Start(ctx)
	if err != nil {
		return 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- p.Wait() }()
	for journalled(repo) < int64(share*float64(layer.Size)) {
		select {
		case err := <-ended:
			return 0, fmt.Errorf("the pull ended before it was killed: %w", errors.Join(err, errors.New("try a larger image")))
		case <-time.After(time.Millisecond):
		}
	}
	_ = p.Signal(syscall.SIGKILL)
	<-ended
	link.Sent() // forget what the first one received
	if err := pull.Run(ctx); err != nil {
		return 0, err
	}
	again := link.Sent()
	found, err := filepath.Glob(filepath.Join(repo, "images", "*", "store.squashfs"))
	if err != nil || len(found) != 1 {
		return 0, fmt.Errorf("%d images in the repository: %w", len(found), err)
	}
	return again, lab.CheckFile(found[0], layer)
}

// journalled is how many bytes the journal of the running pull claims at least.
func journalled(repo string) int64 {
	found, _ := filepath.Glob(filepath.Join(repo, "images", ".*.partial", "store.squashfs"+registry.JournalSuffix))
	if len(found) != 1 {
		return 0
	}
	info, err := os.Stat(found[0])
	if err != nil {
		return 0
	}
	const header, record, chunk = 200, 12, 1 << 20 // at most; see internal/registry/journal.go
	return max(0, info.Size()-header) / record * chunk
}
