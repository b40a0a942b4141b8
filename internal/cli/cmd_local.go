package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/localrepo"
	"uenv-ci.dev/internal/pipeline"
	"uenv-ci.dev/internal/registry"
)

func pullCommand() *command {
	return &command{
		name: "pull", group: "Users", forUsers: true, usage: "fetch an image into the local repository",
		args: "LABEL", minArgs: 1, maxArgs: 1,
		details: `The image's digest is checked before it gets its final name. What is already there is
not fetched again, and an interrupted pull resumes where it stopped. Parts of the label
may be left out, or an id given instead, as long as it names one image; the default
system is this cluster, as named by the uenv client's configuration or CLUSTER_NAME.`,
		examples: `# an image of the deploy namespace
uenv-ci pull prgenv-gnu/25.11:v1@daint%gh200
# a build that has not been promoted
uenv-ci pull build::prgenv-gnu/25.11:2078663062@daint%gh200`,
		flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "force", Usage: "fetch it again even if it is already there"},
			&cli.BoolFlag{Name: "only-meta", Usage: "fetch the metadata, not the image"},
		}, fetchFlags()...),
		run: runPull,
	}
}

// fetchFlags say how images are fetched into the local repository.
func fetchFlags() []cli.Flag {
	return []cli.Flag{
		&cli.IntFlag{Name: "connections", Usage: "fetch `N` parts at a time (else as many as make the transfer faster)"},
		&cli.StringFlag{Name: "bwlimit", Usage: "fetch no faster than `RATE` bytes per second, such as 50M"},
		stripesFlag(),
	}
}

type pulledResult pipeline.Pulled

func runPull(ctx context.Context, in *invocation) (result, error) {
	f, err := in.fetching(ctx)
	if err != nil {
		return nil, err
	}
	defer f.local.Close()
	found, err := pipeline.Locate(ctx, f.reg, f.label, f.listing)
	if err != nil {
		return nil, err
	}
	pulled, err := pipeline.Pull(ctx, found, f.local, pipeline.PullOptions{
		Force: in.Bool("force"), OnlyMeta: in.Bool("only-meta"), Connections: in.Int("connections"), Limit: f.limit, Events: in.events,
		Cache: in.cacheDir("bases"), Private: in.site.Uenv(f.label.Name).Restricted,
	})
	if err != nil {
		return nil, err
	}
	return pulledResult(pulled), nil
}

// fetching is what is to be fetched: an image, from where to where, and how fast.
type fetching struct {
	label   label.Label
	reg     *registry.Registry
	listing string // of what is in it; "" if there is none
	local   *localrepo.Repo
	limit   int64 // bytes per second; 0 is none
}

// fetching reads what argument 0 and the flags say. Its local repository must be closed.
func (in *invocation) fetching(ctx context.Context) (f fetching, err error) {
	if f.label, err = in.hereLabel(0, in.deploy()); err != nil {
		return f, err
	}
	if f.limit, err = parseRate(in.String("bwlimit")); err != nil {
		return f, err
	}
	if f.reg, err = in.registryFor(f.label); err != nil {
		return f, err
	}
	if f.listing, err = in.listing(); err != nil {
		return f, err
	}
	f.local, err = in.openLocal(ctx, localrepo.Options{Create: true})
	return f, err
}

func (r pulledResult) text(p *printer) {
	how := "was there already"
	if r.Fetched {
		how = event.FormatBytes(r.Size)
	}
	if r.Path == "" {
		how = "metadata only"
	}
	p.printf("%s  %s  %s", r.Label, shortDigest(r.Digest.String()), how)
	if d := r.Deprecation; d != nil {
		p.printf("%s", p.yellow("deprecated: "+deprecationText(d)))
	}
	if r.Path != "" {
		p.printf("%s", p.dim(r.Path))
	}
}

func lsCommand() *command {
	return &command{
		name: "ls", group: "Users", forUsers: true, takesLocal: true, usage: "list the images in the local repository",
		args: "[LABEL]", maxArgs: 1,
		details: "A name matches all names that begin with it.",
		examples: `uenv-ci ls
uenv-ci ls prgenv --format json`,
		flags: []cli.Flag{&cli.BoolFlag{Name: "no-header", Usage: "leave out the heading"}},
		run:   runLs,
	}
}

type lsResult struct {
	Records  []lsRecord `json:"records"`
	noHeader bool
	dirs     []string
	pattern  string
}

type lsRecord struct {
	localrepo.Record
	Repository string `json:"repository"`
}

func runLs(ctx context.Context, in *invocation) (result, error) {
	pattern, err := in.hereLabel(0, "")
	if err != nil {
		return nil, err
	}
	pattern.Namespace = ""
	all, err := in.openLocals(ctx)
	if fault.KindOf(err) == fault.NotFound {
		return nil, fault.WithHint(err, "'uenv-ci pull LABEL' makes one")
	}
	if err != nil {
		return nil, err
	}
	defer all.Close()
	r := lsResult{Records: []lsRecord{}, noHeader: in.Bool("no-header"), pattern: pattern.String()}
	for _, local := range all {
		records, err := local.Find(ctx, pattern, true)
		if err != nil {
			return nil, err
		}
		for _, record := range records {
			r.Records = append(r.Records, lsRecord{record, local.Dir()})
		}
		r.dirs = append(r.dirs, local.Dir())
	}
	return r, nil
}

// text shows in which repository an image is only where that is not clear.
func (r lsResult) text(p *printer) {
	if len(r.Records) == 0 {
		where := strings.Join(r.dirs, ", ")
		if r.pattern == "" {
			p.printf("no image in %s", where)
			return
		}
		p.printf("no image matches %s in %s", r.pattern, where)
		return
	}
	header := []string{"uenv", "arch", "system", "id", "size", "date"}
	if len(r.dirs) > 1 {
		header = append(header, "repository")
	}
	var rows [][]string
	for _, record := range r.Records {
		l := record.Label
		row := []string{
			fmt.Sprintf("%s/%s:%s", l.Name, l.Version, l.Tag), l.UArch, l.System, record.ID, event.FormatBytes(record.Size), formatDate(record.Date),
		}
		if len(r.dirs) > 1 {
			row = append(row, record.Repository)
		}
		rows = append(rows, row)
	}
	p.listing(r.noHeader, header, rows, 4)
}

func rmCommand() *command {
	return &command{
		name: "rm", group: "Users", forUsers: true, takesLocal: true, usage: "remove an image from the local repository",
		args: "LABEL", minArgs: 1, maxArgs: 1,
		details: `The image's files are removed with its last label. Given an id, as shown by 'ls', or a
digest, it removes all labels of the image. The registry is not affected.`,
		examples: `uenv-ci rm prgenv-gnu/25.11:v1@daint%gh200
uenv-ci rm 92058f4fbe658e7d`,
		run: runRm,
	}
}

type rmResult localrepo.Removed

func runRm(ctx context.Context, in *invocation) (result, error) {
	pattern, err := in.label(0, "")
	if err != nil {
		return nil, err
	}
	pattern.Namespace = ""
	all, err := in.openLocals(ctx)
	if err != nil {
		return nil, err
	}
	defer all.Close()
	where, records, err := all.lookup(ctx, pattern)
	if err != nil {
		return nil, err
	}
	local, err := localrepo.Open(ctx, where.Dir(), localrepo.Options{Events: in.events})
	if err != nil {
		return nil, err
	}
	defer local.Close()
	named := records[0].Digest
	if isIdentity(pattern.Name, named.Encoded()) && pattern.Version == "" {
		removed, err := local.RemoveDigest(ctx, named)
		return rmResult(removed), err
	}
	if len(records) > 1 {
		var labels []string
		for _, r := range records {
			labels = append(labels, r.Label.String())
		}
		err := fault.New(fault.Usage, "%s names %d labels of one image", pattern, len(records))
		return nil, fault.WithHint(err, "say which: %s; the id %s means all", strings.Join(labels, ", "), records[0].ID)
	}
	removed, err := local.RemoveLabel(ctx, records[0].Label)
	return rmResult(removed), err
}

func isIdentity(name, hex string) bool {
	return len(name) >= 16 && strings.HasPrefix(hex, strings.ToLower(name))
}

func (r rmResult) text(p *printer) {
	for _, record := range r.Records {
		p.printf("removed %s", record.Label)
	}
	if r.Files {
		p.printf("freed %s", event.FormatBytes(r.Bytes))
	}
}
