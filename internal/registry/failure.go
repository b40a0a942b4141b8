package registry

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"unicode"

	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"uenv-ci.dev/internal/fault"
)

// statusError is an answer of a registry that is not what was hoped for.
type statusError struct {
	code    int
	message string // what the registry said, cleaned
	err     error  // what it means, if that is known
}

func (e *statusError) Unwrap() error { return e.err }

func (e *statusError) Error() string {
	text := fmt.Sprintf("the registry answered %d %s", e.code, http.StatusText(e.code))
	if e.message != "" {
		text += ": " + e.message
	}
	return text
}

func isStatus(err error, code int) bool {
	var s *statusError
	return errors.As(err, &s) && s.code == code
}

// kind says what the reader of a status can do about it.
func (e *statusError) kind() fault.Kind {
	switch e.code {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fault.Unauthorized
	case http.StatusNotFound, http.StatusGone:
		return fault.NotFound
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return fault.Refused
	}
	return fault.Network
}

// maxErrorBody bounds how much of an error's body is read, in bytes.
const maxErrorBody = 8 << 10

// unexpected turns an answer into an error. It does not close the body.
func unexpected(resp *http.Response, host string) error {
	var body struct {
		Errors errcode.Errors `json:"errors"`
	}
	e := &statusError{code: resp.StatusCode}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err == nil && json.Unmarshal(data, &body) == nil && len(body.Errors) > 0 {
		e.message = clean(messages(body.Errors))
		for _, b := range body.Errors {
			if b.Code == errcode.ErrorCodeManifestBlobUnknown {
				e.err = errBlobUnknown
			}
		}
	}
	if e.code < 300 {
		return fault.New(fault.Network, "%w, which is not expected here%s", e, htmlNote(resp))
	}
	return classify(e, host)
}

func classify(e *statusError, host string) error {
	err := fault.New(e.kind(), "%w", e)
	switch e.code {
	case http.StatusUnauthorized:
		return fault.WithHint(err, "log in with 'docker login %s', or give --token and --username; what was used may be wrong or have expired", host)
	case http.StatusForbidden:
		return fault.WithHint(err, "ask who runs %s for this permission, or log in as another user", host)
	}
	return err
}

// htmlNote tells about login pages and proxies that answer in a registry's place.
func htmlNote(resp *http.Response) string {
	if mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); mediaType == "text/html" {
		return "; it is a web page: is this the address of a registry, or does a proxy or login page answer for it?"
	}
	return ""
}

// messages are what a registry says in its errors. Details are left out unless they
// are text: they repeat the request.
func messages(errs errcode.Errors) string {
	var texts []string
	for _, e := range errs {
		text := strings.ToLower(strings.ReplaceAll(e.Code, "_", " "))
		if e.Message != "" {
			text += ": " + e.Message
		}
		if detail, ok := e.Detail.(string); ok && detail != "" {
			text += ": " + detail
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, "; ")
}

// failure gives errors of the network and of oras-go a kind, a message without
// secrets, and a hint.
func failure(err error, host string) error {
	var response *errcode.ErrorResponse
	var link *url.Error
	var scheme tls.RecordHeaderError
	var certificate *tls.CertificateVerificationError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errStalled):
		return errStalled
	case errors.Is(err, context.Canceled):
		return fault.Wrap(fault.Interrupted, context.Canceled, "request")
	case errors.As(err, &response):
		e := &statusError{code: response.StatusCode}
		if len(response.Errors) > 0 {
			e.message = clean(messages(response.Errors))
		}
		return classify(e, host)
	case errors.Is(err, errdef.ErrNotFound):
		return fault.New(fault.NotFound, "not found")
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		err = fault.New(fault.Unauthorized, "the registry asks for a user name and password, and there are none for %s", host)
		return fault.WithHint(err, "log in with 'docker login %s', or give --token and --username", host)
	case errors.As(err, &scheme), errors.Is(err, http.ErrSchemeMismatch):
		err = fault.New(fault.Network, "%s speaks HTTP, not HTTPS", host)
		return fault.WithHint(err, "if that is meant, write the address as http://%s", host)
	case errors.As(err, &certificate):
		err = fault.New(fault.Network, "the certificate of %s is not trusted: %w", host, certificate.Err)
		return fault.WithHint(err, "name the file of its certificate authority with --ca-file or UENV_CI_CA_FILE")
	}
	if errors.As(err, &link) {
		err = link.Err // without "Get URL:", whose query may be a signature
	}
	var known *redacted
	if kind := fault.KindOf(err); kind != fault.Failure || errors.As(err, &known) {
		return err
	}
	var dial *net.OpError
	unreachable := errors.As(err, &dial) && dial.Op == "dial"
	err = fault.New(fault.Network, "%w", &redacted{clean(err.Error()), err})
	if unreachable {
		return fault.WithHint(err, "is %s the right address, and can this machine reach it?", host)
	}
	return err
}

// isUnsupported tells that oras-go found an API missing.
func isUnsupported(err error) bool { return errors.Is(err, errdef.ErrUnsupported) }

// redacted shows a cleaned message in place of the error's own.
type redacted struct {
	message string
	err     error
}

func (e *redacted) Error() string { return e.message }
func (e *redacted) Unwrap() error { return e.err }

// Signed URLs and tokens are secrets, wherever a library quotes them.
var (
	urlQuery = regexp.MustCompile(`(https?://[^\s"'?]*)\?[^\s"']*`)
	// Behind a ":" that no port follows, a password may have slashes.
	urlUser     = regexp.MustCompile(`(https?://)(?:[^\s"'/]*|[^\s"'/@:]*:\d*[^\s"'/@\d][^\s"']*)@`)
	authPattern = regexp.MustCompile(`(?i)\b(basic|bearer)\s+[A-Za-z0-9+/=._~-]{6,}`)
)

const maxMessage = 400

// clean makes foreign text fit for messages and logs: one line, of bounded
// length, without control characters and secrets.
func clean(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	text = urlQuery.ReplaceAllString(text, "$1?…")
	text = urlUser.ReplaceAllString(text, "$1…@")
	text = authPattern.ReplaceAllString(text, "$1 …")
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + "…"
	}
	return text
}
