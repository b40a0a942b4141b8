package registry

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"
)

// trips is a network that ends requests as it is told.
type trips func(host string) error

func (f trips) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := f(req.URL.Host); err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody, Request: req}, nil
}

func TestAHostThatNobodyAnswersForIsTriedTwice(t *testing.T) {
	dial := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", err)}
	}
	for name, c := range map[string]struct {
		err      error
		answered string // the host that has answered before
		attempts int    // 0 is the default
		want     int
	}{
		"refused":                       {err: dial(syscall.ECONNREFUSED), want: 2},
		"no way there":                  {err: dial(syscall.ENETUNREACH), want: 2},
		"nobody there":                  {err: dial(syscall.EHOSTUNREACH), want: 2},
		"refused, another has answered": {err: dial(syscall.ECONNREFUSED), answered: "elsewhere", want: 2},
		"refused, it has answered":      {err: dial(syscall.ECONNREFUSED), answered: "here", want: 5},
		"refused, no repetition":        {err: dial(syscall.ECONNREFUSED), attempts: 1, want: 1},
		"no such host":                  {err: &net.DNSError{Err: "no such host", Name: "here", IsNotFound: true}, want: 1},
		"name server has trouble":       {err: &net.DNSError{Err: "server misbehaving", Name: "here", IsTemporary: true}, want: 5},
		"takes too long":                {err: dial(syscall.ETIMEDOUT), want: 5},
		"reset":                         {err: &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, want: 5},
	} {
		t.Run(name, func(t *testing.T) {
			tried := 0
			broken := false
			r := &retrier{options: RetryOptions{Attempts: c.attempts, Wait: time.Nanosecond}, base: trips(func(string) error {
				if !broken {
					return nil
				}
				tried++
				return c.err
			})}
			get := func(host string) error {
				req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+host+"/v2/", nil)
				if err != nil {
					t.Fatal(err)
				}
				_, err = r.RoundTrip(req) //nolint:bodyclose // there is none
				return err
			}
			if c.answered != "" {
				if err := get(c.answered); err != nil {
					t.Fatal(err)
				}
			}
			broken = true
			if err := get("here"); !errors.Is(err, c.err) || tried != c.want {
				t.Errorf("tried %d times, want %d; %v", tried, c.want, err)
			}
		})
	}
}

func TestCleanTextHasNoPassword(t *testing.T) {
	for text, want := range map[string]string{
		`invalid proxy address "http://me:pa/ss@proxy.example:3128": parse`: `invalid proxy address "http://…@proxy.example:3128": parse`,
		"Get https://me:p@ss@r.example/v2/":                                 "Get https://…@r.example/v2/",
		"Get https://me@r.example/v2/, https://r.example:8443/x@2":          "Get https://…@r.example/v2/, https://r.example:8443/x@2",
	} {
		if got := clean(text); got != want {
			t.Errorf("%s: %s", text, got)
		}
	}
}
