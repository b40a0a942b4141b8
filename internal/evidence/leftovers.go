package evidence

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// markName is a variable with a value of its own in each run, by which all
// processes of the run are known. Test runners put jobs into sessions of their
// own, so ending the process group that we started does not end them.
const markName = "UENV_CI_TEST_RUN"

const (
	endAttempts = 100
	endWait     = 1000 // milliseconds
)

func newMark() string { return markName + "=" + rand.Text() }

// endLeftovers kills the processes that carry the mark. They may start others
// meanwhile, so it looks again until there are none.
func endLeftovers(mark string) error {
	for range endAttempts {
		pids, err := filepath.Glob("/proc/[0-9]*")
		if err != nil {
			return err
		}
		killed := 0
		for _, dir := range pids {
			if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil && pid != os.Getpid() && endIfMarked(pid, mark) {
				killed++
			}
		}
		if killed == 0 {
			return nil
		}
	}
	return fmt.Errorf("test: processes of the tests start faster than they can be ended")
}

// endIfMarked kills a process if it carries the mark. The handle is taken before
// the look, so that the process is not another one by then.
func endIfMarked(pid int, mark string) bool {
	handle, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return false
	}
	defer unix.Close(handle)
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil || !bytes.Contains(append([]byte{0}, environ...), []byte("\x00"+mark+"\x00")) {
		return false
	}
	if unix.PidfdSendSignal(handle, unix.SIGKILL, nil, 0) != nil {
		return false
	}
	// Wait for its end; one that hangs in the kernel must not hang us.
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(handle), Events: unix.POLLIN}}, endWait)
	return true
}
