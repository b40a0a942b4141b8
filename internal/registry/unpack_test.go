package registry_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/registry"
)

// A change of this digest changes the digest of everything we attach: it needs a
// new version of the format, not a new number here.
const goldenDirectory = "sha256:b3bab031cc39d7d78098a923b450d6c9f5a1d707d6d91425ed07a6d402111512"

func goldenFiles() fstest.MapFS {
	return fstest.MapFS{
		"env.json":         {Data: []byte(strings.Repeat(`{"mount":"/user-environment"}`, 100)), Mode: 0o640, ModTime: time.Now()},
		"extra/reframe":    {Data: []byte("#!/bin/sh\n"), Mode: 0o700},
		"recipe/link.yaml": {Data: []byte("../env.json"), Mode: 0o777 | fs.ModeSymlink},
		"empty":            {Mode: fs.ModeDir | 0o700},
	}
}

func TestDirectoryLayerIsDeterministic(t *testing.T) {
	l, err := registry.DirectoryLayer("meta", goldenFiles(), time.Date(2026, 11, 21, 9, 6, 2, 987, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	if l.Descriptor.Digest.String() != goldenDirectory {
		t.Errorf("digest %s, want %s", l.Descriptor.Digest, goldenDirectory)
	}
	if l.Descriptor.MediaType != "application/vnd.oci.image.layer.v1.tar+gzip" {
		t.Errorf("media type %s", l.Descriptor.MediaType)
	}
	for name, want := range map[string]string{
		"org.opencontainers.image.title": "meta",
		"io.deis.oras.content.unpack":    "true",
		"io.deis.oras.content.digest":    "sha256:ca54edf663428f2f22f1da7e819aa9f59bd031c722f0e28a141ca1faf43ab185",
	} {
		if got := l.Descriptor.Annotations[name]; got != want {
			t.Errorf("annotation %s is %s, want %s", name, got, want)
		}
	}
}

func TestDirectoryLayerHasTheNamesAndModesOfTheFormat(t *testing.T) {
	l, err := registry.DirectoryLayer("meta", goldenFiles(), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	rc, err := l.Open()
	if err != nil {
		t.Fatal(err)
	}
	zr, err := gzip.NewReader(rc)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for tr := tar.NewReader(zr); ; {
		h, err := tr.Next()
		if err != nil {
			break
		}
		got = append(got, h.FileInfo().Mode().String()+" "+h.Name+" "+h.Linkname)
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "" || h.ModTime.Unix() != 0 {
			t.Errorf("%s has an owner or a time: %+v", h.Name, h)
		}
	}
	want := "drwxr-xr-x meta/ \ndrwxr-xr-x meta/empty/ \n-rw-r--r-- meta/env.json \ndrwxr-xr-x meta/extra/ \n-rwxr-xr-x meta/extra/reframe \ndrwxr-xr-x meta/recipe/ \nLrwxrwxrwx meta/recipe/link.yaml ../env.json"
	if strings.Join(got, "\n") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
}

func TestDirectoryLayerRefusesWhatLeadsOut(t *testing.T) {
	for name, files := range map[string]fstest.MapFS{
		"link up":       {"a/link": {Data: []byte("../../x"), Mode: fs.ModeSymlink}},
		"link through":  {"a/b/top": {Data: []byte("../.."), Mode: fs.ModeSymlink}, "link": {Data: []byte("a/b/top/../x"), Mode: fs.ModeSymlink}},
		"absolute link": {"link": {Data: []byte("/etc/passwd"), Mode: fs.ModeSymlink}},
		"device":        {"dev": {Mode: fs.ModeDevice}},
	} {
		_, err := registry.DirectoryLayer("meta", files, time.Time{})
		if err == nil {
			t.Errorf("%s was packed", name)
		}
	}
	for _, title := range []string{"", ".", "..", "/meta", "a/../b", "meta/"} {
		if _, err := registry.DirectoryLayer(title, fstest.MapFS{}, time.Time{}); err == nil {
			t.Errorf("title %q was taken", title)
		}
	}
}

// packed is a hostile or odd directory layer.
func packed(t testing.TB, title string, headers ...*tar.Header) registry.Layer {
	t.Helper()
	var archive, zipped bytes.Buffer
	tw := tar.NewWriter(&archive)
	for _, h := range headers {
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(h.Name))
		}
		if err := tw.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := tw.Write([]byte(h.Name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	zw := gzip.NewWriter(&zipped)
	if _, err := zw.Write(archive.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return directory(title, zipped.Bytes(), digest.FromBytes(archive.Bytes()))
}

func directory(title string, zipped []byte, sum digest.Digest) registry.Layer {
	l := registry.BytesLayer(title, ocispec.MediaTypeImageLayerGzip, zipped)
	l.Descriptor.Annotations["io.deis.oras.content.unpack"] = "true"
	l.Descriptor.Annotations["io.deis.oras.content.digest"] = sum.String()
	return l
}

func dir(name string) *tar.Header { return &tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755} }
func reg(name string) *tar.Header { return &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644} }
func sym(name, to string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
}
func hard(name, to string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}
}

// unpack pushes a layer and unpacks it into a new directory.
func unpack(t *testing.T, l registry.Layer, limits registry.UnpackLimits) (dst string, err error) {
	t.Helper()
	p, _ := newLayout(t)
	push(t, p, registry.Artifact{Type: meta, Layers: []registry.Layer{l}})
	dst = filepath.Join(t.TempDir(), "inner")
	if err := os.Mkdir(dst, 0o755); err != nil {
		t.Fatal(err)
	}
	return dst, registry.UnpackLayer(t.Context(), p, l.Descriptor, dst, limits)
}

func TestHostileArchivesAreRefused(t *testing.T) {
	plain := packed(t, "meta", dir("meta/"), reg("meta/a"))
	truncated := readLayer(t, plain)
	bomb := packed(t, "meta", reg("meta/a"), reg("meta/b"), reg("meta/c"))
	for name, c := range map[string]struct {
		layer  registry.Layer
		limits registry.UnpackLimits
	}{
		"up":                       {layer: packed(t, "meta", reg("meta/../../evil"))},
		"up at once":               {layer: packed(t, "meta", reg("../evil"))},
		"absolute":                 {layer: packed(t, "meta", reg("/tmp/evil"))},
		"beside the title":         {layer: packed(t, "meta", reg("other/evil"))},
		"title as a prefix":        {layer: packed(t, "meta", reg("metadata/evil"))},
		"link up":                  {layer: packed(t, "meta", sym("meta/link", "../../evil"))},
		"link beside the title":    {layer: packed(t, "meta", sym("meta/link", "../evil"))},
		"absolute link":            {layer: packed(t, "meta", sym("meta/link", "/etc/passwd"))},
		"the title a link":         {layer: packed(t, "meta", sym("meta", "."))},
		"through a link":           {layer: packed(t, "meta", sym("meta/here", "."), reg("meta/here/evil"))},
		"deeper through a link":    {layer: packed(t, "meta", dir("meta/a/b"), sym("meta/a/b/c", "../.."), sym("meta/a/b/c/l", "../../../evil"))},
		"link through a link":      {layer: packed(t, "meta", sym("meta/a/b/top", "../.."), sym("meta/link", "a/b/top/../../evil"))},
		"hard link out":            {layer: packed(t, "meta", hard("meta/link", "../../etc/passwd"))},
		"hard link to a link":      {layer: packed(t, "meta", dir("meta/a"), sym("meta/a/l", ".."), hard("meta/l", "meta/a/l"))},
		"hard link to nothing":     {layer: packed(t, "meta", hard("meta/link", "meta/none"))},
		"device":                   {layer: packed(t, "meta", &tar.Header{Typeflag: tar.TypeBlock, Name: "meta/sda", Devmajor: 8})},
		"fifo":                     {layer: packed(t, "meta", &tar.Header{Typeflag: tar.TypeFifo, Name: "meta/fifo"})},
		"twice":                    {layer: packed(t, "meta", reg("meta/a"), reg("meta/a"))},
		"a file as directory":      {layer: packed(t, "meta", reg("meta/a"), reg("meta/a/b"))},
		"empty":                    {layer: packed(t, "meta")},
		"another tar digest":       {layer: directory("meta", truncated, digest.FromString("other"))},
		"truncated gzip":           {layer: directory("meta", truncated[:len(truncated)-9], digest.FromString("other"))},
		"no archive":               {layer: directory("meta", []byte("no archive at all, but long enough"), digest.FromString("other"))},
		"too many entries":         {bomb, registry.UnpackLimits{Entries: 2}},
		"too many bytes":           {bomb, registry.UnpackLimits{Bytes: 20}},
		"a title that leads out":   {layer: packed(t, "../meta", reg("../meta/a"))},
		"a title that is absolute": {layer: packed(t, "/meta", reg("/meta/a"))},
		"no title":                 {layer: packed(t, "", reg("a"))},
	} {
		t.Run(name, func(t *testing.T) {
			dst, err := unpack(t, c.layer, c.limits)
			wantKind(t, err, fault.Invalid)
			for _, at := range []string{dst, filepath.Dir(dst)} {
				entries, err := os.ReadDir(at)
				if err != nil || at == dst && len(entries) != 0 || at != dst && len(entries) != 1 {
					t.Errorf("something was written below %s: %v, %v", at, entries, err)
				}
			}
		})
	}
}

func readLayer(t testing.TB, l registry.Layer) []byte {
	t.Helper()
	rc, err := l.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(rc); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestOddArchivesAreUnpacked(t *testing.T) {
	l := packed(t, "meta", reg("./meta/a"), dir("meta/d/"), sym("meta/d/l", "../a"), hard("meta/h", "meta/a"),
		&tar.Header{Typeflag: tar.TypeReg, Name: "meta/setuid", Mode: 0o6777, Uid: 1, Gid: 1})
	dst, err := unpack(t, l, registry.UnpackLimits{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"meta/a", "meta/d/l", "meta/h"} {
		if got, err := os.ReadFile(filepath.Join(dst, name)); err != nil || !strings.HasSuffix(string(got), "meta/a") {
			t.Errorf("%s holds %q, %v", name, got, err)
		}
	}
	info, err := os.Stat(filepath.Join(dst, "meta/setuid"))
	if err != nil || info.Mode()&(fs.ModeSetuid|fs.ModeSetgid|0o022) != 0 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestUnpackOfAFile(t *testing.T) {
	dst, err := unpack(t, registry.BytesLayer("reports/junit.xml", "", []byte("<x/>")), registry.UnpackLimits{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dst, "reports/junit.xml")); err != nil || string(got) != "<x/>" {
		t.Errorf("%q, %v", got, err)
	}
}

// A damaged blob is told from a bad archive: the error says whose it is, and that it
// is not what was published.
func TestDamagedLayerIsNamed(t *testing.T) {
	p, dir := newLayout(t)
	l, err := registry.DirectoryLayer("meta", goldenFiles(), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	push(t, p, registry.Artifact{Type: meta, Layers: []registry.Layer{l}})
	path := blobFile(dir, l.Descriptor)
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{2, 15, len(sound) / 2, len(sound) - 5} {
		damaged := bytes.Clone(sound)
		damaged[at] ^= 0xff
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		_, readErr := p.LayerFile(t.Context(), l.Descriptor, "meta/env.json")
		for _, err := range []error{registry.UnpackLayer(t.Context(), p, l.Descriptor, t.TempDir(), registry.UnpackLimits{}), readErr} {
			wantKind(t, err, fault.Network)
			for _, want := range []string{"meta", l.Descriptor.Digest.String(), p.Name(), "does not match"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("byte %d: %q does not say %q", at, err, want)
				}
			}
		}
	}
}
