package evidence

import (
	"cmp"
	"fmt"
	"path/filepath"

	"uenv-ci.dev/internal/bounded"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/meta"
)

// maxAdopted bounds a verdict that is read, in bytes.
const maxAdopted = 64 << 20

// Adopt takes over the results that another run of this program has left in dir, as one in
// a job does: what only we know is added to its verdict, which is decided again with our
// waivers. Of the options those that describe the image, the system, the partition and the
// waivers count; results of another system are an error of kind Invalid.
func Adopt(dir, job string, o Options) (Result, error) {
	file := filepath.Join(dir, verdictFile)
	data, err := bounded.ReadFile(file, maxAdopted)
	if err != nil {
		return Result{}, fmt.Errorf("read test results: %w", err)
	}
	v, err := meta.ParseVerdict(data)
	if err != nil {
		return Result{}, fmt.Errorf("read test results: %s: %w", file, err)
	}
	if v.System != o.System {
		return Result{}, fault.New(fault.Invalid, "read test results: they are of %q, asked for were those of %q", v.System, o.System)
	}
	v.Image, v.Partition = o.Image, cmp.Or(v.Partition, o.Partition)
	v.Cases = meta.ApplyWaivers(v.Cases, o.Waivers, v.System, v.When.Time)
	for i := range v.Cases {
		v.Cases[i].JobID = cmp.Or(v.Cases[i].JobID, job)
	}
	reason, none := v.Reason, v.State == meta.Untested && len(v.Cases) == 0
	d := v.Decide(v.When.Time)
	v.State, v.Reason, v.Counts = d.State, d.Reason, d.Counts
	if none && v.State == meta.Untested {
		v.Reason = reason // why there are no cases
	}
	told := v
	if o.Restricted {
		told = Withheld(v)
	}
	o.Events.Emit(outcomeEvent(told))
	return Result{Verdict: v, Dir: dir}, layout{results: dir}.write(v)
}
