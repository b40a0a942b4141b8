package registry

import (
	"testing"
	"time"
)

func TestLimiterBooksTimeForAllReaders(t *testing.T) {
	l := newLimiter(1) // one byte a second: no test takes so long that it matters
	if wait := l.reserve(3600); wait != time.Hour {
		t.Errorf("the first hour waits %s", wait)
	}
	if wait := l.reserve(3600); wait <= time.Hour || wait > 2*time.Hour {
		t.Errorf("the second hour waits %s", wait)
	}
	if newLimiter(0) != nil {
		t.Error("no limit became one")
	}
}

func TestBackOffIsBounded(t *testing.T) {
	for range 100 { // all that is waited for a host that nobody answers for
		if wait := backOff(1, RetryOptions{}); wait > time.Second/2 {
			t.Errorf("by default the first attempt waits %s", wait)
		}
	}
	o := RetryOptions{Wait: time.Second, MaxWait: 10 * time.Second}
	for attempt, most := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 4: 8 * time.Second, 100: 10 * time.Second} {
		for range 100 {
			if wait := backOff(attempt, o); wait < most/2 || wait > most {
				t.Errorf("attempt %d waits %s, want %s to %s", attempt, wait, most/2, most)
			}
		}
	}
}
