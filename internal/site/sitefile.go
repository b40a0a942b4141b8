package site

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"uenv-ci.dev/internal/bounded"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/yamlpos"
)

// FileName is the name of the site file in a checkout.
const FileName = "uenv-ci.yaml"

// Site is our site file with paths made absolute. The zero value is that of a
// site without one.
type Site struct {
	File   string // "" without a file
	Digest string // of the file, sha256:…
	// Explicit is set if the file was named by its user rather than found. Only
	// then are Rules, hook secrets and tokens taken from it: a file found in the
	// checkout of a change must not decide what that change may do.
	Explicit bool
	// Here is set if the file was found in the working directory or above: it may
	// be part of a change that nobody has looked at yet. Such a file names no
	// programs and no tests, and no secret goes to the registry that it names.
	Here bool

	Registry   Value
	Listing    Value  // URL or file of the listing of images that the uenv client reads
	Repo       Value  // local repository of pulled images
	Stripes    string // how images are striped on Lustre, as --stripes has it
	Clusters   Value  // directory of cluster configurations
	ClustersV1 Value  // that for recipes of version 1; not given = Clusters
	Matrix     Value  // the pipeline's config.yaml
	Recipes    Value  // directory of recipes
	Namespaces Namespaces
	Build      BuildSettings
	Tests      Tests
	Uenvs      []Uenv // file order
	Rules      *Rules // nil unless Explicit

	Warnings fault.Problems
	// Unset are the variables that are not set, as warnings.
	Unset fault.Problems
}

// Namespaces are the names of the namespaces; "" stands for the usual one.
type Namespaces struct{ Build, Deploy string }

// BuildSettings say how builds run; zero values stand for the defaults.
type BuildSettings struct {
	Root         Value // directory for builds
	Jobs         int
	MemoryPerJob int   // in MiB
	Mirrors      Value // mirror file; its build cache is written by jobs on protected refs only
	Spack        Value // checkout to build with
	// ChangeCache is the file of the build cache that builds of changes have for
	// themselves.
	ChangeCache Value
	SourceCache Value // directory of sources
}

// Tests say how images are tested; zero values stand for the defaults.
type Tests struct {
	Runner         string // "reframe", "command" or "" = by what the recipe has
	Suite          Value  // directory of ReFrame tests
	Config         Value  // ReFrame's configuration file
	Reframe        Value  // ReFrame's program
	TimeoutSeconds int
	Executor       string // "local", "slurm" or "" = local
	Shared         Value  // directory that compute nodes have too
}

// Uenv is what holds for one user environment.
type Uenv struct {
	Name        string
	Restricted  bool // nothing of the image in public places
	Username    string
	Token       Value        // file; not given unless Explicit
	HookSecrets []HookSecret // none unless Explicit
	Network     []string     // hooks that may use the network
}

// HookSecret is a source credential for a hook of the recipe.
type HookSecret struct {
	Hook string // pre-install, post-install or build
	Env  string // variable that gets the value
	File Value  // whose content is the value
}

// Rules say what may be promoted.
type Rules struct {
	From    []string // namespaces that images may come from; none = build
	Require []Requirement
	Waivers []Waiver
}

// Requirement is evidence that a promotion needs. Empty parts hold for all.
type Requirement struct {
	System, UArch string
	MinTests      int // 0 = one
	Suites        []string
	MaxAgeDays    int // 0 = any
}

// Waiver lets a known failure pass until a day.
type Waiver struct {
	Test   string // name, * matching any text
	Uenv   string // label pattern, "" = all
	Reason string
	Until  string // YYYY-MM-DD, the last day
}

// Find reads the site file that applies: the one named, else the first found of
// uenv-ci.yaml here or in a directory above, the user's configuration and
// /etc/uenv-ci/site.yaml. Without any it returns an empty Site.
func Find(named string, getenv func(string) string) (*Site, error) {
	if named != "" {
		s, err := LoadSite(named, getenv)
		if err != nil {
			return nil, err
		}
		s.Explicit = true
		return s, nil
	}
	upwards, own := candidates(getenv)
	for i, path := range append(upwards, own...) {
		if info, err := os.Stat(path); err != nil || info.IsDir() {
			continue
		}
		s, err := LoadSite(path, getenv)
		if err != nil {
			return nil, err
		}
		s.Here = i < len(upwards)
		s.distrust()
		return s, nil
	}
	return &Site{}, nil
}

// candidates returns where a site file is looked for: from the working directory
// upwards, and in places that belong to the user or the system.
func candidates(getenv func(string) string) (upwards, own []string) {
	if dir, err := os.Getwd(); err == nil {
		for ; ; dir = filepath.Dir(dir) {
			upwards = append(upwards, filepath.Join(dir, FileName))
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	if dir := getenv("XDG_CONFIG_HOME"); dir != "" {
		own = append(own, filepath.Join(dir, "uenv-ci", "site.yaml"))
	} else if dir := getenv("HOME"); dir != "" {
		own = append(own, filepath.Join(dir, ".config", "uenv-ci", "site.yaml"))
	}
	return upwards, append(own, "/etc/uenv-ci/site.yaml")
}

// distrust drops what only a file that was named may say, and from one that was
// found here also what would run programs of its choice.
func (s *Site) distrust() {
	dropped := s.Rules != nil
	s.Rules = nil
	for i := range s.Uenvs {
		u := &s.Uenvs[i]
		dropped = dropped || u.Token.Given() || len(u.HookSecrets) > 0
		u.Token, u.HookSecrets = Value{}, nil
	}
	if dropped {
		s.warn("promotion rules, waivers, tokens and hook secrets are taken only from a site file that is named")
	}
	if !s.Here {
		return
	}
	programs := Tests{Runner: s.Tests.Runner, TimeoutSeconds: s.Tests.TimeoutSeconds, Executor: s.Tests.Executor}
	settings := BuildSettings{Jobs: s.Build.Jobs, MemoryPerJob: s.Build.MemoryPerJob}
	if s.Tests != programs || s.Build != settings {
		s.warn("test suites, programs and places of builds are not taken from a site file that is found in the working directory or above")
	}
	s.Tests, s.Build = programs, settings
}

func (s *Site) warn(message string) {
	s.Warnings = append(s.Warnings, fault.Problem{
		File: s.File, Severity: fault.Warning, Rule: "found-site-file", Message: message, Hint: "use --site " + s.File,
	})
}

// LoadSite reads a site file. Relative paths in it are relative to its directory;
// $VAR is replaced by the environment's value: what names one that is not set is an
// error when it is used (Value.Get).
func LoadSite(path string, getenv func(string) string) (*Site, error) {
	absolute, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("read site file: %w", err)
	}
	data, err := bounded.ReadFile(path, yamlpos.MaxBytes)
	if os.IsNotExist(err) {
		return nil, fault.New(fault.NotFound, "the site file '%s' does not exist", path)
	}
	if err != nil {
		return nil, fmt.Errorf("read site file '%s': %w", path, err)
	}
	r := &siteReader{dir: filepath.Dir(absolute), getenv: getenv}
	root := r.parse(path, data)
	sum := sha256.Sum256(data)
	s := &Site{File: absolute, Digest: "sha256:" + hex.EncodeToString(sum[:])}
	if root != nil {
		r.read(s, root)
	}
	s.Unset = r.unset
	if r.Problems.Err() != nil {
		r.Add(r.unset...)
	}
	if s.Warnings, err = r.finish(); err != nil {
		return nil, err
	}
	return s, nil
}

type siteReader struct {
	reader
	dir    string
	getenv func(string) string
	unset  fault.Problems
}

func (r *siteReader) parse(path string, data []byte) *yamlpos.Node {
	root, problems := yamlpos.Read(path, data)
	r.Add(problems...)
	if root.IsNull() {
		return nil // an empty file says nothing
	}
	compiled, err := siteFormat()
	if err != nil {
		r.Fail(root, "", "cannot be checked: %v", err)
		return nil
	}
	r.Add(compiled.Validate(root)...)
	return root
}

func (r *siteReader) read(s *Site, root *yamlpos.Node) {
	s.Registry = r.registry(root.Get("registry"))
	s.Listing = r.listing(root.Get("listing"))
	s.Repo = r.path(root.Get("repo"))
	s.Stripes = root.Get("stripes").Text()
	s.Clusters = r.path(root.Get("clusters"))
	s.ClustersV1 = r.path(root.Get("clusters_v1"))
	s.Matrix = r.path(root.Get("matrix"))
	s.Recipes = r.path(root.Get("recipes"))
	namespaces := root.Get("namespaces")
	s.Namespaces = Namespaces{namespaces.Get("build").Text(), namespaces.Get("deploy").Text()}
	build := root.Get("build")
	s.Build = BuildSettings{r.path(build.Get("root")), build.Get("jobs").Int(), build.Get("memory_per_job").Int(), r.path(build.Get("mirrors")), r.path(build.Get("spack")), r.path(build.Get("change_cache")), r.path(build.Get("source_cache"))}
	tests := root.Get("tests")
	s.Tests = Tests{
		Runner: tests.Get("runner").Text(), Suite: r.path(tests.Get("suite")), Config: r.path(tests.Get("config")),
		Reframe: r.program(tests.Get("reframe")), TimeoutSeconds: tests.Get("timeout").Int(),
		Executor: tests.Get("executor").Text(), Shared: r.path(tests.Get("shared")),
	}
	for _, p := range yamlpos.Pairs(root.Get("uenvs")) {
		s.Uenvs = append(s.Uenvs, r.uenv(p.Key.Raw, p.Value))
	}
	s.Rules = r.rules(root)
}

// value returns the text of n with variables replaced, as complete makes it.
func (r *siteReader) value(n *yamlpos.Node, complete func(string) string) Value {
	if n.Text() == "" {
		return Value{}
	}
	expanded, unset := expandAll(n.Text(), r.getenv)
	if unset == "" {
		return Value{text: complete(expanded), given: expanded, at: n.Problem("", "")}
	}
	r.unset = append(r.unset, n.Warning("unset-variable", fmt.Sprintf("the variable %s is not set", unset), "what needs it will fail"))
	return Value{unset: unset, at: n.Problem("", "")}
}

// path is an absolute path.
func (r *siteReader) path(n *yamlpos.Node) Value { return r.value(n, r.absolute) }

func (r *siteReader) absolute(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(r.dir, path)
}

// program is path for a program: a name without a slash is searched for in PATH.
func (r *siteReader) program(n *yamlpos.Node) Value {
	return r.value(n, func(given string) string {
		if !strings.Contains(given, "/") {
			return given
		}
		return r.absolute(given)
	})
}

func (r *siteReader) registry(n *yamlpos.Node) Value {
	return r.value(n, func(given string) string {
		if dir, ok := strings.CutPrefix(given, "oci:"); ok && dir != "" {
			return "oci:" + r.absolute(dir)
		}
		return given
	})
}

// listing is an URL or a path.
func (r *siteReader) listing(n *yamlpos.Node) Value {
	return r.value(n, func(given string) string {
		if strings.HasPrefix(given, "http://") || strings.HasPrefix(given, "https://") {
			return given
		}
		return r.absolute(given)
	})
}

func (r *siteReader) uenv(name string, n *yamlpos.Node) Uenv {
	u := Uenv{
		Name: name, Restricted: n.Get("access").Text() == "restricted", Username: n.Get("username").Text(),
		Token: r.path(n.Get("token")), Network: n.Get("network").Texts(),
	}
	for _, item := range yamlpos.Items(n.Get("hook_secrets")) {
		u.HookSecrets = append(u.HookSecrets, HookSecret{item.Get("hook").Text(), item.Get("env").Text(), r.path(item.Get("file"))})
	}
	return u
}

// rules returns nil if the file says nothing about promotion.
func (r *siteReader) rules(root *yamlpos.Node) *Rules {
	promotion, waivers := root.Get("promotion"), root.Get("waivers")
	if promotion == nil && waivers == nil {
		return nil
	}
	rules := &Rules{From: promotion.Get("from").Texts()}
	for _, n := range yamlpos.Items(promotion.Get("require")) {
		rules.Require = append(rules.Require, Requirement{
			System: n.Get("system").Text(), UArch: n.Get("uarch").Text(), MinTests: n.Get("min_tests").Int(),
			Suites: n.Get("suites").Texts(), MaxAgeDays: n.Get("max_age_days").Int(),
		})
	}
	for _, n := range yamlpos.Items(waivers) {
		rules.Waivers = append(rules.Waivers, r.waiver(n))
	}
	return rules
}

func (r *siteReader) waiver(n *yamlpos.Node) Waiver {
	w := Waiver{n.Get("test").Text(), n.Get("uenv").Text(), n.Get("reason").Text(), n.Get("until").Text()}
	if looksLikeDay.MatchString(w.Until) && !isDay(w.Until) {
		r.Fail(n.Get("until"), "", "'%s' is no day of the calendar", w.Until)
	}
	if w.Uenv != "" {
		if _, err := label.Parse(w.Uenv); err != nil {
			r.Fail(n.Get("uenv"), fault.HintOf(err), "%v", err)
		}
	}
	return w
}

// Uenv returns what the file says of a user environment; the zero value, under
// the name, if nothing.
func (s *Site) Uenv(name string) Uenv {
	for _, u := range s.Uenvs {
		if u.Name == name {
			return u
		}
	}
	return Uenv{Name: name}
}

// ClusterDirFor returns the directory of a system's configuration for recipes of
// a version: Spack before 1.0, which version 1 uses, reads another form of it.
func (s *Site) ClusterDirFor(system string, recipeVersion int) (string, error) {
	root := s.Clusters
	if recipeVersion == 1 && s.ClustersV1.Given() {
		root = s.ClustersV1
	}
	parent, err := root.Get()
	if err != nil {
		return "", err
	}
	if parent == "" {
		err := fault.New(fault.Usage, "no directory of cluster configurations is known for system '%s'", system)
		return "", fault.WithHint(err, "give the directory of the cluster, or 'clusters:' in the site file")
	}
	if !filepath.IsLocal(system) || strings.ContainsRune(system, filepath.Separator) || system == "." {
		return "", fault.New(fault.Usage, "'%s' is not the name of a system", system)
	}
	dir := filepath.Join(parent, system)
	if _, err := openDir("cluster configuration", dir); err != nil {
		return "", fault.WithHint(err, "%s", clusterHint(dir))
	}
	return dir, nil
}

// looksLikeDay is what the schema lets through; it reports the rest.
var looksLikeDay = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}$`)

func isDay(s string) bool {
	_, err := time.Parse(time.DateOnly, s)
	return err == nil
}
