package build

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
)

// redacted stands where a secret was.
const redacted = "[secret]"

// The shortest text that is taken for a secret: a shorter one would hide too
// much of a log.
const minSecret = 6

// maxCredentials bounds the size of a file that is searched for secrets.
const maxCredentials = 64 << 10

// redactor takes secrets out of what a build says. The zero value knows none.
type redactor struct {
	replacer *strings.Replacer
	longest  int
}

// newRedactor learns the secrets that this process could leak: values of its
// variables with telling names, passwords in URLs of others, what is in the given files and where credentials
// usually are, and further values.
func newRedactor(files, values []string) *redactor {
	secrets := slices.Clone(values)
	for _, v := range os.Environ() {
		name, value, _ := strings.Cut(v, "=")
		secrets = append(secrets, secretsInURLs(value)...) // as those of proxies
		if !isSecretName(name) {
			continue
		}
		if filepath.IsAbs(value) {
			files = append(files, value) // a variable of the kind file
			continue
		}
		secrets = append(secrets, value)
	}
	for _, file := range append(usualCredentials(), files...) {
		secrets = append(secrets, secretsIn(file)...)
	}
	return redactorOf(secrets)
}

func redactorOf(secrets []string) *redactor {
	var all []string
	for _, s := range secrets {
		s = strings.TrimSpace(s)
		if len(s) < minSecret {
			continue
		}
		encoded := base64.StdEncoding.EncodeToString([]byte(s))
		all = append(all, s, url.QueryEscape(s), url.PathEscape(s), encoded)
	}
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) })
	r := &redactor{}
	var pairs []string
	for _, s := range all {
		r.longest = max(r.longest, len(s))
		pairs = append(pairs, s, redacted)
	}
	if len(pairs) > 0 {
		r.replacer = strings.NewReplacer(pairs...)
	}
	return r
}

// secretName matches one word of the name of a variable that holds a secret.
var secretName = regexp.MustCompile(`(?i)(^|_)(.*TOKEN|PASS|.*PASSWORD|PASSWD|.*PASSPHRASE|.*SECRET|CREDENTIALS?|AUTH|APIKEY|(API|ACCESS|PRIVATE|SIGNING|SSH|GPG)_KEY|JWT)(_|$)`)

func isSecretName(name string) bool { return secretName.MatchString(name) && name != "SSH_AUTH_SOCK" }

// usualCredentials are the files that programs of registries and of git read.
func usualCredentials() []string {
	home, _ := os.UserHomeDir()
	files := []string{
		os.Getenv("REGISTRY_AUTH_FILE"), os.Getenv("NETRC"),
		filepath.Join(os.Getenv("DOCKER_CONFIG"), "config.json"),
	}
	if home != "" {
		for _, name := range []string{".docker/config.json", ".netrc", ".git-credentials", ".config/containers/auth.json"} {
			files = append(files, filepath.Join(home, name))
		}
	}
	return files
}

// secretsIn returns the secrets in a file, none if it cannot be read.
func secretsIn(file string) []string {
	info, err := os.Stat(file)
	if err == nil && info.IsDir() {
		file = filepath.Join(file, "TOKEN") // as in the uenv client's convention
		info, err = os.Stat(file)
	}
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxCredentials {
		return nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	var document any
	if json.Unmarshal(data, &document) == nil {
		if _, isText := document.(string); !isText {
			return secretsInJSON("", document)
		}
	}
	text := strings.TrimSpace(string(data))
	if found := netrcPassword.FindAllStringSubmatch(text, -1); found != nil {
		var secrets []string
		for _, m := range found {
			secrets = append(secrets, m[1])
		}
		return secrets
	}
	secrets := append(secretsInURLs(text), text) // git's own file has a URL a line
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); len(line) >= 2*minSecret && !strings.HasPrefix(line, "-----") {
			secrets = append(secrets, line)
		}
	}
	return secrets
}

// urlSecret matches the password of a URL, or a token that stands for the user. With a
// slash in the password it looks like a port that is no number.
var urlSecret = regexp.MustCompile(`(?i)https?://(?:(?:[^/@\s:]*:)?([^/\s]+)|[^/@\s:\[]*:(\d*[^/@\s\d][^@\s]*))@`)

// secretsInURLs returns the passwords and tokens in the URLs of a text, as they are
// there and as they are meant.
func secretsInURLs(text string) []string {
	var secrets []string
	for _, m := range urlSecret.FindAllStringSubmatch(text, -1) {
		secret := cmp.Or(m[1], m[2])
		secrets = append(secrets, secret)
		if plain, err := url.PathUnescape(secret); err == nil && plain != secret {
			secrets = append(secrets, plain)
		}
	}
	return secrets
}

var (
	netrcPassword = regexp.MustCompile(`\bpassword\s+(\S+)`)
	secretKey     = regexp.MustCompile(`(?i)auth$|token|password|secret|key$`)
)

// secretsInJSON returns the values of telling keys, as in a docker configuration.
func secretsInJSON(key string, value any) []string {
	var secrets []string
	switch v := value.(type) {
	case map[string]any:
		for k, item := range v {
			secrets = append(secrets, secretsInJSON(k, item)...)
		}
	case []any:
		for _, item := range v {
			secrets = append(secrets, secretsInJSON(key, item)...)
		}
	case string:
		if !secretKey.MatchString(key) {
			return nil
		}
		secrets = append(secrets, v)
		if plain, err := base64.StdEncoding.DecodeString(v); err == nil {
			_, password, _ := strings.Cut(string(plain), ":")
			secrets = append(secrets, password)
		}
	}
	return secrets
}

// text returns a text without secrets.
func (r *redactor) text(s string) string {
	if r == nil || r.replacer == nil {
		return s
	}
	return r.replacer.Replace(s)
}

// error returns an error whose message has no secret. It is err itself if that
// has none.
func (r *redactor) error(err error) error {
	if err == nil {
		return nil
	}
	text, hint := err.Error(), fault.HintOf(err)
	if clean := r.text(text); clean != text || r.text(hint) != hint {
		err = fault.New(fault.KindOf(err), "%s", clean)
		if hint != "" {
			err = fault.WithHint(err, "%s", r.text(hint))
		}
	}
	return err
}

// sink returns a sink that passes on events without secrets.
func (r *redactor) sink(to event.Sink) event.Sink {
	if to == nil || r.replacer == nil {
		return to
	}
	return func(e event.Event) {
		e.Message = r.text(e.Message)
		to(e)
	}
}

// redactingWriter passes on what is written to it without secrets, and calls a
// function for every line.
type redactingWriter struct {
	*redactor
	out  io.Writer
	line func(string) // may be nil
	rest []byte
	err  error // of the first write that failed
}

// maxLine is how long a line may be before it is passed on in parts.
const maxLine = 64 << 10

func (w *redactingWriter) Write(b []byte) (int, error) {
	end := bytes.LastIndexByte(b, '\n') + 1
	if end > 0 {
		end += len(w.rest)
	}
	w.rest = append(w.rest, b...)
	if end == 0 && len(w.rest) > maxLine+w.longest {
		// What is at the end may be the beginning of a secret.
		w.rest = []byte(w.text(string(w.rest)))
		end = max(len(w.rest)-w.longest, 0)
	}
	if err := w.pass(end); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Flush passes on what does not end in a line break.
func (w *redactingWriter) Flush() error { return w.pass(len(w.rest)) }

// pass passes on the beginning of what is there.
func (w *redactingWriter) pass(end int) error {
	if end == 0 {
		return nil
	}
	text := w.text(string(w.rest[:end]))
	w.rest = append(w.rest[:0], w.rest[end:]...)
	if w.line != nil {
		for line := range strings.Lines(text) {
			w.line(strings.TrimSuffix(line, "\n"))
		}
	}
	_, err := io.WriteString(w.out, text)
	w.err = cmp.Or(w.err, err)
	return err
}
