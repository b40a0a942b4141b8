package cli

import "runtime/debug"

// collectLater lets the heap grow to some twenty megabytes before it is
// collected. It is for commands that read much text for a fraction of a second:
// collecting at the usual four megabytes would cost them a fifth of their time.
func collectLater(getenv func(string) string) {
	if getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}
