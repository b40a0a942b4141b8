package parallel

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
)

func TestEach(t *testing.T) {
	done := make([]atomic.Int64, 100)
	items := make([]int, len(done))
	for i := range items {
		items[i] = i
	}
	if err := Each(t.Context(), items, func(_ context.Context, i int) { done[i].Add(1) }); err != nil {
		t.Fatal(err)
	}
	for i := range done {
		if n := done[i].Load(); n != 1 {
			t.Errorf("item %d was done %d times", i, n)
		}
	}
	if err := Each(t.Context(), nil, func(context.Context, int) { t.Error("there is no item") }); err != nil {
		t.Error(err)
	}
}

func TestEachEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := Each(ctx, []int{1, 2}, func(context.Context, int) { t.Error("began after the end") })
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
