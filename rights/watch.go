package rights

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"relayd/config"
	"relayd/problem"
	"relayd/tasks"
)

// A Watcher knows which files everybody can read or change and should not. That is told of, and
// keeps nothing from working. Its methods are safe for concurrent use.
type Watcher struct {
	conf *config.Config
	log  *slog.Logger

	mu    sync.Mutex
	found problem.List
}

// NewWatcher makes a Watcher of the files of a relay with these settings. It looks at once.
func NewWatcher(conf *config.Config, log *slog.Logger) *Watcher {
	w := &Watcher{conf: conf, log: log}
	w.Look()
	return w
}

// lookEvery is how often the modes are looked at: with many domains that is many files.
const lookEvery = time.Minute

// Run looks every minute, until ctx ends.
func (w *Watcher) Run(ctx context.Context) { tasks.Every(ctx, lookEvery, w.Look) }

// Look looks at the modes of all files, and logs what is new.
func (w *Watcher) Look() {
	found := Check(w.conf)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range found {
		if !slices.Contains(w.found, p) {
			w.log.Warn("rights of a file", "file", p.File, "reason", p.Reason)
		}
	}
	w.found = found
}

// List is what was found at the last look.
func (w *Watcher) List() problem.List {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.found)
}
