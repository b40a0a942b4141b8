package build_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/spack"
	"uenv-ci.dev/internal/testdirs"
)

// downloaded is a package whose archive is at a URL.
const downloaded = `from spack.package import *


class HelloUenv(Package):
    """A package that is fetched."""

    homepage = "https://uenv-ci.dev"
    url = "URL/hello-1.0.tar.gz"
    version("1.0", sha256="SHA")

    def install(self, spec, prefix):
        mkdirp(prefix.bin)
        install("hello", prefix.bin)
`

func tarball(t *testing.T) []byte {
	t.Helper()
	var data bytes.Buffer
	zip := gzip.NewWriter(&data)
	w := tar.NewWriter(zip)
	text := "#!/bin/sh\necho hello\n"
	if err := w.WriteHeader(&tar.Header{Name: "hello-1.0/hello", Mode: 0o755, Size: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
	w.Write([]byte(text))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	return data.Bytes()
}

// TestAirGapped: what is missing is listed before anything is installed; a build
// with a network fills the source cache, and then none is needed.
func TestAirGapped(t *testing.T) {
	needSpack(t)
	archive := tarball(t)
	sum := sha256.Sum256(archive)
	digest := hex.EncodeToString(sum[:])
	var requests atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		w.Header().Set("Content-Type", "application/gzip")
		w.Write(archive)
	}))
	defer server.Close()
	text := strings.NewReplacer("URL", server.URL, "SHA", digest).Replace(downloaded)
	recipe := changed(t, map[string]string{helloPackage: text})
	sources := filepath.Join(testdirs.Visible(t), "sources")
	with := func(airGapped bool) build.Options {
		o := options(t, recipe)
		o.Offline, o.AirGapped, o.SourceCache = false, airGapped, sources
		return o
	}

	o := with(true)
	if _, err := build.Run(t.Context(), o); fault.KindOf(err) != fault.NotFound || !strings.Contains(err.Error(), sources+" is not a directory") {
		t.Errorf("without a source cache: %v", err)
	}
	if err := os.Mkdir(sources, 0o755); err != nil {
		t.Fatal(err)
	}
	var report build.Report
	o.Report = &report
	_, err := build.Run(t.Context(), o)
	if fault.KindOf(err) != fault.NotFound || fault.HintOf(err) == "" {
		t.Errorf("without sources: %v", err)
	}
	for _, want := range []string{"sources are missing", "hello-uenv-1.0: " + server.URL + "/hello-1.0.tar.gz", digest} {
		if err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not in %v", want, err)
		}
	}
	if last := report.Stages[len(report.Stages)-1]; last.Name != "sources" || requests.Load() > 0 {
		t.Errorf("ended in %+v, after %d requests", last, requests.Load())
	}

	mustBuild(t, with(false))
	if requests.Load() == 0 {
		t.Error("nothing was fetched")
	}
	saved, _ := filepath.Glob(filepath.Join(sources, "_source-cache/archive/*", digest+".tar.gz"))
	if len(saved) != 1 {
		t.Fatalf("saved: %v", saved)
	}
	server.Close()
	r := mustBuild(t, with(true))
	if _, err := os.Stat(filepath.Join(r.Store, "meta/env.json")); err != nil {
		t.Error(err)
	}
}

// TestAirGappedListsOnce: what is missing for all environments is one list.
func TestAirGappedListsOnce(t *testing.T) {
	needSpack(t)
	text := strings.NewReplacer("URL", "http://127.0.0.1:9", "SHA", strings.Repeat("0", 64)).Replace(downloaded)
	other := strings.NewReplacer("HelloUenv", "Other", "hello-1.0", "other-1.0", strings.Repeat("0", 64), strings.Repeat("1", 64)).Replace(text)
	recipe := changed(t, map[string]string{
		helloPackage: text, "repo/packages/other/package.py": other,
		"environments.yaml": helloEnvironment("hello-uenv") + strings.NewReplacer("hello:", "second:", "default:", "second:").Replace(helloEnvironment("other")),
	})
	o := options(t, recipe)
	o.AirGapped, o.SourceCache = true, testdirs.Visible(t)
	var report build.Report
	o.Report = &report
	_, err := build.Run(t.Context(), o)
	if fault.KindOf(err) != fault.NotFound {
		t.Fatalf("%v", err)
	}
	for _, want := range []string{"hello-uenv-1.0: http", "other-1.0: http"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not in %v", want, err)
		}
	}
	for _, s := range report.Stages {
		if strings.HasPrefix(s.Name, "install") {
			t.Errorf("%s came before the list", s.Name)
		}
	}
}

// TestAirGappedWithoutSpack: what can be known before Spack runs is listed first.
func TestAirGappedWithoutSpack(t *testing.T) {
	needSandbox(t)
	t.Setenv("UENV_CI_SPACK", "")
	t.Setenv("PATH", "/usr/bin:/bin")
	if _, ok, _ := spack.Locate(""); ok {
		t.Skip("there is a Spack on PATH")
	}
	o := formatOptions(t, 2, map[string]string{"config.yaml": formatConfig(2, "https://example.org/tables.git")})
	o.AirGapped = true
	_, err := build.Run(t.Context(), o)
	if fault.KindOf(err) != fault.NotFound || fault.HintOf(err) == "" {
		t.Fatalf("%v", err)
	}
	for _, want := range []string{"Spack: https://github.com/spack/spack.git at v0.23.0", "package repository tables: https://example.org/tables.git at main"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}
