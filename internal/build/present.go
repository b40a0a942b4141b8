package build

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"uenv-ci.dev/internal/stack"
)

// commandsText runs several commands of Spack in one process.
//
//go:embed commands.py
var commandsText []byte

// command is one of those that commands.py runs.
type command struct {
	Args  []string `json:"args"`
	Scope string   `json:"scope,omitempty"` // configuration that holds from this one on
}

// maxSaid bounds what commands may say, in bytes: they run the code of packages.
const maxSaid = 64 << 20

// runAll runs commands of Spack one after the other in one process, and returns
// what each wrote to standard output.
func (b *spackBuild) runAll(ctx context.Context, name string, commands []command) ([]string, error) {
	list, err := json.Marshal(commands)
	if err != nil {
		return nil, err
	}
	script, input := path.Join(engineScope, "commands.py"), path.Join(engineScope, name+".json")
	if err := b.cell.files.write(script, commandsText, 0o644); err != nil {
		return nil, err
	}
	if err := b.cell.files.write(input, list, 0o644); err != nil {
		return nil, err
	}
	out := &limitedBuffer{limit: maxSaid}
	s := step{name: name}
	s.cmd.Stdout = out
	if err := b.run(ctx, s, "python", b.cell.inside(script), b.cell.inside(input)); err != nil {
		return nil, err
	}
	var said []string
	for line := range strings.Lines(out.String()) {
		var text string
		if err := json.Unmarshal([]byte(line), &text); err != nil {
			return nil, fmt.Errorf("%s: read what Spack said: %w", name, err)
		}
		said = append(said, text)
	}
	if len(said) != len(commands) {
		return nil, fmt.Errorf("%s: Spack ran %d of %d commands", name, len(said), len(commands))
	}
	return said, nil
}

// present makes what users see of the packages: the views and the module files.
func (b *spackBuild) present(ctx context.Context) error {
	var views []stack.View
	var commands []command
	for _, env := range b.environments {
		for _, v := range env.Views {
			views = append(views, v)
			commands = append(commands, command{
				Args: []string{"env", "activate", "--with-view", v.SpackName, "--sh", "-d", b.cell.inside(env.Dir)},
			})
		}
	}
	var what []string
	if len(views) > 0 {
		what = append(what, "views")
	}
	if len(b.tree.Modules.Types) > 0 {
		what = append(what, "modules")
	}
	if len(what) == 0 {
		return nil
	}
	return b.stage(strings.Join(what, " and "), func() error {
		for _, v := range views {
			if _, err := b.viewDir(v); err != nil {
				return fmt.Errorf("view %s: %w", v.Name, err)
			}
		}
		modules, err := b.moduleCommands()
		if err != nil {
			return err
		}
		said, err := b.runAll(ctx, what[0], append(commands, modules...))
		if err != nil {
			return err
		}
		for i, v := range views {
			// Before anything else is put there.
			if err := b.checkView(ctx, v); err != nil {
				return err
			}
			if b.views[v.Name], err = b.view(v, said[i]); err != nil {
				return fmt.Errorf("view %s: %w", v.Name, err)
			}
		}
		return nil
	})
}

// modulesScope is the directory of the configuration for module files. It is not
// for views, whose variables it would change.
const modulesScope = engineScope + "/modules"

// moduleCommands returns what writes the module files.
func (b *spackBuild) moduleCommands() ([]command, error) {
	if len(b.tree.Modules.Types) == 0 {
		return nil, nil
	}
	if b.tree.Modules.FromSpack {
		defaults, err := b.defaultModules()
		if err != nil {
			return nil, err
		}
		file, err := b.tree.DefaultModules(defaults)
		if err != nil {
			return nil, err
		}
		if err := b.cell.files.write(file.Path, file.Data, file.Mode); err != nil {
			return nil, err
		}
	}
	// Not the whole of modules/: its upstreams.yaml is for an engine that does
	// not tell Spack where the packages are.
	config, err := b.cell.files.read(path.Join(b.tree.Modules.Dir, "modules.yaml"))
	if err == nil {
		err = b.cell.files.write(path.Join(modulesScope, "modules.yaml"), config, 0o644)
	}
	if err != nil {
		return nil, err
	}
	var commands []command
	for _, kind := range b.tree.Modules.Types {
		commands = append(commands, command{Args: []string{"module", kind, "refresh", "--delete-tree", "--yes-to-all"}})
	}
	commands[0].Scope = b.cell.inside(modulesScope)
	return commands, nil
}
