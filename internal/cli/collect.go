package cli

import "runtime/debug"

// collectLater lets the heap grow to some twenty megabytes before it is collected.
// Commands that read much text in a fraction of a second would spend a fifth of their
// time collecting garbage at the usual four megabytes.
func collectLater(getenv func(string) string) {
	if getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}
