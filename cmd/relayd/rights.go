package main

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"relayd/config"
	"relayd/problem"
	"relayd/rights"
	"relayd/tasks"
)

// openness knows which files everybody can read or change and should not. That is told of, and
// keeps nothing from working.
type openness struct {
	conf *config.Config
	log  *slog.Logger

	mu    sync.Mutex
	found problem.List
}

func newOpenness(conf *config.Config, log *slog.Logger) *openness {
	o := &openness{conf: conf, log: log}
	o.look()
	return o
}

// opennessEvery is how often the modes are looked at: with many domains that is many files.
const opennessEvery = time.Minute

func (o *openness) watch(ctx context.Context) { tasks.Every(ctx, opennessEvery, o.look) }

// look looks at the modes of all files, and logs what is new.
func (o *openness) look() {
	found := rights.Check(o.conf)
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, p := range found {
		if !slices.Contains(o.found, p) {
			o.log.Warn("rights of a file", "file", p.File, "reason", p.Reason)
		}
	}
	o.found = found
}

func (o *openness) list() problem.List {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.found)
}
