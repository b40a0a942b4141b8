package redact

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"uenv-ci.dev/internal/fault"
)

func TestSecretNames(t *testing.T) {
	for name, want := range map[string]bool{
		"CI_JOB_TOKEN": true, "CSCS_REGISTRY_PASSWORD": true, "GITHUB_TOKEN": true, "AWS_SECRET_ACCESS_KEY": true, "SSH_PRIVATE_KEY": true,
		"DB_PASS": true, "GIT_AUTHOR_NAME": false, "PATH": false, "SSH_AUTH_SOCK": false, "KEYBOARD": false, "COMPASS": false,
	} {
		if got := isSecretName(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestSecretsInFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	auth := base64.StdEncoding.EncodeToString([]byte("user:s3cretword"))
	for _, file := range []string{
		write("token", "s3cretword\n"),
		write("tokens/TOKEN", "s3cretword"),
		write("config.json", `{"auths": {"r.example": {"auth": "`+auth+`"}}}`),
		write("netrc", "machine r.example login user password s3cretword\n"),
		write("key", "-----BEGIN KEY-----\nMIIEabcdefghijkl\ns3cretword s3cretword\n-----END KEY-----\n"),
	} {
		r := of(secretsIn(file))
		if got := r.Text("curl s3cretword s3cretword at r.example"); strings.Contains(got, "s3cretword s3cretword") || !strings.Contains(got, "r.example") {
			t.Errorf("%s: %s", file, got)
		}
	}
	if got := secretsIn(filepath.Join(dir, "tokens")); len(got) == 0 || got[0] != "s3cretword" {
		t.Errorf("a directory with TOKEN: %q", got)
	}
	if got := secretsIn(filepath.Join(dir, "none")); got != nil {
		t.Errorf("%q", got)
	}
}

// TestSecretsInURLs has a proxy and git's own file of credentials, of whose URLs the
// password is said alone.
func TestSecretsInURLs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "git-credentials")
	const text = "https://oauth2:t0ken-of-git@git.example\nhttps://p%40ssw0rd@git.example:8443\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("https_proxy", "http://me:pr0xyword@proxy.example:3128")
	t.Setenv("http_proxy", "http://me:sl/ashword@proxy.example:3128")
	t.Setenv("SOME_HOME_PAGE", "https://www.example/index.html?mail=somebody@www.example")
	t.Setenv("SOME_PORT", "https://www.example:8443/docs/page@2")
	r := New([]string{file}, nil)
	for said, want := range map[string]string{
		"bad password pr0xyword":                  "bad password [secret]",
		"http://me:pr0xyword@proxy.example:3128/": "http://me:[secret]@proxy.example:3128/",
		"t0ken-of-git is not valid":               "[secret] is not valid",
		"p@ssw0rd and p%40ssw0rd":                 "[secret] and [secret]",
		"http://me:sl/ashword@proxy.example:1/":   "http://me:[secret]@proxy.example:1/",
		"8443/docs/page":                          "8443/docs/page",
		"git.example, oauth2, www.example":        "git.example, oauth2, www.example",
		"index.html?mail=somebody":                "index.html?mail=somebody",
	} {
		if got := r.Text(said); got != want {
			t.Errorf("%s: %s", said, got)
		}
	}
}

func TestRedactingWriter(t *testing.T) {
	r := of([]string{"s3cret/word", "s3cret", "short"})
	var out strings.Builder
	var lines []string
	w := &Writer{Redactor: r, Out: &out, Line: func(s string) { lines = append(lines, s) }}
	for _, part := range []string{"a s3c", "ret/word b\nurl?", "p=s3cret%2Fword\nlast s3", "cret short"} {
		if _, err := w.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	want := "a [secret] b\nurl?p=[secret]\nlast [secret] short"
	if out.String() != want || strings.Join(lines, "\n") != want {
		t.Errorf("%q, %q", out.String(), lines)
	}
	// A line without an end is passed on, but no secret at its edge is cut.
	out.Reset()
	for range maxLine {
		w.Write([]byte("s3cret"))
	}
	w.Flush()
	if strings.Contains(out.String(), "s3") || !strings.Contains(out.String(), redacted) {
		t.Errorf("%d bytes with secrets", out.Len())
	}
}

func TestRedactedError(t *testing.T) {
	r := of([]string{"s3cretword"})
	err := r.Error(fault.WithHint(fault.New(fault.Network, "get https://u:s3cretword@h"), "not s3cretword"))
	if err.Error() != "get https://u:[secret]@h" || fault.KindOf(err) != fault.Network || fault.HintOf(err) != "not [secret]" {
		t.Errorf("%v, %v, %s", err, fault.KindOf(err), fault.HintOf(err))
	}
	same := fault.New(fault.Invalid, "harmless")
	if r.Error(same) != same || r.Error(nil) != nil {
		t.Error("an error without a secret is changed")
	}
}
