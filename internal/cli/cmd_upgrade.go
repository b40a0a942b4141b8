package cli

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/pipeline"
)

func upgradeCommand() *command {
	return &command{
		name: "upgrade", group: "Users", forUsers: true, takesLocal: true, usage: "fetch the newest image of a name, reusing local images",
		args: "LABEL", minArgs: 1, maxArgs: 1,
		details: `Finds the newest version and tag that LABEL allows, and shows what is new compared to the
newest local one and how much has to be fetched: whatever local images of the same name
have in common with it is copied. Deprecated images are skipped. The old image stays.`,
		examples: `uenv-ci upgrade prgenv-gnu
uenv-ci upgrade prgenv-gnu/25.6 --dry-run`,
		flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "only show what is new and how much would be fetched"},
		}, fetchFlags()...),
		run: runUpgrade,
	}
}

type upgradeResult struct {
	pipeline.Upgrade
	Pulled *pipeline.Pulled `json:"pulled,omitempty"`
	dry    bool
}

func runUpgrade(ctx context.Context, in *invocation) (result, error) {
	f, err := in.fetching(ctx)
	if err != nil {
		return nil, err
	}
	defer f.local.Close()
	u, err := pipeline.FindUpgrade(ctx, f.reg, f.label, f.listing, f.local, in.cacheDir("bases"))
	if err != nil {
		return nil, err
	}
	r := upgradeResult{Upgrade: u, dry: in.Bool("dry-run")}
	if u.Current || r.dry {
		return r, nil
	}
	in.events.Info("upgrade", "%s to %s", costText(u), u.To.Label)
	pulled, err := u.Pull(ctx, f.local, pipeline.PullOptions{Connections: in.Int("connections"), Limit: f.limit, Events: in.events, Private: in.site.Uenv(f.label.Name).Restricted})
	if err != nil {
		return nil, err
	}
	r.Pulled = &pulled
	return r, nil
}

// costText is what an upgrade costs.
func costText(u pipeline.Upgrade) string {
	return fmt.Sprintf("%s of %s", event.FormatBytes(u.Fetch), event.FormatBytes(u.To.Size))
}

func (r upgradeResult) text(p *printer) {
	if r.Current {
		p.printf("%s is the newest, and it is here", r.To.Label)
		return
	}
	if r.From != nil {
		p.printf("%s → %s", r.From.Label, p.bold(r.To.Label.String()))
	} else {
		p.printf("%s  no other image of this name is here", p.bold(r.To.Label.String()))
	}
	if d := r.Diff; d != nil && !d.Unknown {
		p.printf("  packages   %d changed, %d added, %d removed, %d rebuilt, %d the same", len(d.Changed), len(d.Added), len(d.Removed), d.Rebuilt, d.Same)
		if len(d.Changed)+len(d.Added)+len(d.Removed) > 0 {
			p.printf("  %s", p.dim(fmt.Sprintf("uenv-ci diff %s %s", r.From.Label, r.To.Label)))
		}
	}
	if r.dry {
		p.printf("  to fetch   %s", costText(r.Upgrade))
		return
	}
	p.printf("  fetched    %s", costText(r.Upgrade))
	p.printf("%s", p.dim(r.Pulled.Path))
}
