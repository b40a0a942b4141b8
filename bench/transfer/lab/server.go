package lab

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"uenv-ci.dev/internal/proc"
)

// RegistryFlag defines the flag that chooses the registry of a benchmark.
func RegistryFlag() *string {
	return flag.String("registry", "docker-registry", "the registry's `PROGRAM`: Debian's docker-registry, 'registry' of distribution 3, or zot")
}

// start runs the registry on a free port.
func (l *Lab) start(ctx context.Context, program string) error {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	l.Address = free.Addr().String()
	free.Close()
	file, err := l.configure(program)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	p, err := proc.Cmd{Path: program, Args: []string{"serve", file}, Env: os.Environ()}.Start(ctx)
	if err != nil {
		cancel()
		return fmt.Errorf("%w (apt-get install docker-registry, or -registry PROGRAM)", err)
	}
	l.end = func() { cancel(); p.Wait() }
	for range 200 {
		if resp, err := http.Get("http://" + l.Address + "/v2/"); err == nil {
			return resp.Body.Close()
		}
		time.Sleep(25 * time.Millisecond)
	}
	return errors.New(program + " does not answer")
}

// configure writes the file that the registry is started with. docker-registry and
// distribution 3 read the same one, zot one of its own.
func (l *Lab) configure(program string) (string, error) {
	data := filepath.Join(l.Dir, "data")
	if !strings.HasPrefix(filepath.Base(program), "zot") {
		file := filepath.Join(l.Dir, "config.yml")
		return file, os.WriteFile(file, fmt.Appendf(nil, "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}\nhttp: {addr: %q}\n", data, l.Address), 0o600)
	}
	host, port, err := net.SplitHostPort(l.Address)
	if err != nil {
		return "", err
	}
	config, err := json.Marshal(map[string]any{
		"distSpecVersion": "1.1.1",
		"storage":         map[string]any{"rootDirectory": data, "gc": false},
		"http":            map[string]any{"address": host, "port": port},
		"log":             map[string]any{"level": "error", "output": os.DevNull},
	})
	if err != nil {
		return "", err
	}
	file := filepath.Join(l.Dir, "config.json")
	return file, os.WriteFile(file, config, 0o600)
}
