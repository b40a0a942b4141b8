// Command find measures how long 'uenv-ci find' takes in a namespace of thousands
// of tags, beside a bare concurrent client that only fetches the manifests.
//
//	go build -o uenv-ci ./cmd/uenv-ci && go run ./bench/transfer/find -program ./uenv-ci
//
// It starts a registry on loopback with its files in memory, fills it, and runs
// everything in turn. The times are those of whole processes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"uenv-ci.dev/bench/transfer/lab"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/registry"
)

type settings struct {
	server        string // the registry
	program       string
	repositories  int
	tags          int // in each repository
	rounds        int
	workers       int // of the bare client
	withReferrers bool
	namesOnly     bool
}

func main() {
	var s settings
	flag.StringVar(&s.program, "program", "./uenv-ci", "the program to measure")
	flag.IntVar(&s.repositories, "repositories", 500, "how many repositories there are")
	flag.IntVar(&s.tags, "tags", 10, "how many tags each has")
	flag.IntVar(&s.rounds, "rounds", 7, "how often each is measured")
	flag.IntVar(&s.workers, "workers", 16, "connections of the bare client")
	flag.BoolVar(&s.withReferrers, "verdicts", true, "attach a test result to each image")
	bare := flag.String("bare", "", "be the bare client of the registry at this address")
	flag.BoolVar(&s.namesOnly, "names", false, "as the bare client, fetch no manifests")
	server := lab.RegistryFlag()
	flag.Parse()
	s.server = *server
	err := error(nil)
	if *bare != "" {
		err = bareClient(*bare, s)
	} else {
		err = run(context.Background(), s)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "find:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings) error {
	l, err := lab.New(ctx, s.server)
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Printf("%d repositories of %d tags\n", s.repositories, s.tags)
	if err := fill(ctx, l.Address, s); err != nil {
		return err
	}
	return measure(ctx, l, s)
}

// fill pushes an image of its own for each tag, with metadata and a result.
func fill(ctx context.Context, address string, s settings) error {
	reg, err := registry.Open(address+"/uenv", registry.Options{})
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for i := range s.repositories {
		group.Go(func() error {
			repo, err := reg.Repository(fmt.Sprintf("deploy/daint/gh200/stack%d/%d.%d", i%50, i/50, i%7))
			if err != nil {
				return err
			}
			for tag := range s.tags {
				if err := push(ctx, repo, fmt.Sprintf("v%d", tag), fmt.Sprint(i, tag), s); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func push(ctx context.Context, repo *registry.Repository, tag, content string, s settings) error {
	image, err := repo.Push(ctx, registry.Artifact{
		Type: meta.TypeImage, Layers: []registry.Layer{registry.BytesLayer(meta.ImageTitle, "", []byte(content))},
		Annotations: map[string]string{ocispec.AnnotationCreated: "2026-01-02T03:04:05Z", meta.AnnotationMount: "/user-environment"},
	})
	if err != nil {
		return err
	}
	if s.withReferrers {
		_, err = repo.Push(ctx, registry.Artifact{
			Type: meta.TypeMeta, Subject: &image, Layers: []registry.Layer{registry.BytesLayer(meta.MetaTitle, "", []byte("meta"))},
			Annotations: map[string]string{ocispec.AnnotationCreated: "2026-01-02T03:04:05Z"},
		})
	}
	if err != nil {
		return err
	}
	return repo.Tag(ctx, image, tag)
}

// measure runs all in turn, so that what else the machine does meets each alike.
func measure(ctx context.Context, l *lab.Lab, s settings) error {
	address, cacheDir := l.Address, filepath.Join(l.Dir, "cache")
	env := l.Env(address)
	self, err := os.Executable()
	if err != nil {
		return err
	}
	find := func(args ...string) func() error {
		return func() error {
			return count(ctx, env, s, s.program, append([]string{"find", "--quiet", "--no-header"}, args...)...)
		}
	}
	contenders := []*contender{
		{name: "bare client: names", do: func() error {
			return count(ctx, env, s, self, "-bare", address, "-names", "-workers", fmt.Sprint(s.workers))
		}},
		{name: "names", do: find("--names", "--refresh")},
		{name: "bare client: manifests", do: func() error { return count(ctx, env, s, self, "-bare", address, "-workers", fmt.Sprint(s.workers)) }},
		{name: "size and date", do: find("--no-tests", "--refresh")},
		{name: "all columns, from the registry", do: find("--refresh")},
		{name: "all columns, from the cache", do: find()},
	}
	if err := round(contenders, s.rounds); err != nil {
		return err
	}
	if _, err := (proc.Cmd{Path: s.program, Args: []string{"catalog", "rebuild", "--quiet"}, Env: env}).Output(ctx); err != nil {
		return err
	}
	first := func() error { return errors.Join(os.RemoveAll(cacheDir), find()()) }
	indexed := []*contender{{name: "all columns, index, first time", do: first}, {name: "all columns, index", do: find()}}
	if err := round(indexed, s.rounds); err != nil {
		return err
	}
	bare := contenders[2].median()
	fmt.Printf("names take %.2f of the bare client's time for names\n", float64(contenders[1].median())/float64(contenders[0].median()))
	for _, c := range append(contenders, indexed...) {
		fmt.Printf("%-32s %7.1f ms  %5.2f of the bare client  (%s)\n", c.name, ms(c.median()), float64(c.median())/float64(bare), c.spread())
	}
	return nil
}

type contender struct {
	name  string
	do    func() error
	times []time.Duration
}

func round(contenders []*contender, rounds int) error {
	for range rounds {
		for _, c := range contenders {
			start := time.Now()
			if err := c.do(); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			c.times = append(c.times, time.Since(start))
		}
	}
	return nil
}

func (c *contender) median() time.Duration {
	slices.Sort(c.times)
	return c.times[len(c.times)/2]
}

func (c *contender) spread() string {
	return fmt.Sprintf("%.1f to %.1f", ms(c.times[0]), ms(c.times[len(c.times)-1]))
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// count runs a program, which must print a line for each tag.
func count(ctx context.Context, env []string, s settings, program string, args ...string) error {
	out, err := proc.Cmd{Path: program, Args: args, Env: env}.Output(ctx)
	if err != nil {
		return err
	}
	if n := strings.Count(string(out), "\n"); n != s.repositories*s.tags {
		return fmt.Errorf("%d lines, not %d", n, s.repositories*s.tags)
	}
	return nil
}

// bareClient lists the repositories and tags, and fetches each manifest.
func bareClient(address string, s settings) error {
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: s.workers, DisableCompression: true}}
	var names struct{ Repositories []string }
	if err := getPages(client, "http://"+address, "/v2/_catalog?n=1000", func(data []byte) error { return decode(data, &names) }); err != nil {
		return err
	}
	group := errgroup.Group{}
	group.SetLimit(s.workers)
	out := make([][]string, len(names.Repositories))
	for i, name := range names.Repositories {
		if !strings.HasPrefix(name, "uenv/deploy/") {
			continue
		}
		group.Go(func() error {
			var list struct{ Tags []string }
			if err := getPages(client, "http://"+address, "/v2/"+name+"/tags/list", func(data []byte) error { return decode(data, &list) }); err != nil {
				return err
			}
			for _, tag := range list.Tags {
				if strings.HasPrefix(tag, "sha256-") {
					continue
				}
				if s.namesOnly {
					out[i] = append(out[i], name+":"+tag)
					continue
				}
				data, err := get(client, "http://"+address+"/v2/"+name+"/manifests/"+tag)
				if err != nil {
					return err
				}
				out[i] = append(out[i], fmt.Sprintf("%s:%s %d", name, tag, len(data)))
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, lines := range out {
		for _, line := range lines {
			fmt.Println(line)
		}
	}
	return nil
}

func get(client *http.Client, url string) ([]byte, error) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", ocispec.MediaTypeImageManifest)
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, resp.Status)
	}
	return io.ReadAll(resp.Body)
}
