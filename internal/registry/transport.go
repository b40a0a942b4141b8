package registry

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"

	"uenv-ci.dev/internal/event"
)

// Limits of one connection.
const (
	connectTimeout = 30 * time.Second
	cancelTimeout  = 10 * time.Second
	idleTimeout    = 90 * time.Second
	maxIdle        = 32
)

// retrier repeats requests that failed for a reason that may pass.
type retrier struct {
	base    http.RoundTripper
	options RetryOptions
	events  event.Sink

	answered sync.Map // hosts that have answered something
}

// withoutRetry marks requests that must not be repeated as they are, such as
// one that sends the body of an upload into a session with a state.
func withoutRetry(ctx context.Context) context.Context {
	return context.WithValue(ctx, noRetryKey{}, true)
}

type noRetryKey struct{}

func (t *retrier) RoundTrip(req *http.Request) (*http.Response, error) {
	repeatable := req.Context().Value(noRetryKey{}) == nil && (req.Body == nil || req.GetBody != nil)
	for attempt := 1; ; attempt++ {
		resp, err := t.base.RoundTrip(req)
		if err == nil {
			t.answered.Store(req.URL.Host, true)
		}
		if !repeatable || attempt >= t.attempts(req.URL.Host, err) || !mayPass(req.Context(), resp, err) {
			return resp, err
		}
		wait := backOff(attempt, t.options)
		if resp != nil {
			wait = retryAfter(resp, wait, t.options)
			resp.Body.Close()
		}
		t.events.Warn("registry", "%s: trying again in %s", shortReason(resp, err, req.URL.Host), wait.Round(time.Millisecond))
		if err := pause(req.Context(), wait); err != nil {
			return nil, err
		}
		if req, err = again(req); err != nil {
			return nil, err
		}
	}
}

// quickAttempts is how often an unreachable host is tried: its users should learn
// that soon.
const quickAttempts = 2

// attempts returns how often a request is tried that ended with err. A host that has
// answered before is worth waiting for: it may be starting again.
func (t *retrier) attempts(host string, err error) int {
	if _, answered := t.answered.Load(host); unreachable(err) && !answered {
		return min(quickAttempts, t.options.attempts())
	}
	return t.options.attempts()
}

// unreachable tells of a connection that was refused at once, as opposed to one that
// broke or took too long.
func unreachable(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}

// again returns a copy of req with its body rewound: a RoundTripper must not
// change the request that it was given.
func again(req *http.Request) (*http.Request, error) {
	next := req.Clone(req.Context())
	if req.GetBody != nil {
		body, err := req.GetBody()
		if err != nil {
			return nil, err
		}
		next.Body = body
	}
	return next, nil
}

// mayPass tells whether a later attempt may end better.
func mayPass(ctx context.Context, resp *http.Response, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	if err != nil {
		return transient(err)
	}
	switch resp.StatusCode {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// transient tells broken connections from ones that can never work.
func transient(err error) bool {
	var dns *net.DNSError
	var certificate *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var record tls.RecordHeaderError
	switch {
	case errors.Is(err, context.Canceled):
		return false
	case errors.As(err, &dns):
		return !dns.IsNotFound
	case errors.As(err, &certificate), errors.As(err, &unknown), errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return false
	}
	return true
}

func shortReason(resp *http.Response, err error, host string) string {
	if err != nil {
		return host + ": " + clean(err.Error())
	}
	return host + " answered " + resp.Status
}

func (o RetryOptions) attempts() int        { return cmp.Or(o.Attempts, 5) }
func (o RetryOptions) stall() time.Duration { return cmp.Or(o.Stall, time.Minute) }

// backOff returns how long to wait after the given failed attempt (from 1):
// doubled each time, with a random part so that many clients spread.
func backOff(attempt int, o RetryOptions) time.Duration {
	wait := cmp.Or(o.Wait, 500*time.Millisecond)
	limit := cmp.Or(o.MaxWait, 30*time.Second)
	for range attempt - 1 {
		if wait >= limit {
			break
		}
		wait *= 2
	}
	wait = min(wait, limit)
	return wait/2 + rand.N(wait/2+1)
}

// retryAfter honours the header of that name, in seconds or as a date.
func retryAfter(resp *http.Response, wait time.Duration, o RetryOptions) time.Duration {
	value := resp.Header.Get("Retry-After")
	if seconds, err := strconv.Atoi(value); err == nil && seconds >= 0 {
		wait = max(wait, time.Duration(min(seconds, 1<<20))*time.Second)
	} else if at, err := http.ParseTime(value); err == nil {
		wait = max(wait, time.Until(at))
	}
	return min(wait, cmp.Or(o.MaxWait, 30*time.Second))
}
