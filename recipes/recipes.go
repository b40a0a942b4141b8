// Package recipes holds example recipes that really build. They are part of the
// program, so that its demonstration needs nothing else.
package recipes

import "embed"

// Files are the example recipes: NAME/VERSION/…
//
//go:embed hello hello-spack
var Files embed.FS
