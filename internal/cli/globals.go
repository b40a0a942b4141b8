package cli

import (
	"cmp"
	"errors"
	"strings"

	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/localrepo"
	"uenv-ci.dev/internal/registry"
	"uenv-ci.dev/internal/site"
)

// globalFlags are understood by every command.
func globalFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "site", Usage: "read the site's settings from `FILE` (else uenv-ci.yaml here or in a directory above, the user's configuration, /etc/uenv-ci/site.yaml)", EnvVars: []string{"UENV_CI_SITE"}},
		&cli.StringFlag{Name: "registry", Usage: "the registry `R`: HOST[:PORT][/PREFIX], or oci:DIR for a directory (else as the site file or the uenv client's configuration says)", EnvVars: []string{"UENV_CI_REGISTRY"}},
		&cli.StringFlag{Name: "repo", Usage: "the local repository `DIR`, or its name in the uenv client's configuration (else where that client looks)", EnvVars: []string{"UENV_CI_REPO"}},
		&cli.StringFlag{Name: "token", Usage: "`FILE` with a registry token, or a directory with a file TOKEN"},
		&cli.StringFlag{Name: "username", Usage: "the `NAME` that goes with --token"},
		&cli.StringFlag{Name: "registry-config", Usage: "take registry credentials from this docker configuration `FILE`"},
		&cli.StringFlag{Name: "ca-file", Usage: "trust the certificates in `FILE` besides the system's", EnvVars: []string{"UENV_CI_CA_FILE"}},
		&cli.BoolFlag{Name: "plain-http", Usage: "talk to the registry without TLS (not needed for loopback addresses)"},
		&cli.StringFlag{Name: "format", Usage: "show results as `text|json`", Value: "text"},
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "show only the result and errors"},
		&cli.StringFlag{Name: "log-level", Usage: "show messages of the level `debug|info|warn|error` and above", Value: "info"},
		&cli.BoolFlag{Name: "log-json", Usage: "write messages as JSON lines"},
	}
}

// globals are the values of the global flags, and what follows from them.
type globals struct {
	format   string
	reporter logOptions
	flags    *cli.Context
}

func readGlobals(c *cli.Context) (globals, error) {
	g := globals{format: c.String("format"), flags: c}
	if g.format != "text" && g.format != "json" {
		return g, fault.New(fault.Usage, "--format must be text or json, not %q", g.format)
	}
	g.reporter = logOptions{quiet: c.Bool("quiet"), json: c.Bool("log-json"), level: c.String("log-level")}
	return g, nil
}

// onlyWarnings is for commands whose own output matters more than messages about
// progress; if a log level is given, everything is shown.
func (in *invocation) onlyWarnings() event.Sink {
	if in.IsSet("log-level") || in.IsSet("log-json") {
		return in.events
	}
	return func(e event.Event) {
		if e.Kind == event.Warning {
			in.events(e)
		}
	}
}

// readSite reads the site file: the one that was named, else the first found.
func (in *invocation) readSite() error {
	s, err := site.Find(in.String("site"), in.getenv)
	var problems fault.Problems
	if in.root.checksSite && errors.As(err, &problems) {
		s, err, in.siteWrong = &site.Site{File: problems[0].File}, nil, true
	}
	if err != nil {
		return err
	}
	in.site = s
	if in.client, err = localrepo.ReadClientSettings(in.getenv); err != nil {
		in.events.Warn("site", "%v", err)
	}
	if !in.root.forUsers {
		in.warnOfSite()
	}
	return nil
}

func (in *invocation) warnOfSite() {
	for _, w := range in.site.Warnings {
		in.events.Warn("site", "%s", w.Plain())
	}
}

// settings are values of which a flag wins over the site file. The first that cannot
// be used is the error.
type settings struct {
	in  *invocation
	err error
}

// or returns the value of a flag, else that of the site file.
func (s *settings) or(flag string, v site.Value) string {
	value, err := v.Or(s.in.String(flag))
	if s.err == nil {
		s.err = err
	}
	return value
}

// deploy is the namespace that users see.
func (in *invocation) deploy() string { return cmp.Or(in.site.Namespaces.Deploy, "deploy") }

// build is the namespace that images are built into.
func (in *invocation) build() string { return cmp.Or(in.site.Namespaces.Build, "build") }

// namespaces are those in which an image may be found, unless --namespace says otherwise.
func (in *invocation) namespaces() []string {
	if named := commaList(in.StringSlice("namespace")); len(named) > 0 {
		return named
	}
	return []string{in.deploy(), in.build(), "service"}
}

// refuseDeploy keeps images that no rule has checked out of the namespace that users
// see.
func (in *invocation) refuseDeploy(l label.Label) error {
	if l.Namespace != in.deploy() {
		return nil
	}
	err := fault.New(fault.Refused, "%s: %s is in the namespace %s, which takes only promoted images", in.Command.Name, l, l.Namespace)
	return fault.WithHint(err, "put it into another namespace and use 'uenv-ci promote'")
}

// registryAddress is the registry that the flags or the site file name, or the
// configuration of the uenv client.
func (in *invocation) registryAddress() (string, error) {
	address, err := in.site.Registry.Or(in.String("registry"))
	if err != nil {
		return "", err
	}
	if address = cmp.Or(address, in.client.Registry); address == "" {
		err := fault.New(fault.Usage, "no registry is named")
		return "", fault.WithHint(err, "use --registry HOST/PREFIX or oci:DIR, UENV_CI_REGISTRY, or 'registry:' in the site file")
	}
	return address, nil
}

// openRegistry opens that registry.
func (in *invocation) openRegistry() (*registry.Registry, error) {
	address, err := in.registryAddress()
	if err != nil {
		return nil, err
	}
	c := in.credentials()
	c.HostOnly = in.site.Here && in.site.Registry.Given() && in.String("registry") == ""
	return in.openRegistryAt(address, c, !in.root.creates)
}

// listing is the listing of the images in the registry that is asked, an URL or a file;
// "" if none is known. One belongs to the registry that is named beside it.
func (in *invocation) listing() (string, error) {
	named := func(beside string) bool { return in.String("registry") == "" || in.String("registry") == beside }
	switch {
	case in.site.Listing.Given() && (named(in.site.Registry.Known()) || !in.site.Registry.Given()):
		return in.site.Listing.Get()
	case named(in.client.Registry) && !in.site.Registry.Given():
		return in.client.Listing, nil
	}
	return "", nil
}

// registryFor is openRegistry with the credentials that the site file has for a
// uenv, unless others were given.
func (in *invocation) registryFor(l label.Label) (*registry.Registry, error) {
	u := in.site.Uenv(l.Name)
	if u.Restricted && !u.Token.Given() && in.String("token") == "" && in.root.forUsers {
		in.warnOfSite() // the file may have a token for it that was not trusted
	}
	if !u.Token.Given() || in.String("token") != "" {
		return in.openRegistry()
	}
	address, err := in.registryAddress()
	if err != nil {
		return nil, err
	}
	c := in.credentials()
	if c.TokenFile, err = u.Token.Get(); err != nil {
		return nil, err
	}
	c.Username = cmp.Or(in.String("username"), u.Username)
	return in.openRegistryAt(address, c, !in.root.creates)
}

func (in *invocation) credentials() registry.Credentials {
	return registry.Credentials{
		DockerConfig: in.String("registry-config"), TokenFile: in.String("token"), Username: in.String("username"), Getenv: in.getenv,
	}
}

func (in *invocation) openRegistryAt(address string, c registry.Credentials, mustExist bool) (*registry.Registry, error) {
	return registry.Open(address, registry.Options{
		MustExist: mustExist, PlainHTTP: in.Bool("plain-http"), CAFile: in.String("ca-file"), Credentials: c, Events: in.events,
	})
}

// label reads argument i as a label in the given default namespace.
func (in *invocation) label(i int, namespace string) (label.Label, error) {
	l, err := label.Parse(in.arg(i))
	return l.WithNamespace(namespace), err
}

// fullLabel is label for commands that write: every part must be given.
func (in *invocation) fullLabel(i int, namespace string) (label.Label, error) {
	l, err := in.label(i, namespace)
	if err != nil {
		return l, err
	}
	if missing := l.Missing(); len(missing) > 0 {
		err := fault.New(fault.Usage, "label %q lacks: %s", in.arg(i), strings.Join(missing, ", "))
		return l, fault.WithHint(err, "write it in full: name/version:tag@system%%uarch")
	}
	return l, nil
}

// hereLabel is label for users' commands: without a system it means the cluster
// that we are on, if the uenv client's configuration or the environment says which
// that is.
func (in *invocation) hereLabel(i int, namespace string) (label.Label, error) {
	l, err := in.label(i, namespace)
	if err == nil && l.System == "" {
		l.System = cmp.Or(in.client.System, in.getenv("CLUSTER_NAME"))
	}
	return l, err
}

// openRepository opens the registry's repository of a full label.
func (in *invocation) openRepository(l label.Label) (*registry.Repository, error) {
	reg, err := in.registryFor(l)
	if err != nil {
		return nil, err
	}
	return reg.Repository(l.Repository())
}
