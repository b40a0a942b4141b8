package build

import "runtime"

// DefaultMemoryPerJob is how much memory a compiler may need, in bytes: big C++
// and Fortran sources of today take one to two GiB.
const DefaultMemoryPerJob = 2 << 30

// jobs returns how many things are compiled at once.
func (o *Options) jobs() int { return max(o.Jobs, 1) }

// chooseJobs decides how many things are compiled at once where nobody has: as
// many as there are processors for us, by affinity and cgroup, if the memory that
// is left beside the build directory is enough for so many.
func (o *Options) chooseJobs() {
	if o.Jobs > 0 {
		return
	}
	// Since Go 1.25 that is the least of processors, affinity and cgroup.
	processors := runtime.GOMAXPROCS(0)
	o.Jobs = processors
	free, where, ok := memoryLeft()
	if !ok {
		return
	}
	if inMemory(o.Root) {
		free -= o.Size
	}
	if o.Jobs = jobsFor(processors, free, o.MemoryPerJob); o.Jobs < processors {
		o.Events.Warn("build", "compiles %d things at once on %d processors, since %s has %s for them", o.Jobs, processors, where, mib(free))
	}
}

// jobsFor returns how many things can be compiled at once with so many processors
// and bytes of memory, at least one.
func jobsFor(processors int, free, perJob int64) int {
	if perJob <= 0 {
		perJob = DefaultMemoryPerJob
	}
	return int(max(1, min(int64(processors), free/perJob)))
}

// adapt changes what may have made a stage fail, before it is tried again.
func (j *job) adapt(stage *Stage, f *Failure) {
	if f.Class != classMemory || j.jobs() == 1 {
		return
	}
	j.Jobs = j.jobs() / 2
	stage.Jobs, j.report.Jobs = j.Jobs, j.Jobs
	j.Events.Warn(stage.Name, "compiles %d things at once from here on, for lack of memory", j.Jobs)
}
