package registrytest

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"uenv-ci.dev/internal/proc"
)

// dockerConfig is what distribution 2 and 3 are started with. Deletion is off by
// default there; its log goes nowhere.
const dockerConfig = `version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}
http: {addr: %q}
`

// DockerRegistry returns the name of Debian's program, or skips the test.
func DockerRegistry(t testing.TB) string {
	t.Helper()
	return program(t, Docker)
}

// program returns what runs a kind that is a process of its own, or skips.
func program(t testing.TB, kind Kind) string {
	t.Helper()
	if kind == Distribution {
		name := os.Getenv("UENV_CI_DISTRIBUTION")
		if name == "" {
			t.Skip("UENV_CI_DISTRIBUTION does not name a program: go install github.com/distribution/distribution/v3/cmd/registry@v3.1.2")
		}
		return name
	}
	name, ok := proc.Look("docker-registry")
	if !ok {
		t.Skip("docker-registry not installed: apt-get install docker-registry")
	}
	return name
}

// startProcess starts distribution 2 or 3, which read the same configuration.
func startProcess(t testing.TB, kind Kind) string {
	t.Helper()
	program, dir, address := program(t, kind), t.TempDir(), freePort(t)
	config := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil, dockerConfig, filepath.Join(dir, "data"), address), 0o600); err != nil {
		t.Fatal(err)
	}
	output, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	p, err := proc.Cmd{
		Path: program, Args: []string{"serve", config}, Dir: dir,
		Env: []string{"HOME=" + dir, "OTEL_TRACES_EXPORTER=none"}, Stdout: output, Stderr: output,
	}.Start(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- p.Wait() }()
	t.Cleanup(func() {
		_ = p.Signal(syscall.SIGTERM)
		<-ended
	})
	awaitAnswer(t, address, ended, output.Name())
	return address
}

// awaitAnswer returns when the registry answers; it fails if the process ends.
func awaitAnswer(t testing.TB, address string, ended chan error, output string) {
	t.Helper()
	for deadline := time.Now().Add(startupLimit); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		select {
		case err := <-ended:
			ended <- err
			text, _ := os.ReadFile(output)
			t.Fatalf("the registry ended: %v\n%s", err, text)
		default:
		}
		if resp, err := http.Get("http://" + address + "/v2/"); err == nil {
			resp.Body.Close()
			return
		}
	}
	t.Fatalf("the registry at %s does not answer", address)
}

// proxyTo passes requests on to another registry, under the name that the client
// used, so that the addresses in its answers lead through the proxy again.
func proxyTo(address string) http.Handler {
	target := &url.URL{Scheme: "http", Host: address}
	quiet := log.New(io.Discard, "", 0)
	return &httputil.ReverseProxy{ErrorLog: quiet, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Host = r.In.Host
	}}
}

func writePEM(t testing.TB, c *x509.Certificate) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	data := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
