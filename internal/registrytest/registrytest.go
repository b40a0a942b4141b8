// Package registrytest starts registries for tests: in-process ones of several
// kinds, Debian's docker-registry where it is installed, and handlers in front of
// them that ask for credentials, count requests or break things on purpose.
package registrytest

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"cuelabs.dev/go/oci/ociregistry/ociserver"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
)

// Kind is a kind of registry.
type Kind string

// The kinds of registries. The in-process ones are libraries, not products, and
// keep everything in memory.
const (
	Referrers  Kind = "referrers"   // ocimem: referrers API, cross-repository mount
	Fallback   Kind = "fallback"    // go-containerregistry: neither of the two
	HalfBroken Kind = "half-broken" // go-containerregistry: a referrers API that gives wrong artifact types and no OCI-Subject
	Docker     Kind = "docker"      // docker-registry 2.8 as a process: no referrers API, mounts
	// Distribution is version 3 of the same, run from the program that
	// UENV_CI_DISTRIBUTION names; no system packages it.
	Distribution Kind = "distribution"
)

// InProcess are the kinds that work everywhere.
var InProcess = []Kind{Referrers, Fallback, HalfBroken}

// Middleware is a handler around a registry.
type Middleware func(http.Handler) http.Handler

// Handler returns a new, empty registry of an in-process kind, or nil for others.
func Handler(kind Kind) http.Handler {
	quiet := ggcr.Logger(log.New(io.Discard, "", 0))
	switch kind {
	case Referrers:
		return ociserver.New(ocimem.New(), nil)
	case Fallback:
		return ggcr.New(quiet)
	case HalfBroken:
		return ggcr.New(quiet, ggcr.WithReferrersSupport(true))
	}
	return nil
}

// Start starts an empty registry behind the given handlers, the first one
// outermost, and returns its address "127.0.0.1:PORT". It ends with the test. A
// kind that is not installed skips the test.
func Start(t testing.TB, kind Kind, around ...Middleware) string {
	t.Helper()
	h := Handler(kind)
	if h == nil {
		address := startProcess(t, kind)
		if len(around) == 0 {
			return address
		}
		h = proxyTo(address)
	}
	return Serve(t, h, around...)
}

// idleLimit ends connections that clients of earlier trials have left open.
const idleLimit = 3 * time.Second

// Serve serves any handler as Start does.
func Serve(t testing.TB, h http.Handler, around ...Middleware) string {
	t.Helper()
	server := start(t, wrap(h, around), (*httptest.Server).Start)
	return strings.TrimPrefix(server.URL, "http://")
}

// ServeTLS serves any handler over HTTPS and returns the address and the file of
// the certificate authority that a client must trust.
func ServeTLS(t testing.TB, h http.Handler, around ...Middleware) (address, caFile string) {
	t.Helper()
	server := start(t, wrap(h, around), (*httptest.Server).StartTLS)
	return strings.TrimPrefix(server.URL, "https://"), writePEM(t, server.Certificate())
}

// start starts a server that ends with the test, and with it what handlers wait for:
// to close is to wait for them.
func start(t testing.TB, h http.Handler, how func(*httptest.Server)) *httptest.Server {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	server := httptest.NewUnstartedServer(h)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // broken connections are meant
	server.Config.IdleTimeout = idleLimit
	server.Config.ConnContext = withConn
	server.Config.BaseContext = func(net.Listener) context.Context { return ctx }
	how(server)
	t.Cleanup(func() { stop(); server.Close() })
	return server
}

func wrap(h http.Handler, around []Middleware) http.Handler {
	for i := len(around) - 1; i >= 0; i-- {
		h = around[i](h)
	}
	return h
}

// freePort returns a loopback address that nobody listens on just now.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// startupLimit is how long a registry process may take to answer at all.
const startupLimit = 30 * time.Second
