package cli

import (
	"context"
	"sync"
	"time"

	"uenv-ci.dev/internal/catalog"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/registry"
)

// noteLimit bounds how much longer a command may take for the sake of a note; by then its
// own requests have been answered.
const noteLimit = 2 * time.Second

// indexNotes finds out whether indexes of the labels' namespaces are published, in the
// registry whose repositories open opens. That goes on beside what the command does, so
// that nobody waits for it. A command that has changed something then calls what is
// there for its namespace, which says once that 'find' shows it later.
func (in *invocation) indexNotes(ctx context.Context, open func(path string) (*registry.Repository, error), labels ...label.Label) map[string]func() {
	notes := map[string]func(){}
	for _, l := range labels {
		namespace := l.Namespace
		if notes[namespace] != nil {
			continue
		}
		if notes[namespace] = func() {}; in.Bool("quiet") {
			continue
		}
		found := make(chan bool, 1)
		go func() {
			there, err := catalog.HasIndex(ctx, open, namespace)
			found <- there && err == nil // what this user may not read, 'find' does not use
		}()
		notes[namespace] = sync.OnceFunc(func() {
			select {
			case there := <-found:
				if there {
					in.events.Info("find", "'find' shows this after 'uenv-ci catalog rebuild %s'", namespace)
				}
			case <-time.After(noteLimit):
			}
		})
	}
	return notes
}
