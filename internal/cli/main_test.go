package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"testing"

	"uenv-ci.dev/internal/fault"
)

// What the parts of the work say of the cause is all the same to who stopped it.
func TestInterruptionsAreSaidInOneWord(t *testing.T) {
	cause := errors.New("interrupt signal received")
	for _, c := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("pull: %w", context.Canceled), "pull: interrupted"},
		{fault.WithHint(fmt.Errorf("pull: %w", cause), "again"), "pull: interrupted"},
		{fault.New(fault.Network, "lost"), "interrupted: lost"},
	} {
		got := interrupted(c.err, cause)
		if got.Error() != c.want || fault.KindOf(got) != fault.Interrupted || fault.HintOf(got) != fault.HintOf(c.err) {
			t.Errorf("%v: got %v, hint %q", c.err, got, fault.HintOf(got))
		}
	}
}

func TestNohup(t *testing.T) {
	if signal.Ignored(syscall.SIGHUP) {
		t.Skip("this process is to ignore SIGHUP itself")
	}
	if got := unlessIgnored(syscall.SIGHUP, syscall.SIGTERM); !slices.Equal(got, []os.Signal{syscall.SIGHUP, syscall.SIGTERM}) {
		t.Errorf("got %v", got)
	}
	signal.Ignore(syscall.SIGHUP)
	defer signal.Reset(syscall.SIGHUP)
	if got := unlessIgnored(syscall.SIGHUP, syscall.SIGTERM); !slices.Equal(got, []os.Signal{syscall.SIGTERM}) {
		t.Errorf("under nohup: %v", got)
	}
}
