package e2e

import (
	"context"
	"os"
	"path/filepath"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"

	"uenv-ci.dev/internal/proc"
	"uenv-ci.dev/internal/schema"
	"uenv-ci.dev/internal/yamlpos"
)

// cmdGitLab is: gitlab FILE checks a pipeline against GitLab's own schema, which
// gitlab-ci-local has in its program.
func cmdGitLab(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) == 1, "[!] gitlab FILE")
	s, err := gitlabSchema()
	ts.Check(err)
	root, err := yamlpos.Parse(args[0], []byte(ts.ReadFile(args[0])))
	ts.Check(err)
	if problems := s.Validate(root); (len(problems) > 0) != neg {
		ts.Fatalf("%s: %d problems\n%v", args[0], len(problems), problems)
	}
}

var gitlabSchema = sync.OnceValues(func() (*schema.Schema, error) {
	path, _ := proc.Look("gitlab-ci-local")
	program, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	text, err := proc.Cmd{Path: "node", Args: []string{"-e", extractSchema, program}, Env: os.Environ()}.Output(context.Background())
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "gitlab-schema-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "gitlab.json"), text, 0o600); err != nil {
		return nil, err
	}
	return schema.Compile(os.DirFS(dir), "gitlab.json")
})

// extractSchema prints the schema that is an object in the text of the program.
const extractSchema = `
const text = require('fs').readFileSync(process.argv[1], 'utf8');
const start = text.lastIndexOf('{', text.indexOf('$id:"https://gitlab.com/.gitlab-ci.yml"'));
let end = start, depth = 0, quote = '';
do {
  const c = text[end++];
  if (quote) { if (c === '\\') end++; else if (c === quote) quote = ''; }
  else if ('"\'` + "`" + `'.includes(c)) quote = c;
  else if (c === '{') depth++;
  else if (c === '}') depth--;
} while (depth > 0);
console.log(JSON.stringify(eval('(' + text.slice(start, end) + ')')));
`
