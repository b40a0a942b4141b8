// Package parallel does one thing for many items on all processors.
package parallel

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
)

// Each calls work for every item, as many at a time as there are processors, until
// ctx is cancelled. Its error is that of ctx.
func Each[T any](ctx context.Context, items []T, work func(context.Context, T)) error {
	var workers sync.WaitGroup
	var next atomic.Int64
	for range min(runtime.GOMAXPROCS(0), len(items)) {
		workers.Go(func() { // and goes on: a new goroutine has to grow its stack again
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(items) {
					return
				}
				work(ctx, items[i])
			}
		})
	}
	workers.Wait()
	return ctx.Err()
}
