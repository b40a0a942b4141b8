package cli

import (
	"os"
	"os/signal"
	"slices"
	"syscall"
	"testing"
)

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
