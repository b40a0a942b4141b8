package proc

import (
	"syscall"
	"time"
)

// Usage is what a program took, with those of its descendants that were waited
// for.
type Usage struct {
	CPU    time.Duration // user and system time
	MaxRSS int64         // bytes that the largest of the processes had in memory
}

// Usage returns what the program took. It is zero before Wait.
func (p *Process) Usage() Usage {
	state := p.cmd.ProcessState
	if state == nil {
		return Usage{}
	}
	u := Usage{CPU: state.UserTime() + state.SystemTime()}
	if r, ok := state.SysUsage().(*syscall.Rusage); ok {
		u.MaxRSS = int64(r.Maxrss) << 10
	}
	return u
}
