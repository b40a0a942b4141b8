package build

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"uenv-ci.dev/internal/event"
)

// While nothing is said, what is done is repeated; between stages nothing is.
func TestHeart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var got []event.Event
		h := &heartbeat{to: func(e event.Event) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, e)
		}}
		events := event.Sink(h.sink)
		ctx, stop := context.WithCancel(t.Context())
		go h.beat(ctx, time.Second)
		wait := func(d time.Duration) []event.Event {
			mu.Lock()
			got = nil
			mu.Unlock()
			time.Sleep(d)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return got
		}
		if beats := wait(3 * time.Second); len(beats) > 0 {
			t.Errorf("before the first stage: %v", beats)
		}
		events.Start("install hello", "")
		events.Progress("install hello", 1, 3, "packages")
		events.Info("install hello", "zlib-1.3")
		events.Info("cache", "of another stage")
		beats := wait(3500 * time.Millisecond)
		if len(beats) < 2 || len(beats) > 3 {
			t.Fatalf("beats: %v", beats)
		}
		if b := beats[0]; b.Kind != event.Progress || b.Stage != "install hello" || b.Message != "zlib-1.3" || b.Done != 1 || b.Total != 3 {
			t.Errorf("%+v", b)
		}
		events.Done("install hello", "")
		if beats := wait(3 * time.Second); len(beats) > 0 {
			t.Errorf("after the stage: %v", beats)
		}
		stop()
	})
}
