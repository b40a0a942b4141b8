package registry_test

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/registry"
	. "uenv-ci.dev/internal/registrytest"
)

const username, password = "uenv", "s3cr3t-pass-word"

// noDocker hides the docker configuration of whoever runs the tests.
func noDocker(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	t.Setenv("HOME", t.TempDir())
}

func writeFile(t *testing.T, mode os.FileMode, text string, elem ...string) string {
	t.Helper()
	file := filepath.Join(append([]string{t.TempDir()}, elem...)...)
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return file
}

func dockerConfig(t *testing.T, host, user, pass string) string {
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + pass))
	return writeFile(t, 0o600, fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, auth), "config.json")
}

// environment returns a Getenv that knows these pairs only.
func environment(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func TestCredentialSources(t *testing.T) {
	noDocker(t)
	address := Start(t, Referrers, Basic(username, password))
	good, bad := dockerConfig(t, address, username, password), dockerConfig(t, address, username, "wrong")
	elsewhere := dockerConfig(t, "example.org", username, password)
	token := writeFile(t, 0o600, password+"\nsecond line\n", "TOKEN")
	ours := environment("UENV_CI_REGISTRY_USERNAME", username, "UENV_CI_REGISTRY_PASSWORD", password)
	cscs := environment("CSCS_REGISTRY_USERNAME", username, "CSCS_REGISTRY_PASSWORD", password)
	wrong := environment("UENV_CI_REGISTRY_USERNAME", username, "UENV_CI_REGISTRY_PASSWORD", "wrong")
	for name, c := range map[string]struct {
		credentials registry.Credentials
		ok          bool
	}{
		"none":                              {registry.Credentials{}, false},
		"docker file":                       {registry.Credentials{DockerConfig: good}, true},
		"docker file, wrong":                {registry.Credentials{DockerConfig: bad}, false},
		"docker file for another":           {registry.Credentials{DockerConfig: elsewhere}, false},
		"docker file before environment":    {registry.Credentials{DockerConfig: bad, Getenv: ours}, false},
		"environment for what a file lacks": {registry.Credentials{DockerConfig: elsewhere, Getenv: ours}, true},
		"environment":                       {registry.Credentials{Getenv: ours}, true},
		"environment of the pipeline":       {registry.Credentials{Getenv: cscs}, true},
		"token file":                        {registry.Credentials{TokenFile: token, Username: username}, true},
		"token directory":                   {registry.Credentials{TokenFile: filepath.Dir(token), Username: username}, true},
		"token of another user":             {registry.Credentials{TokenFile: token, Username: "other"}, false},
		"token before environment":          {registry.Credentials{TokenFile: token, Username: username, Getenv: wrong}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if c.credentials.Getenv == nil {
				c.credentials.Getenv = environment()
			}
			p := backend{address: address, options: registry.Options{Credentials: c.credentials}}.repository(t, "hello/1.0")
			_, err := p.Push(t.Context(), artifact(image, "hello", nil))
			if c.ok && err != nil {
				t.Error(err)
			}
			if !c.ok {
				wantKind(t, err, fault.Unauthorized)
				if err != nil && (strings.Contains(err.Error(), password) || fault.HintOf(err) == "") {
					t.Errorf("error %q, hint %q", err, fault.HintOf(err))
				}
			}
		})
	}
}

func TestDockerConfigurationOfTheUser(t *testing.T) {
	address := Start(t, Referrers, Basic(username, password))
	t.Setenv("DOCKER_CONFIG", filepath.Dir(dockerConfig(t, address, username, password)))
	push(t, at(t, address), artifact(image, "hello", nil))
}

func TestCredentialHelper(t *testing.T) {
	address := Start(t, Referrers, Basic(username, password))
	helper := fmt.Sprintf("#!/bin/sh\nread host\necho '{\"ServerURL\":\"'$host'\",\"Username\":%q,\"Secret\":%q}'\n", username, password)
	program := writeFile(t, 0o700, helper, "docker-credential-test")
	t.Setenv("PATH", filepath.Dir(program)+string(os.PathListSeparator)+os.Getenv("PATH"))
	config := writeFile(t, 0o600, fmt.Sprintf(`{"credHelpers":{%q:"test"}}`, address), "config.json")
	t.Setenv("DOCKER_CONFIG", filepath.Dir(config))
	push(t, at(t, address), artifact(image, "hello", nil))

	config = writeFile(t, 0o600, `{"credsStore":"is-not-installed"}`, "config.json")
	t.Setenv("DOCKER_CONFIG", filepath.Dir(config))
	_, err := at(t, address).Push(t.Context(), artifact(image, "hello", nil))
	wantKind(t, err, fault.Unauthorized)
	if err == nil || !strings.Contains(err.Error(), "docker-credential-is-not-installed") {
		t.Errorf("%v does not name the helper", err)
	}
}

func TestCredentialsOfTheMiddleware(t *testing.T) {
	noDocker(t)
	const jobToken = "job-t0ken"
	var query string
	good := fmt.Sprintf(`{"container_registry":{"username":%q,"password":%q}}`, username, password)
	middleware := func(status int, body string) func(string) string {
		address := Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			query = r.URL.RequestURI()
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}))
		return environment("CSCS_CI_MW_URL", "http://"+address+"/ci", "CI_JOB_TOKEN", jobToken, "CI_JOB_ID", "42")
	}
	address := Start(t, Referrers, Basic(username, password))
	for name, c := range map[string]struct {
		getenv func(string) string
		kind   fault.Kind
	}{
		"good":      {middleware(200, good), fault.Failure},
		"forbidden": {middleware(403, ""), fault.Unauthorized},
		"none":      {middleware(200, "{}"), fault.Unauthorized},
		"web page":  {middleware(200, "<html>"), fault.Unauthorized},
		"down":      {environment("CSCS_CI_MW_URL", "http://127.0.0.1:1", "CI_JOB_TOKEN", jobToken, "CI_JOB_ID", "42"), fault.Network},
	} {
		t.Run(name, func(t *testing.T) {
			o := registry.Options{Credentials: registry.Credentials{Getenv: c.getenv}}
			_, err := backend{address: address, options: o}.repository(t, "hello/1.0").Push(t.Context(), artifact(image, "hello", nil))
			if c.kind == fault.Failure {
				if err != nil || query != "/ci/credentials?creds=container_registry&job_id=42&token="+jobToken {
					t.Errorf("asked %s: %v", query, err)
				}
				return
			}
			wantKind(t, err, c.kind)
			if strings.Contains(fmt.Sprint(err), jobToken) {
				t.Errorf("the job's token is in %q", err)
			}
		})
	}
}

func TestMistakesInCredentialsShowAtOnce(t *testing.T) {
	for name, c := range map[string]registry.Credentials{
		"no token file":   {TokenFile: "/does/not/exist", Username: username},
		"empty token":     {TokenFile: writeFile(t, 0o600, "\n", "TOKEN"), Username: username},
		"directory only":  {TokenFile: t.TempDir(), Username: username},
		"no docker file":  {DockerConfig: "/does/not/exist"},
		"docker not JSON": {DockerConfig: writeFile(t, 0o600, "auths:", "config.json")},
	} {
		if _, err := registry.Open("127.0.0.1:5000", registry.Options{Credentials: c}); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
}

func TestTokenFileThatOthersCanRead(t *testing.T) {
	var warnings []string
	sink := event.Sink(func(e event.Event) { warnings = append(warnings, e.Message) })
	token := writeFile(t, 0o644, password, "TOKEN")
	if err := os.Chmod(token, 0o644); err != nil {
		t.Fatal(err)
	}
	o := registry.Options{Events: sink, Credentials: registry.Credentials{TokenFile: token, Username: username}}
	if _, err := registry.Open("127.0.0.1:5000", o); err != nil || len(warnings) != 1 || strings.Contains(warnings[0], password) {
		t.Errorf("%v, warnings %q", err, warnings)
	}
}

func TestBearerTokens(t *testing.T) {
	noDocker(t)
	tokens := &Tokens{Username: username, Password: password, Anonymous: true}
	address := Start(t, Referrers, tokens.Middleware())
	staff := backend{address: address, options: registry.Options{Credentials: registry.Credentials{
		Getenv: environment("UENV_CI_REGISTRY_USERNAME", username, "UENV_CI_REGISTRY_PASSWORD", password),
	}}}.open(t)
	src, dst := repository(t, staff, "build/hello/1.0"), repository(t, staff, "deploy/hello/1.0")
	d, all := pushFamily(t, src)
	report, err := registry.Copy(t.Context(), src, d, dst, registry.CopyOptions{Tag: "v1"})
	if err != nil || report.Bytes != 0 {
		t.Errorf("copy with one token for both: %+v, %v", report, err)
	}
	checkFamily(t, repository(t, backend{address: address}.open(t), "deploy/hello/1.0"), d, all)
	_, err = repository(t, backend{address: address}.open(t), "deploy/hello/1.0").Push(t.Context(), artifact(image, "x", nil))
	wantKind(t, err, fault.Unauthorized)
	if n := tokens.Issued(); n > 12 {
		t.Errorf("%d tokens were asked for: they are not kept", n)
	}
}

func TestTokensThatExpireInMidTransfer(t *testing.T) {
	noDocker(t)
	tokens := &Tokens{Username: username, Password: password, Uses: 4}
	address := Start(t, Referrers, tokens.Middleware(), Faults(Rule{Method: "GET", Path: "blobs", Times: 12, Fault: ResetAfter(1 << 20)}))
	p := backend{address: address, options: registry.Options{Credentials: registry.Credentials{
		Getenv: environment("UENV_CI_REGISTRY_USERNAME", username, "UENV_CI_REGISTRY_PASSWORD", password),
	}}}.repository(t, "hello/1.0")
	l := blobOf(17 << 20)
	push(t, p, registry.Artifact{Type: image, Layers: []registry.Layer{l}})
	before := tokens.Issued()
	readAll(t, p, l.Descriptor)
	if tokens.Issued() < before+2 {
		t.Error("no token expired")
	}
}

// Object storage refuses requests that carry credentials besides its signature.
func TestRedirectedBlobsCarryNoCredentials(t *testing.T) {
	noDocker(t)
	var leaked, asked atomic.Int32
	store := Handler(Referrers)
	storage := Serve(t, store, func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			if r.Header.Get("Authorization") != "" {
				leaked.Add(1)
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			next.ServeHTTP(w, r)
		})
	})
	address := Serve(t, store, Basic(username, password), Faults(
		Rule{Method: "GET", Path: "blobs", Fault: Redirect("http://" + storage)},
	))
	o := registry.Options{Credentials: registry.Credentials{DockerConfig: dockerConfig(t, address, username, password)}}
	p := backend{address: address, options: o}.repository(t, "hello/1.0")
	l := blobOf(100)
	push(t, p, registry.Artifact{Type: image, Layers: []registry.Layer{l}})
	readAll(t, p, l.Descriptor)
	if asked.Load() == 0 || leaked.Load() != 0 {
		t.Errorf("%d requests at the storage, %d with credentials", asked.Load(), leaked.Load())
	}
}

// Who is asked last is not told by which address the client came: that may have a token
// in it. Another port of the host is another server.
func TestRedirectedRequestsTellNoSecrets(t *testing.T) {
	noDocker(t)
	var told http.Header
	elsewhere := Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		told = r.Header.Clone()
		fmt.Fprintf(w, `{"container_registry":{"username":%q,"password":%q}}`, username, password)
	}))
	service := Serve(t, http.RedirectHandler("http://"+elsewhere+"/", http.StatusFound))
	address := Start(t, Referrers, Basic(username, password), Faults(Rule{Method: "GET", Path: "manifests", Times: 2, Fault: Redirect("http://" + elsewhere)}))
	o := registry.Options{Retry: quickly, Credentials: registry.Credentials{
		Getenv: environment("CSCS_CI_MW_URL", "http://"+service, "CI_JOB_TOKEN", "job-t0ken", "CI_JOB_ID", "42"),
	}}
	p := backend{address: address, options: o}.repository(t, "hello/1.0")
	push(t, p, artifact(image, "hello", nil))
	if told == nil || told.Get("Referer") != "" || told.Get("Authorization") != "" {
		t.Errorf("the middleware's redirection tells %v", told)
	}
	told = nil
	if _, err := p.Resolve(t.Context(), "1"); err == nil || told == nil || told.Get("Referer") != "" || told.Get("Authorization") != "" {
		t.Errorf("the registry's redirection tells %v, %v", told, err)
	}
}

// A registry says where tokens are given, and gets the credentials there anyway; but
// nobody gets them to whom that place redirects.
func TestRedirectedTokenRequestsCarryNoCredentials(t *testing.T) {
	noDocker(t)
	for name, auth := range map[string]string{
		"a password":        fmt.Sprintf(`"auth": %q`, base64.StdEncoding.EncodeToString([]byte(username+":"+password))),
		"an identity token": fmt.Sprintf(`"identitytoken": %q`, password),
	} {
		told := ""
		elsewhere := Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			told += fmt.Sprint(r.URL, r.Header, string(body))
			fmt.Fprint(w, `{"token": "stolen", "access_token": "stolen"}`)
		}))
		given := 0
		address := Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				given++
				http.Redirect(w, r, "http://"+elsewhere+"/token", http.StatusTemporaryRedirect)
				return
			}
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="test"`, r.Host))
			w.WriteHeader(http.StatusUnauthorized)
		}))
		config := writeFile(t, 0o600, fmt.Sprintf(`{"auths": {%q: {%s}}}`, address, auth), "config.json")
		o := registry.Options{Retry: quickly, Credentials: registry.Credentials{DockerConfig: config}}
		_, err := backend{address: address, options: o}.repository(t, "hello/1.0").Resolve(t.Context(), "1")
		if err == nil || given == 0 || (told != "") != (name == "a password") { // what is sent as a body is not sent on at all
			t.Errorf("%s: %d requests for a token, %v", name, given, err)
		}
		secrets := []string{password, base64.StdEncoding.EncodeToString([]byte(username + ":" + password))}
		for _, secret := range secrets {
			if strings.Contains(told, secret) || strings.Contains(fmt.Sprint(err), secret) {
				t.Errorf("%s: somebody else was told %s; %v", name, told, err)
			}
		}
	}
}

func TestSecretsStayOutOfMessages(t *testing.T) {
	noDocker(t)
	var mu sync.Mutex // blobs are sent several at a time
	var told strings.Builder
	sink := event.Sink(func(e event.Event) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintln(&told, e)
	})
	address := Start(t, Referrers, Basic(username, password), Faults(
		Rule{Method: "GET", Path: "blobs", Fault: Redirect("http://127.0.0.1:1/?X-Amz-Signature=" + password + "&x=")},
		Rule{Method: "GET", Path: "manifests", Fault: Status(503)},
	))
	o := registry.Options{Events: sink, Retry: quickly, Credentials: registry.Credentials{DockerConfig: dockerConfig(t, address, username, password)}}
	r, err := registry.Open(address, o)
	if err != nil {
		t.Fatal(err)
	}
	p := repository(t, r, "hello/1.0")
	d := push(t, p, artifact(image, "hello", nil))
	_, fetch := p.Fetch(t.Context(), blobOf(5).Descriptor)
	_, _, manifest := p.Manifest(t.Context(), d)
	basic := base64.StdEncoding.EncodeToString([]byte(username + ":" + password))
	for _, text := range []string{fmt.Sprint(fetch), fmt.Sprint(manifest), told.String(), r.String(), fmt.Sprintf("%+v", fault.HintOf(fetch))} {
		if strings.Contains(text, password) || strings.Contains(text, basic) {
			t.Errorf("a secret is in %q", text)
		}
	}
	if fetch == nil || manifest == nil || told.Len() == 0 {
		t.Error("the faults were not met")
	}
}

// What stands before an "@" may be a password, wherever it is.
func TestAddressesWithCredentialsAreRefused(t *testing.T) {
	for _, address := range []string{"https://me:pa/ss@r.example", "me:pass@r.example/x", "r.example/me:pass@x", "https://me:pa%/ss@r.example"} {
		_, err := registry.Open(address, registry.Options{})
		wantKind(t, err, fault.Usage)
		if strings.Contains(fmt.Sprint(err), "pa") {
			t.Errorf("%v", err)
		}
	}
}

func TestCertificates(t *testing.T) {
	address, ca := ServeTLS(t, Handler(Referrers))
	trusting := backend{address: address, options: registry.Options{CAFile: ca}}.repository(t, "hello/1.0")
	push(t, trusting, artifact(image, "hello", nil))

	_, err := backend{address: "https://" + address}.repository(t, "hello/1.0").Resolve(t.Context(), "v1")
	wantKind(t, err, fault.Network)
	if !strings.Contains(fmt.Sprint(err), "certificate") || fault.HintOf(err) == "" {
		t.Errorf("error %v, hint %q", err, fault.HintOf(err))
	}
	plain := Start(t, Referrers)
	_, err = backend{address: "https://" + plain}.repository(t, "hello/1.0").Resolve(t.Context(), "v1")
	wantKind(t, err, fault.Network)
	if fault.HintOf(err) == "" {
		t.Errorf("HTTPS to an HTTP server: no hint in %v", err)
	}
	if _, err := registry.Open(address, registry.Options{CAFile: writeFile(t, 0o600, "no PEM", "ca.pem")}); err == nil {
		t.Error("a certificate authority without certificates was taken")
	}
}

func TestNobodyAnswers(t *testing.T) {
	_, err := at(t, "127.0.0.1:1").Resolve(t.Context(), "v1")
	wantKind(t, err, fault.Network)
}

func TestAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"registry.example.org/uenv/": "registry.example.org/uenv",
		"https://example.org:5000":   "example.org:5000",
		"http://example.org/a/b":     "http://example.org/a/b",
		"127.0.0.1:5000":             "127.0.0.1:5000",
		"[::1]:5000/x":               "[::1]:5000/x",
	} {
		if r, err := registry.Open(address, registry.Options{}); err != nil || r.String() != want {
			t.Errorf("%s is %v, %v; want %s", address, r, err, want)
		}
	}
	for _, address := range []string{"", "oci:", "/x", "ftp://example.org", "user:pass@example.org", "example.org/UPPER", "exa mple.org", "https://", "example.org?x=1"} {
		_, err := registry.Open(address, registry.Options{})
		wantKind(t, err, fault.Usage)
		if err != nil && strings.Contains(err.Error(), "pass") {
			t.Errorf("the password is in %v", err)
		}
	}
	r, err := registry.Open("127.0.0.1:5000", registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"", "/a", "a/", "a//b", "A", "a/../b", "a b", "a/_b", strings.Repeat("a", 300)} {
		_, err := r.Repository(path)
		wantKind(t, err, fault.Usage)
	}
}
