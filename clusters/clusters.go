// Package clusters holds example cluster configurations, for the recipes of
// package recipes and as a start for a site's own.
package clusters

import "embed"

// Files are the example configurations: NAME/…
//
//go:embed debian12
var Files embed.FS
