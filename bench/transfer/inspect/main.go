// Command inspect counts what a look into an image in a registry takes: requests,
// and bytes that come with the answers.
//
//	go build -o uenv-ci ./cmd/uenv-ci && go run ./bench/transfer/inspect -program ./uenv-ci
//
// It packs a tree of 2 GB in 70,000 files that do not compress, as many packages of an
// installed store, and pushes the image to a registry. The goal is to see
// what such an image is by no more than 6 requests and 256 KiB.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/bench/transfer/lab"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/squashfs"
)

func main() {
	program := flag.String("program", "./uenv-ci", "the program to measure")
	packages := flag.Int("packages", 350, "packages of 200 files, 5.7 MB each")
	each := flag.Bool("each", false, "print each request")
	server := lab.RegistryFlag()
	flag.Parse()
	if err := run(context.Background(), *server, *program, *packages, *each); err != nil {
		fmt.Fprintln(os.Stderr, "inspect:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, server, program string, packages int, each bool) error {
	l, err := lab.New(ctx, server)
	if err != nil {
		return err
	}
	defer l.Close()
	const bare, full = "build::stack/1:bare@daint%gh200", "build::stack/1:full@daint%gh200"
	if err := publish(ctx, l, program, packages, bare, full); err != nil {
		return err
	}
	w, err := newWire(l.Address, each)
	if err != nil {
		return err
	}
	defer w.Close()
	for _, look := range []struct {
		what string
		args []string
		want string // in what it prints
	}{
		{"what is it, no metadata attached", []string{bare}, "/user-environment"},
		{"what is it, metadata attached", []string{full}, "/user-environment"},
		{"list meta/", []string{bare, "meta"}, "env.json"},
		{"meta/env.json", []string{bare, "meta/env.json"}, "user-environment"},
		{"list a package", []string{bare, "package-017/dir3"}, "file49"},
		{"one file of 28 kB", []string{bare, "package-017/dir3/file49"}, ""},
	} {
		w.requests.Store(0)
		w.bytes.Store(0)
		c := proc.Cmd{Path: program, Args: append([]string{"inspect", "--quiet"}, look.args...), Env: l.Env(w.address)}
		out, err := c.Output(ctx)
		if err != nil {
			return err
		}
		if !strings.Contains(string(out), look.want) {
			return fmt.Errorf("%s: got %q", look.what, out)
		}
		fmt.Printf("%-34s %2d requests %7.1f KiB\n", look.what, w.requests.Load(), float64(w.bytes.Load())/1024)
	}
	return nil
}

// publish packs a tree and pushes the image twice: without metadata beside it, as
// other programs may, and as this one does.
func publish(ctx context.Context, l *lab.Lab, program string, packages int, bare, full string) error {
	root, file := filepath.Join(l.Dir, "tree"), filepath.Join(l.Dir, "image")
	defer os.Remove(file)
	if err := grow(root, packages); err != nil {
		return err
	}
	s, err := squashfs.Pack(ctx, root, file, squashfs.WriteOptions{})
	if err != nil {
		return err
	}
	if err := os.RemoveAll(root); err != nil {
		return err
	}
	sum, err := digestOf(file)
	if err != nil {
		return err
	}
	repo, parsed, err := l.Repository(bare)
	if err != nil {
		return err
	}
	image, err := repo.Push(ctx, registry.Artifact{
		Type: meta.TypeImage, Layers: []registry.Layer{registry.FileLayer(file, meta.ImageTitle, sum, s.Size)},
		Annotations: map[string]string{ocispec.AnnotationCreated: "2026-01-02T03:04:05Z"},
	})
	if err == nil {
		err = repo.Tag(ctx, image, parsed.Tag)
	}
	if err != nil {
		return err
	}
	fmt.Printf("image of %.2f GB, %d files\n", float64(s.Size)/1e9, s.Files)
	_, err = proc.Cmd{Path: program, Args: []string{"push", file, full, "--quiet"}, Env: l.Env(l.Address)}.Output(ctx)
	return err
}

func digestOf(file string) (digest.Digest, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return digest.FromReader(f)
}

func grow(root string, packages int) error {
	write := func(name string, data []byte) error {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return os.WriteFile(path, data, 0o644)
	}
	random := rand.NewChaCha8([32]byte{1})
	data := make([]byte, 57_000)
	for k := range packages * 200 {
		part := data[:random.Uint64()%uint64(len(data))]
		random.Read(part)
		if err := write(fmt.Sprintf("package-%03d/dir%d/file%d", k/200, k/50%4, k%50), part); err != nil {
			return err
		}
	}
	for k := range 30 {
		if err := write(fmt.Sprintf("meta/recipe/f%02d.yaml", k), data[:2000]); err != nil {
			return err
		}
	}
	return write(meta.EnvFile, []byte(`{"name":"stack","mount":"/user-environment","views":{}}`))
}

// wire is a proxy before the registry that counts.
type wire struct {
	net.Listener
	address         string
	requests, bytes atomic.Int64
}

func newWire(target string, each bool) (*wire, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &wire{Listener: listener, address: listener.Addr().String()}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: target})
	go http.Serve(listener, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.requests.Add(1)
		if each {
			fmt.Println("  ", r.Method, r.URL, r.Header.Get("Range"))
		}
		proxy.ServeHTTP(counted{rw, w}, r)
	}))
	return w, nil
}

// counted counts the bodies of answers.
type counted struct {
	http.ResponseWriter
	w *wire
}

func (c counted) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.w.bytes.Add(int64(n))
	return n, err
}
