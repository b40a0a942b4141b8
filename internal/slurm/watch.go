package slurm

import (
	"context"
	"time"

	"uenv-ci.dev/internal/fault"
)

// Watch says how a job is followed.
type Watch struct {
	// Changed hears of every new state, reason or node; it may be nil.
	Changed func(Status)
	// Lost hears that Slurm does not answer, once each time; it may be nil.
	Lost func(error)
	// Done tells, from what the job leaves behind, that it is about to end, so that
	// Slurm is asked at once. It is called often; it may be nil.
	Done func() bool
	// Limit ends the wait when the job has run for so long; 0 is never.
	Limit time.Duration
}

// How a job is followed: Slurm is asked seldom, since all users share its controller.
const (
	firstWait  = 250 * time.Millisecond
	longWait   = 10 * time.Second
	look       = 250 * time.Millisecond // at what the job leaves behind
	tolerance  = 10 * time.Minute       // without an answer of Slurm's
	completing = time.Minute            // of a job that is done

	hopelessLooks = 3 // at a job that would never start; the first may be from before the scheduler has looked
)

// Wait follows a job until it has ended. The status is the last that is known, also with
// an error: of kind Untested if the job will never start or has run over the limit, of
// kind Network if Slurm has not answered for long. The job is then still to be cancelled.
func (c Client) Wait(ctx context.Context, id string, w Watch) (Status, error) {
	last := Status{ID: id}
	hopeless, wait := 0, firstWait
	var lost, over time.Time
	for {
		now, err := c.Status(ctx, id)
		switch {
		case ctx.Err() != nil:
			return last, context.Cause(ctx)
		case err != nil && lost.IsZero():
			lost = time.Now()
			if w.Lost != nil {
				w.Lost(err)
			}
		case err != nil && time.Since(lost) > tolerance:
			return last, fault.Wrap(fault.Network, err, "lost sight of job %s", id)
		case err == nil:
			lost = time.Time{}
			if w.Changed != nil && (now.State != last.State || now.Reason != last.Reason || now.Nodes != last.Nodes) {
				w.Changed(now)
			}
			last = now
			if over.IsZero() && now.State == Completing {
				over = time.Now()
			}
			hopeless++
			if !now.Hopeless() {
				hopeless = 0
			}
			if done, err := last.judge(w, hopeless, over); done {
				return last, err
			}
		}
		if wait, err = w.pause(ctx, wait); err != nil {
			return last, err
		}
	}
}

// judge tells whether there is nothing more to wait for.
func (s Status) judge(w Watch, hopeless int, over time.Time) (bool, error) {
	switch {
	case s.State.Ended(), s.State == Completing && time.Since(over) > completing:
		return true, nil
	case hopeless > hopelessLooks:
		return true, neverStarts(s)
	case w.Limit > 0 && s.State == Running && s.Elapsed > w.Limit.Seconds():
		return true, fault.New(fault.Untested, "job %s runs for longer than %s, and has not ended its tests by itself", s.ID, w.Limit)
	}
	return false, nil
}

func neverStarts(s Status) error {
	err := fault.New(fault.Untested, "job %s would never start: %s", s.ID, s.Reason)
	return fault.WithHint(err, "its settings ask for more than the partition or the account allows: see 'scontrol show partition %s', and --slurm", s.Partition)
}

// pause waits before Slurm is asked again, longer each time, but not when the job is done.
func (w Watch) pause(ctx context.Context, wait time.Duration) (time.Duration, error) {
	end := time.Now().Add(wait)
	done := w.Done != nil && w.Done()
	for time.Now().Before(end) {
		select {
		case <-ctx.Done():
			return wait, context.Cause(ctx)
		case <-time.After(min(look, time.Until(end))):
		}
		if !done && w.Done != nil && w.Done() {
			return firstWait, nil
		}
	}
	return min(wait*3/2, longWait), nil
}
