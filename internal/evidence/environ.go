package evidence

import (
	"path/filepath"
	"slices"
	"strings"
)

// Tests run what images and recipes bring along, so they learn nothing of our
// environment but this: above all no credential.
var (
	passedNames = []string{
		"PATH", "LANG", "LANGUAGE", "TZ", "TERM", "USER", "LOGNAME", "SHELL", "HOSTNAME", "CLUSTER_NAME", "SCRATCH",
		"MODULEPATH", "MODULESHOME", "BASH_FUNC_module%%", "BASH_FUNC_ml%%", "CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES",
	}
	passedPrefixes = []string{"LC_", "SLURM_", "LMOD_", "RFM_", "CSCS_RFM_"}
	neverPassed    = []string{"SLURM_JWT"}
)

// Passed returns those variables of an environment that tests may know, and those of the
// given names.
func Passed(environ []string, also ...string) []string {
	var env []string
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		prefixed := slices.ContainsFunc(passedPrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
		known := slices.Contains(passedNames, name) || prefixed && !slices.Contains(neverPassed, name)
		if known || slices.Contains(also, name) {
			env = append(env, entry)
		}
	}
	return env
}

// baseEnviron returns the environment of the tests, without any view.
func (o Options) baseEnviron(l layout) []string {
	return append(Passed(o.Environ, o.Pass...), o.mark,
		"HOME="+l.home, "TMPDIR="+l.tmp, "PYTHONDONTWRITEBYTECODE=1", // a sandbox has its own HOME and /tmp
		"UENV_CI_MOUNT="+o.MountPoint, "UENV_CI_SYSTEM="+o.System, "UENV_CI_UARCH="+o.UArch)
}

// withViews returns env inside views, with the variable that tells the uenv
// client's sessions which views are loaded.
func (o Options) withViews(env, views []string) ([]string, error) {
	env, err := o.Env.Apply(views, env)
	if err != nil {
		return nil, err
	}
	return append(env, "UENV_VIEW="+o.loaded(views)), nil
}

func (o Options) loaded(views []string) string {
	entries := make([]string, len(views))
	for i, view := range views {
		entries[i] = o.MountPoint + ":" + o.Env.Name + ":" + strings.TrimPrefix(view, o.Env.Name+":")
	}
	return strings.Join(entries, ",")
}

// defaultViews returns the view that is loaded unless something else is asked for.
func (o Options) defaultViews() []string {
	if _, ok := o.Env.Views[o.Env.DefaultView]; !ok {
		return nil
	}
	return []string{o.Env.DefaultView}
}

func variables(env []string) map[string]string {
	vars := make(map[string]string, len(env))
	for _, entry := range env {
		if name, value, ok := strings.Cut(entry, "="); ok {
			vars[name] = value
		}
	}
	return vars
}

// changed returns what differs between two environments; nil stands for a
// variable that is not set any more.
func changed(before, after []string) map[string]*string {
	old, now := variables(before), variables(after)
	diff := map[string]*string{}
	for name, value := range now {
		if was, ok := old[name]; !ok || was != value {
			diff[name] = &value
		}
	}
	for name := range old {
		if _, ok := now[name]; !ok {
			diff[name] = nil
		}
	}
	return diff
}

func (o Options) suiteName() string {
	switch {
	case o.Suite.Name != "":
		return o.Suite.Name
	case o.Suite.Dir != "":
		return filepath.Base(o.Suite.Dir)
	}
	return "recipe"
}
