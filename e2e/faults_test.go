package e2e

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"testing"
	"time"

	"uenv-ci.dev/internal/registrytest"
)

// Every row of these tables is one fault. In each trial it befalls an image at a
// random point of its way: push, attach, promote, pull. A step then either succeeds
// or says clearly what is wrong and succeeds when it is run again; after each, no
// file has its final name without the right content, no tag is without metadata,
// and the local repository verifies clean.
//
//	UENV_CI_FAULT_TRIALS=200 go test ./e2e -run TestFaults -v -timeout 3h
//
// UENV_CI_FAULT_FIRST=50 begins with trial 50: for one trial alone, or a part of them.

// faultTrials is which trials of each fault are made: those from first to before
// end.
func faultTrials(t *testing.T) (first, end int) {
	number := func(name, fallback string, least int) int {
		n, err := strconv.Atoi(cmp.Or(os.Getenv(name), fallback))
		if err != nil || n < least {
			t.Fatalf("%s=%q is no number of trials", name, os.Getenv(name))
		}
		return n
	}
	first = number("UENV_CI_FAULT_FIRST", "0", 0)
	return first, first + number("UENV_CI_FAULT_TRIALS", "3", 1)
}

// outcome is what became of a trial.
type outcome int

const (
	succeeded outcome = iota // at once
	recovered                // after a clear error, when it was run again
	bad
)

// tally runs the trials of one fault and prints a line of the table. A trial's
// random numbers depend on the fault and its number alone.
func tally(t *testing.T, fault string, try func(s *stage, random *rand.Rand) (outcome, error)) {
	t.Run(fault, func(t *testing.T) {
		s := newStage(t)
		var count [bad + 1]int
		first, end := faultTrials(t)
		for trial := first; trial < end; trial++ {
			seed := fnv.New64a()
			fmt.Fprint(seed, fault)
			got, err := try(s, rand.New(rand.NewPCG(seed.Sum64(), uint64(trial))))
			if err != nil {
				got = bad
				t.Errorf("trial %d: %v", trial, err)
			}
			count[got]++
		}
		t.Logf("| %-36s | %4d | %4d | %4d | %d |", fault, end-first, count[succeeded], count[recovered], count[bad])
	})
}

// networkFault is one that a registry or what is before it may have.
type networkFault struct {
	name  string
	rules func(random *rand.Rand) registrytest.Rule
	large bool          // the image is large enough for uploads that are resumed
	stall time.Duration // how long the client waits; 0 is long
}

const (
	anyPath  = `^/v2/.`
	blobPath = `/blobs/sha256:`
)

// status answers any request with a status.
func status(code int, headers ...string) func(*rand.Rand) registrytest.Rule {
	return func(*rand.Rand) registrytest.Rule {
		return registrytest.Rule{Path: anyPath, Fault: registrytest.Status(code, headers...)}
	}
}

// download breaks the download of blobs, at some byte.
func download(fault func(n int64) registrytest.Fault) func(*rand.Rand) registrytest.Rule {
	return func(random *rand.Rand) registrytest.Rule {
		return registrytest.Rule{Method: http.MethodGet, Path: blobPath, Fault: fault(someByte(random, smallImage))}
	}
}

// upload breaks the upload of blobs, at some byte.
func upload(fault func(n int64) registrytest.Fault) func(*rand.Rand) registrytest.Rule {
	return func(random *rand.Rand) registrytest.Rule {
		method := []string{http.MethodPatch, http.MethodPut}[random.IntN(2)]
		return registrytest.Rule{Method: method, Path: `/blobs/uploads/`, Fault: fault(someByte(random, largeImage))}
	}
}

// someByte is often one of the first, where small documents end.
func someByte(random *rand.Rand, size int) int64 {
	if random.IntN(3) == 0 {
		return random.Int64N(300)
	}
	return random.Int64N(int64(size))
}

func always(fault registrytest.Fault) func(int64) registrytest.Fault {
	return func(int64) registrytest.Fault { return fault }
}

// loop sends every request to itself.
func loop(w http.ResponseWriter, r *http.Request, _ http.Handler) {
	http.Redirect(w, r, r.URL.RequestURI(), http.StatusTemporaryRedirect)
}

func date(offset time.Duration) string {
	return "Retry-After: " + time.Now().Add(offset).UTC().Format(http.TimeFormat)
}

var networkFaults = []networkFault{
	{name: "reset before the answer", rules: func(*rand.Rand) registrytest.Rule {
		return registrytest.Rule{Path: anyPath, Fault: registrytest.Reset}
	}},
	{name: "reset after n bytes", rules: download(registrytest.HangUpAfter)},
	{name: "reset after n bytes of an upload", rules: upload(registrytest.ResetUploadAfter), large: true},
	{name: "stall", rules: download(registrytest.StallAfter), stall: 100 * time.Millisecond},
	{name: "stall of a manifest", rules: func(random *rand.Rand) registrytest.Rule {
		return registrytest.Rule{Method: http.MethodGet, Path: "/manifests/", Fault: registrytest.StallAfter(random.Int64N(300))}
	}, stall: 100 * time.Millisecond},
	{name: "stall of an upload", rules: upload(registrytest.StallUploadAfter), large: true, stall: 30 * time.Millisecond},
	{name: "500", rules: status(500)},
	{name: "502", rules: status(502)},
	{name: "503", rules: status(503)},
	{name: "503 with Retry-After", rules: status(503, "Retry-After: 1")},
	{name: "429", rules: status(429)},
	{name: "429 with Retry-After", rules: status(429, "Retry-After: 1")},
	{name: "truncated, of the right length", rules: download(registrytest.ResetAfter)},
	{name: "one flipped bit", rules: download(registrytest.FlipBit)},
	{name: "one flipped bit of a manifest", rules: func(random *rand.Rand) registrytest.Rule {
		return registrytest.Rule{Method: http.MethodGet, Path: "/manifests/", Fault: registrytest.FlipBit(random.Int64N(500))}
	}},
	{name: "wrong range", rules: download(always(registrytest.WrongRange)), large: true},
	{name: "ranges ignored", rules: download(always(registrytest.IgnoreRange)), large: true},
	{name: "redirect loop", rules: func(*rand.Rand) registrytest.Rule {
		return registrytest.Rule{Method: http.MethodGet, Path: anyPath, Fault: loop}
	}},
	{name: "clock of the registry behind", rules: func(*rand.Rand) registrytest.Rule {
		return registrytest.Rule{Path: anyPath, Fault: registrytest.Status(503, date(-24*time.Hour))}
	}},
	{name: "clock of the registry ahead", rules: func(*rand.Rand) registrytest.Rule {
		return registrytest.Rule{Path: anyPath, Fault: registrytest.Status(503, date(24*time.Hour))}
	}},
}

func TestFaultsOfTheNetwork(t *testing.T) {
	for _, f := range networkFaults {
		tally(t, f.name, func(s *stage, random *rand.Rand) (outcome, error) {
			w := s.road(random, f.large)
			defer w.end()
			w.stall = f.stall
			rule := f.rules(random)
			requests, err := w.rehearse(rule)
			if err != nil {
				return bad, err
			}
			rule.Skip = random.IntN(max(1, requests))
			rule.Times = random.IntN(4) // 0 is from then on
			w.breaks(rule)
			return w.travel()
		})
	}
}

func TestFaultsOfTokens(t *testing.T) {
	t.Setenv("UENV_CI_REGISTRY_USERNAME", registryUser)
	t.Setenv("UENV_CI_REGISTRY_PASSWORD", registryPassword)
	tally(t, "token that expires", func(s *stage, random *rand.Rand) (outcome, error) {
		w := s.road(random, true)
		defer w.end()
		tokens := &registrytest.Tokens{Username: registryUser, Password: registryPassword, Uses: 1 + random.IntN(6)}
		w.guard = tokens.Middleware()
		w.breaks(registrytest.Rule{Method: http.MethodGet, Path: blobPath, Times: 3, Fault: registrytest.HangUpAfter(someByte(random, largeImage))})
		return w.travel()
	})
}
