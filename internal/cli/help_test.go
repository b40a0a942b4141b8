package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// Every command shows an example, and says of every flag what it does and what holds
// without it.
func TestHelpOfEveryCommand(t *testing.T) {
	var check func(path []string, commands []*command)
	check = func(path []string, commands []*command) {
		for _, c := range commands {
			name := strings.Join(append(path, c.name), " ")
			if c.run == nil {
				check(append(path, c.name), c.sub)
				continue
			}
			if c.usage == "" || !strings.Contains(c.examples, programName+" "+name) {
				t.Errorf("%s: no example, or no summary", name)
			}
			checkFlags(t, name, c.flags)
		}
	}
	check(nil, allCommands())
	checkFlags(t, "global", globalFlags())
}

func checkFlags(t *testing.T, command string, flags []cli.Flag) {
	t.Helper()
	for _, f := range flags {
		doc, ok := f.(cli.DocGenerationFlag)
		if !ok {
			t.Fatalf("%s: %v", command, f)
		}
		if doc.GetUsage() == "" || doc.TakesValue() && !strings.Contains(doc.GetUsage(), "`") {
			t.Errorf("%s: %v is not explained", command, f.Names())
		}
		var shown bytes.Buffer
		writeFlags(&shown, []cli.Flag{f})
		if text, ok := f.(*cli.StringFlag); ok && text.Value != "" && !strings.Contains(strings.Join(strings.Fields(shown.String()), " "), "(default "+text.Value+")") {
			t.Errorf("%s: the default of %v is not told:\n%s", command, f.Names(), shown.String())
		}
	}
}
