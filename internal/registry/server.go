package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"

	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
)

// server is a remote registry that speaks the OCI distribution protocol.
type server struct {
	scheme string // "http" or "https"
	host   string // with port, if one was given
	prefix string // path before every repository, without slashes at its ends
	client *auth.Client
	retry  RetryOptions
	events event.Sink

	noReferrers atomic.Bool // the referrers API was asked for and is not there
}

// openRemote understands "[http[s]://]HOST[:PORT][/PREFIX]".
func openRemote(address string, o Options) (*server, error) {
	scheme, host, prefix, err := splitAddress(address)
	if err != nil {
		return nil, err
	}
	s := &server{scheme: chooseScheme(scheme, host, o), host: host, prefix: prefix, retry: o.Retry, events: o.Events}
	transport, err := newTransport(o)
	if err != nil {
		return nil, err
	}
	credential, err := o.Credentials.lookup(host, o)
	if err != nil {
		return nil, err
	}
	s.client = &auth.Client{
		Client:     &http.Client{Transport: transport, CheckRedirect: checkRedirect},
		Credential: credential,
		Cache:      auth.NewCache(),
		ClientID:   "uenv-ci",
	}
	s.client.SetUserAgent(orDefault(o.UserAgent, "uenv-ci"))
	return s, nil
}

func orDefault(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

// splitAddress returns the parts of an address, checked; scheme and prefix may be "".
func splitAddress(address string) (scheme, host, prefix string, err error) {
	scheme, rest, explicit := strings.Cut(address, "://")
	if !explicit {
		scheme, rest = "", address
	}
	host, prefix, _ = strings.Cut(strings.TrimRight(rest, "/"), "/")
	return scheme, host, prefix, checkAddress(address, scheme, host, prefix)
}

func checkAddress(address, scheme, host, prefix string) error {
	u, err := url.Parse("https://" + host)
	switch {
	case strings.Contains(address, "@"): // also behind a slash: of a password
		return fault.New(fault.Usage, "a registry address must not contain credentials")
	case scheme != "" && scheme != "http" && scheme != "https":
		return fault.New(fault.Usage, "registry address %q: unknown scheme %q", address, scheme)
	case err != nil || u.Hostname() == "" || u.Host != host:
		return fault.New(fault.Usage, "registry address %q: %q is not HOST or HOST:PORT", address, host)
	case prefix != "" && !label.RegistryPath(prefix):
		err := fault.New(fault.Usage, "registry address %q: %q is not a legal path", address, prefix)
		return fault.WithHint(err, "%s", label.RegistryHint)
	}
	return nil
}

// chooseScheme uses plain HTTP where that was asked for, and for loopback
// addresses unless a certificate authority was given for them.
func chooseScheme(asked, host string, o Options) string {
	switch {
	case asked != "":
		return asked
	case o.PlainHTTP, o.CAFile == "" && isLoopback(host):
		return "http"
	}
	return "https"
}

func isLoopback(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	ip := net.ParseIP(strings.Trim(name, "[]"))
	return name == "localhost" || ip != nil && ip.IsLoopback()
}

// newTransport returns the connections with their retries. Compression is off:
// a blob must arrive as the bytes that its digest names. So is HTTP/2, which
// would send all ranges of a blob through one connection.
func newTransport(o Options) (http.RoundTripper, error) {
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: connectTimeout}).DialContext,
		TLSNextProto:          map[string]func(string, *tls.Conn) http.RoundTripper{},
		MaxIdleConnsPerHost:   maxIdle,
		IdleConnTimeout:       idleTimeout,
		TLSHandshakeTimeout:   connectTimeout,
		ExpectContinueTimeout: connectTimeout,
		DisableCompression:    true,
	}
	if o.CAFile != "" {
		pool, err := certificates(o.CAFile)
		if err != nil {
			return nil, err
		}
		t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &retrier{base: &watcher{t, o.Retry.stall()}, options: o.Retry, events: o.Events}, nil
}

func certificates(file string) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read certificate authority: %w", fileError(err))
	}
	if !pool.AppendCertsFromPEM(data) {
		return nil, fault.New(fault.Invalid, "%s holds no certificate in PEM form", file)
	}
	return pool, nil
}

const maxRedirects = 10

// checkRedirect follows registries to their object storage, but not from HTTPS
// to HTTP. The client removes the Authorization header on the way elsewhere, and we the
// address that it tells as the referer: that may have a token in it.
func checkRedirect(req *http.Request, via []*http.Request) error {
	switch {
	case len(via) >= maxRedirects:
		return fault.New(fault.Network, "stopped after %d redirects", maxRedirects)
	case via[0].URL.Scheme == "https" && req.URL.Scheme != "https":
		return fault.New(fault.Network, "the registry redirects from HTTPS to %s", strings.ToUpper(req.URL.Scheme))
	}
	req.Header.Del("Referer")
	return nil
}

func (s *server) String() string {
	address := s.host
	if s.scheme == "http" && !isLoopback(s.host) {
		address = "http://" + address
	}
	if s.prefix != "" {
		address += "/" + s.prefix
	}
	return address
}

func (s *server) fullName(path string) string {
	if s.prefix == "" {
		return path
	}
	return s.prefix + "/" + path
}

func (s *server) repository(path string) store {
	repo := &remote.Repository{Client: s.client, PlainHTTP: s.scheme == "http", TagListMaxPages: maxPages, ReferrerListMaxPages: maxPages}
	repo.Reference.Registry = s.host
	repo.Reference.Repository = s.fullName(path)
	// Never let the library maintain fallback tags: it does so without a lock,
	// and deletes the old list even where another writer has just used it.
	_ = repo.SetReferrersCapability(true)
	return &hosted{server: s, repo: repo}
}

// maxPages bounds what a registry can make us ask for.
const maxPages = 10_000

func (s *server) repositories(ctx context.Context) ([]string, error) {
	registry := &remote.Registry{}
	registry.Client, registry.PlainHTTP = s.client, s.scheme == "http"
	registry.Reference.Registry = s.host
	registry.RepositoryListPageSize = catalogPage
	var found []string
	pages := 0
	err := registry.Repositories(ctx, "", func(names []string) error {
		for _, name := range names {
			if path, ok := strings.CutPrefix(name, s.fullName("")); ok {
				found = append(found, path)
			}
		}
		if pages++; pages > maxPages {
			return errors.New("the list does not end")
		}
		return nil
	})
	if err == nil {
		return found, nil
	}
	err = fmt.Errorf("list repositories of %s: %w", s, failure(err, s.host))
	if kind := fault.KindOf(err); kind == fault.NotFound || kind == fault.Refused || isStatus(err, http.StatusForbidden) {
		err = fault.Wrap(fault.Refused, err, "this registry offers no list of repositories")
		err = fault.WithHint(err, "name system, microarchitecture, name and version")
	}
	return nil, err
}

// catalogPage is what registries give at most in one answer, or fewer.
const catalogPage = 1000
