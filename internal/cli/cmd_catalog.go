package cli

import (
	"context"

	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/atomicfile"
	"uenv-ci.dev/internal/catalog"
	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
)

func catalogCommand() *command {
	return &command{
		name: "catalog", group: "Staff", writes: true, usage: "make finding images fast, and write listings",
		sub: []*command{
			{
				name: "rebuild", usage: "publish the index of a namespace", args: "[NAMESPACE]", maxArgs: 1, run: runRebuild,
				details: `Reads the whole namespace (default 'deploy') from the registry and publishes its content
as one artifact in the namespace NAMESPACE-index, which everybody's 'find' reads. Run it
after each promotion, or periodically.`,
				examples: `uenv-ci catalog rebuild deploy`,
			},
			{
				name: "listing", usage: "write the listing that the uenv client reads", args: "[NAMESPACE]", maxArgs: 1, run: runListing,
				details: `Writes the images of the namespace (default 'deploy') as the document of the
listing service, to be served at /list?namespace=NAMESPACE.`,
				examples: `uenv-ci catalog listing --out /srv/www/list.json`,
				flags:    []cli.Flag{&cli.StringFlag{Name: "out", Usage: "write to `FILE` (else to standard output)"}},
			},
		},
	}
}

// namespace is argument 0, or the users' namespace.
func (in *invocation) namespace() (string, error) {
	name := in.arg(0)
	if name == "" {
		return in.deploy(), nil
	}
	if !label.Valid(name) {
		return "", fault.New(fault.Usage, "%q cannot be a namespace", name)
	}
	return name, nil
}

type rebuiltResult catalog.Rebuilt

func runRebuild(ctx context.Context, in *invocation) (result, error) {
	namespace, err := in.namespace()
	if err != nil {
		return nil, err
	}
	reg, err := in.openRegistry()
	if err != nil {
		return nil, err
	}
	done, err := catalog.Rebuild(ctx, reg, namespace, catalog.Options{})
	if err != nil {
		return nil, err
	}
	return rebuiltResult(done), nil
}

func (r rebuiltResult) text(p *printer) {
	p.printf("%s  %s  %s in %s", r.Repository, shortDigest(r.Digest.String()), plural(r.Labels, "label"), event.FormatBytes(r.Bytes))
}

type listingResult struct {
	Namespace string `json:"namespace"`
	Path      string `json:"path"`
	Labels    int    `json:"labels"`
}

func runListing(ctx context.Context, in *invocation) (result, error) {
	namespace, err := in.namespace()
	if err != nil {
		return nil, err
	}
	reg, err := in.openRegistry()
	if err != nil {
		return nil, err
	}
	records, err := catalog.Find(ctx, reg, label.Label{Namespace: namespace}, catalog.Options{Depth: catalog.Images})
	if err != nil {
		return nil, err
	}
	data, err := catalog.EncodeListing(records, in.events)
	if err != nil {
		return nil, err
	}
	path := in.String("out")
	if path == "" {
		_, err := in.stdout.Write(data)
		return nil, err
	}
	if records, err = catalog.ParseListing(data); err != nil { // what was not left out
		return nil, err
	}
	err = atomicfile.WriteBytes(path, 0o644, data)
	return listingResult{namespace, path, len(records)}, fault.Wrap(fault.Failure, err, "write %s", path)
}

func (r listingResult) text(p *printer) {
	p.printf("%s  %s of %s", r.Path, plural(r.Labels, "label"), r.Namespace)
}
