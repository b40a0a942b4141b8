package build

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// stage runs a part of the build and notes what it took.
func (j *job) stage(name string, do func() error) error { return j.stageTries(name, 1, do) }

// stageTries is a stage that is tried again if its error may pass by itself.
func (j *job) stageTries(name string, tries int, do func() error) error {
	if j.shell != nil && j.shell.Before == name {
		return errStopped
	}
	j.Events.Start(name, "")
	s := Stage{Name: name}
	start, cpu := time.Now(), j.cell.used()
	err := j.try(do)
	for ; err != nil && tries > 1; tries-- {
		f, ok := errors.AsType[*Failure](err)
		if !ok || !f.retry {
			break
		}
		j.Events.Warn(name, "%v", err)
		j.Events.Info(name, "this may pass (%s): once more", f.Class)
		s.Retried = true
		j.adapt(&s, f)
		err = j.try(do)
	}
	j.cell.guard.measureStorage()
	s.Seconds, s.CPUSeconds, s.Failed = seconds(time.Since(start)), seconds(j.cell.used()-cpu), err != nil
	j.report.Stages = append(j.report.Stages, s)
	if err != nil {
		if f, ok := errors.AsType[*Failure](err); ok {
			f.Stage, f.Retried = name, s.Retried
			j.report.Failure = f
		}
		j.Events.Failed(name, err)
		return fmt.Errorf("%s: %w", name, err)
	}
	j.Events.Done(name, "")
	return nil
}

// try does a part of the build and says more of its error if it can.
func (j *job) try(do func() error) error {
	if err := do(); err != nil {
		return explainOwn(j.ctx, err)
	}
	return nil
}

// hook runs one of the recipe's programs, "" for none. It is a path below BUILD.
func (j *job) hook(ctx context.Context, name, file string) error {
	if file == "" {
		return nil
	}
	return j.stage(name, func() error {
		return j.program(ctx, step{name: name, cmd: j.command(file)})
	})
}

// program runs a program of the recipe, which is called as the step is.
func (j *job) program(ctx context.Context, s step) error {
	s.network = j.hookNetwork(s.name)
	s.cmd.Env = append(s.cmd.Env, j.secretsOf(s.name)...)
	if !j.Restricted {
		s.watch = func(line string) { j.Events.Info(s.name, "%s", line) }
	}
	return j.explain(ctx, classHook, j.cell.run(ctx, s))
}
