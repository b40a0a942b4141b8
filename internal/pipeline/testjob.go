package pipeline

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"uenv-ci.dev/internal/bounded"
	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/evidence"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/slurm"
)

// InSlurm says how tests run in a Slurm job. The job runs this program with the executor
// local. What needs a credential, to fetch the image and to attach the results, is done
// here: the job gets no credential, and of our environment what tests may know.
type InSlurm struct {
	Client   slurm.Client
	Settings slurm.Settings
	// Dir is an existing private directory for the files of the job, on a file system
	// that the compute nodes have too.
	Dir     string
	Root    string // all such directories of this host are below it
	Program string // this program
	// Args returns the program's arguments in the job.
	Args func(JobPlaces) []string
	// KindOf tells the kind of error that the program's exit code stands for.
	KindOf func(code int) fault.Kind
}

// JobPlaces are what the program in the job has to know.
type JobPlaces struct {
	Image   string // path of the image
	Site    string // an empty site file
	Results string // directory for the results, to be made; in the one where the program runs
	Timeout time.Duration
}

// Names below InSlurm.Dir.
const (
	jobProgram = "uenv-ci"
	jobImage   = "store.squashfs"
	jobSite    = "site.yaml"
	jobResults = "results"
	jobResult  = "result.json" // the program's standard output
	jobErrors  = "errors"      // its standard error: messages, and at last the error
	jobEnded   = "ended"       // its exit code, when it has ended
	jobLog     = "slurm.log"   // what Slurm has to say
)

// jobPrefix begins the names of our jobs.
const jobPrefix = "uenv-ci-test-"

// How long is waited for a job that was cancelled, and what is added to the time of the
// tests before one that goes on is cancelled.
const (
	cancelTime  = 2 * time.Minute
	jobOverhead = 3 * time.Minute
)

// Ready returns nil if jobs can be submitted, and cancels those that killed runs have left
// behind: their directories were below Root and are gone.
func (s InSlurm) Ready(ctx context.Context, events event.Sink) error {
	if err := slurm.Available(); err != nil {
		return err
	}
	jobs, err := s.Client.List(ctx)
	if err != nil {
		return fmt.Errorf("ask Slurm: %w", err)
	}
	for _, j := range jobs {
		if !strings.HasPrefix(j.Name, jobPrefix) || !strings.HasPrefix(j.Dir, s.Root+"/") {
			continue
		}
		if _, err := os.Lstat(j.Dir); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := s.Client.Cancel(ctx, j.ID); err != nil {
			events.Warn(jobStage, "a job of a killed run is still there: %v", err)
			continue
		}
		events.Info(jobStage, "cancelled job %s of a killed run", j.ID)
	}
	return nil
}

const jobStage = "test"

// testInJob is Test on a compute node.
func (o TestOptions) testInJob(ctx context.Context) (tested Tested, err error) {
	limit, err := o.Slurm.prepare(ctx, o)
	if err != nil {
		return tested, fmt.Errorf("prepare the job: %w", err)
	}
	id, err := o.submit(ctx, limit)
	if err != nil {
		return tested, err
	}
	status, err := o.follow(ctx, id)
	tested.Job = &status
	if err != nil {
		return tested, err
	}
	if err := o.Slurm.judge(ctx, status); err != nil {
		return tested, err
	}
	run := o.Run
	run.Image, run.Events, run.Partition = o.subject(), o.Events, cmp.Or(run.Partition, status.Partition)
	result, err := evidence.Adopt(filepath.Join(o.Slurm.Dir, jobResults), status.ID, run)
	if err != nil {
		return tested, err
	}
	o.Slurm.inside(&tested)
	err = o.conclude(ctx, &tested, result)
	return tested, err
}

// prepare puts what the job needs where the nodes see it, and returns the time for the
// tests: so much less than the job's that their end by it is still a verdict.
func (s InSlurm) prepare(ctx context.Context, o TestOptions) (time.Duration, error) {
	if err := place(ctx, s.Program, filepath.Join(s.Dir, jobProgram), o.Events); err != nil {
		return 0, err
	}
	if err := place(ctx, o.Image.Path, filepath.Join(s.Dir, jobImage), o.Events); err != nil {
		return 0, err
	}
	beside := filepath.Join(filepath.Dir(o.Image.Path), metaEnv)
	if data, err := bounded.ReadFile(beside, maxEnv); err == nil {
		err = errors.Join(os.MkdirAll(filepath.Join(s.Dir, filepath.Dir(metaEnv)), 0o700), os.WriteFile(filepath.Join(s.Dir, metaEnv), data, 0o600))
		if err != nil {
			return 0, err
		}
	}
	timeout := o.Run.Timeout
	if limit, ok := s.Settings.Limit(); ok && limit > 0 {
		limit -= min(time.Minute, limit/5)
		if timeout == 0 || timeout > limit {
			timeout = limit
		}
	}
	return timeout, os.WriteFile(filepath.Join(s.Dir, jobSite), nil, 0o600)
}

// script runs the program in the job's directory, and says when it has ended, which
// nothing else tells for certain. It outlives a signal to the job, so that the program can
// clean up behind itself. The results have a relative path: a program that ends when the
// directory has gone must not make it anew.
func (s InSlurm) script(timeout time.Duration) string {
	at := func(name string) string { return filepath.Join(s.Dir, name) }
	words := []string{quote(at(jobProgram))}
	for _, arg := range s.Args(JobPlaces{at(jobImage), at(jobSite), jobResults, timeout}) {
		words = append(words, quote(arg))
	}
	return strings.Join([]string{
		"#!/bin/sh",
		"cd -- " + quote(s.Dir) + " || exit 1",
		"trap : HUP INT TERM",
		strings.Join(words, " ") + " >" + jobResult + " 2>" + jobErrors,
		"code=$?",
		"echo $code >" + jobEnded + ".new && mv " + jobEnded + ".new " + jobEnded,
		"exit $code", "",
	}, "\n")
}

func quote(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }

func (o TestOptions) submit(ctx context.Context, timeout time.Duration) (string, error) {
	name := jobPrefix + strings.ToLower(rand.Text()[:10])
	id, err := o.Slurm.Client.Submit(ctx, slurm.Job{
		Name: name, Dir: o.Slurm.Dir, Log: filepath.Join(o.Slurm.Dir, jobLog), Script: o.Slurm.script(timeout),
		Env: withoutSlurm(evidence.Passed(o.Run.Environ)), Settings: o.Slurm.Settings,
	})
	if err == nil {
		o.Events.Start(jobStage, "Slurm job %s", id)
		return id, nil
	}
	if ctx.Err() != nil || fault.KindOf(err) == fault.Network { // it may have been submitted all the same
		last, stop := context.WithTimeout(context.WithoutCancel(ctx), cancelTime)
		defer stop()
		if cancelErr := o.Slurm.Client.Cancel(last, name); cancelErr != nil && ctx.Err() != nil {
			err = errors.Join(err, cancelErr)
		}
	}
	return "", err
}

// withoutSlurm takes out what Slurm and CI systems say of other jobs.
func withoutSlurm(environ []string) []string {
	var kept []string
	for _, entry := range environ {
		if !strings.HasPrefix(entry, "SLURM_") {
			kept = append(kept, entry)
		}
	}
	return kept
}

// follow waits for a job's end. When we are told to stop, or there is no point in
// waiting, the job is cancelled and has ended before its directory goes.
func (o TestOptions) follow(ctx context.Context, id string) (slurm.Status, error) {
	inside := &hearing{file: filepath.Join(o.Slurm.Dir, jobErrors), events: o.Events}
	if o.Run.Restricted {
		inside.events = nil
	}
	defer inside.listen()
	w := slurm.Watch{
		Changed: func(s slurm.Status) { o.tellJob(s) },
		Lost:    func(err error) { o.Events.Warn(jobStage, "Slurm does not answer; the job goes on: %v", err) },
		Done: func() bool {
			inside.listen()
			_, ok := o.Slurm.ended()
			return ok
		},
	}
	if o.Run.Timeout > 0 {
		w.Limit = o.Run.Timeout + jobOverhead
	}
	status, err := o.Slurm.Client.Wait(ctx, id, w)
	if err == nil {
		return status, nil
	}
	o.Events.Info(jobStage, "cancelling job %s", id)
	last, stop := context.WithTimeout(context.WithoutCancel(ctx), cancelTime)
	defer stop()
	cancelErr := o.Slurm.Client.Cancel(last, id)
	if cancelErr == nil {
		if status, cancelErr = o.Slurm.Client.Wait(last, id, slurm.Watch{}); cancelErr != nil {
			cancelErr = fmt.Errorf("job %s is cancelled, but has not ended within %s: %w", id, cancelTime, cancelErr)
		}
	}
	if ctx.Err() != nil {
		err = fault.Wrap(fault.Interrupted, err, "wait for job %s", id)
	}
	return status, errors.Join(err, cancelErr)
}

func (o TestOptions) tellJob(s slurm.Status) {
	if s.Held() {
		o.Events.Warn(jobStage, "job %s waits until somebody releases it (%s): 'scontrol release %s'", s.ID, s.Reason, s.ID)
		return
	}
	o.Events.Info(jobStage, "%s", s)
}

// ended returns the exit code of the program in the job, if it has ended.
func (s InSlurm) ended() (int, bool) {
	data, err := bounded.ReadFile(filepath.Join(s.Dir, jobEnded), 64)
	if err != nil {
		return 0, false
	}
	code, err := strconv.Atoi(strings.TrimSpace(string(data)))
	return code, err == nil
}

// inside adds what the program in the job says of how the image was mounted.
func (s InSlurm) inside(tested *Tested) {
	var told Tested
	data, err := bounded.ReadFile(filepath.Join(s.Dir, jobResult), maxToldInside)
	if err == nil && json.Unmarshal(data, &told) == nil {
		tested.Method, tested.Attempts = told.Method, told.Attempts
	}
}

const maxToldInside = 64 << 20 // bytes
