// Command uenv-ci builds, tests, publishes, promotes and pulls user
// environments of HPC centres.
package main

import (
	"os"

	"uenv-ci.dev/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:])) }
