package registry

import (
	"context"
	"io"
	"net/http"
	"time"

	"uenv-ci.dev/internal/fault"
)

// errStalled ends a connection on which nothing moves any more.
var errStalled = fault.New(fault.Network, "the transfer has stalled")

// How long an answer may take, in times that a transfer may stand still. Registries
// hash a large upload before they answer.
const lookStalls, answerStalls = 2, 10

// watcher ends requests that have stalled, while sending as well as while receiving: a
// connection that broke silently would last for ever.
type watcher struct {
	base  http.RoundTripper
	stall time.Duration
}

// RoundTrip implements http.RoundTripper.
func (w *watcher) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	watch := &watch{w.stall, time.AfterFunc(w.patience(req), func() { cancel(errStalled) }), cancel}
	req = req.WithContext(ctx)
	if req.Body != nil && req.Body != http.NoBody {
		req.Body = &watched{req.Body, watch, func() { watch.timer.Reset(answerStalls * w.stall) }}
	}
	resp, err := w.base.RoundTrip(req)
	if err != nil {
		watch.end()
		return nil, err
	}
	watch.timer.Reset(w.stall)
	resp.Body = &watched{resp.Body, watch, watch.end}
	return resp, nil
}

// patience is how long the first sign of life may take.
func (w *watcher) patience(req *http.Request) time.Duration {
	if req.Method == http.MethodGet || req.Method == http.MethodHead {
		return lookStalls * w.stall
	}
	return answerStalls * w.stall
}

// watch is the timer of one request.
type watch struct {
	stall  time.Duration
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

func (w *watch) end() {
	w.timer.Stop()
	w.cancel(nil)
}

// watched is a body whose progress keeps its request alive.
type watched struct {
	io.ReadCloser
	watch  *watch
	closed func()
}

func (b *watched) Read(p []byte) (int, error) {
	b.watch.timer.Reset(b.watch.stall)
	return b.ReadCloser.Read(p)
}

func (b *watched) Close() error {
	err := b.ReadCloser.Close()
	b.closed()
	return err
}
