// Command link measures pulls over a long way: 40 ms there and back, and a rate
// that each connection has for itself.
//
//	go build -o uenv-ci ./cmd/uenv-ci && go run ./bench/transfer/link -program ./uenv-ci
//
// The way is a relay in this process (lab.Link), not tc netem: many kernels lack
// that. It has delay and a rate for each connection, no losses and no slow start.
// With -round-trip 0 -rate 0 it is an ideal link, on which many connections must
// not be slower than one.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"uenv-ci.dev/bench/transfer/lab"
	"uenv-ci.dev/internal/proc"
)

func main() {
	program := flag.String("program", "./uenv-ci", "the program to measure")
	size := flag.Int64("size", 512_000_000, "bytes of the image")
	rounds := flag.Int("rounds", 5, "how often each is measured")
	roundTrip := flag.Duration("round-trip", 40*time.Millisecond, "there and back")
	rate := flag.Float64("rate", 25e6, "bytes per second of each connection; 0 is any")
	server := lab.RegistryFlag()
	flag.Parse()
	if err := run(context.Background(), *server, *program, *size, *rounds, *roundTrip, *rate); err != nil {
		fmt.Fprintln(os.Stderr, "link:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, server, program string, size int64, rounds int, roundTrip time.Duration, rate float64) error {
	l, err := lab.New(ctx, server)
	if err != nil {
		return err
	}
	defer l.Close()
	const label = "build::random/1:1@daint%gh200"
	if _, _, err := l.PushRandom(ctx, label, size); err != nil {
		return err
	}
	link, err := lab.NewLink(l.Address, roundTrip, rate)
	if err != nil {
		return err
	}
	defer link.Close()
	repo := filepath.Join(l.Dir, "repo")
	clean := func() error { return os.RemoveAll(repo) }
	pull := func(name string, more ...string) *lab.Contender {
		args := append([]string{"pull", label, "--repo", repo, "--quiet"}, more...)
		return &lab.Contender{Name: name, Command: proc.Cmd{Path: program, Args: args, Env: l.Env(link.Address)}, Before: clean, After: clean}
	}
	one, eight, adaptive := pull("1 connection", "--connections", "1"), pull("8 connections", "--connections", "8"), pull("adaptive")
	if err := lab.Rounds(ctx, rounds, one, eight, adaptive); err != nil {
		return err
	}
	fmt.Printf("image of %d bytes, round trip %v, %.0f MB/s for each connection\n", size, roundTrip, rate/1e6)
	lab.Report(one, eight, adaptive)
	return nil
}
