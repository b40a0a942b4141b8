// Package redact takes secrets out of what others write: texts, errors, events and logs.
package redact

import (
	"encoding/base64"
	"net/url"
	"os"
	"path/filepath"
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

// Redactor knows secrets and takes them out. The zero value, and nil, know none.
type Redactor struct {
	replacer *strings.Replacer
	longest  int
}

// New learns the secrets that this process could leak: the given values, those of
// environment variables that are named like secrets, passwords in the URLs of others,
// and what is in the given files and where credentials usually are.
func New(files, values []string) *Redactor {
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
	return of(secrets)
}

// of knows the given secrets, as they are and encoded for URLs or by base64. Texts that
// are too short to be told from others are left out.
func of(secrets []string) *Redactor {
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
	r := &Redactor{}
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

// Text returns a text without secrets.
func (r *Redactor) Text(s string) string {
	if r == nil || r.replacer == nil {
		return s
	}
	return r.replacer.Replace(s)
}

// Error returns an error whose message has no secret. It is err itself if that
// has none.
func (r *Redactor) Error(err error) error {
	if err == nil {
		return nil
	}
	text, hint := err.Error(), fault.HintOf(err)
	if clean := r.Text(text); clean != text || r.Text(hint) != hint {
		err = fault.New(fault.KindOf(err), "%s", clean)
		if hint != "" {
			err = fault.WithHint(err, "%s", r.Text(hint))
		}
	}
	return err
}

// Sink returns a sink that passes on events without secrets.
func (r *Redactor) Sink(to event.Sink) event.Sink {
	if to == nil || r == nil || r.replacer == nil {
		return to
	}
	return func(e event.Event) {
		e.Message = r.Text(e.Message)
		to(e)
	}
}
