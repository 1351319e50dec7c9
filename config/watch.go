package config

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"sync"
	"time"

	"relayd/problem"
	"relayd/tasks"
)

// A Watcher watches relayd.toml, whose values are in force from start to end: an edit that would
// not do at the next start is told of now, and one that would do is not forgotten. Its methods are safe
// for concurrent use.
type Watcher struct {
	conf *Config
	log  *slog.Logger

	mu       sync.Mutex
	text     string // of the file when it was looked at last
	problems problem.List
	warnings problem.List
}

// NewWatcher makes a Watcher of the file that conf, which is in force, comes from. It looks at once.
func NewWatcher(conf *Config, log *slog.Logger) *Watcher {
	w := &Watcher{conf: conf, log: log}
	w.Look()
	return w
}

// lookEvery is how often the file is looked at.
const lookEvery = 2 * time.Second

// Run looks every two seconds, until ctx ends.
func (w *Watcher) Run(ctx context.Context) {
	tasks.Every(ctx, lookEvery, func() { w.Look() })
}

// Look reads the file if it has changed, logs what is new, and returns what is wrong with it.
func (w *Watcher) Look() problem.List {
	w.mu.Lock()
	defer w.mu.Unlock()
	file := w.conf.File()
	text, err := os.ReadFile(file)
	if err == nil && string(text) == w.text {
		return slices.Clone(w.problems)
	}
	w.text = string(text)
	before := append(slices.Clone(w.problems), w.warnings...)
	w.problems, w.warnings = nil, nil
	conf, err := Load(file)
	if list, ok := errors.AsType[problem.List](err); ok {
		w.problems = list
	} else if err != nil {
		w.problems = problem.List{problem.At(file, 0, "%v", err)}
	} else if !reflect.DeepEqual(conf, w.conf) {
		w.warnings = problem.List{problem.At(file, 0, "the settings have changed since relayd was started: restart it to have them in force")}
	}
	for _, p := range w.problems {
		if !slices.Contains(before, p) {
			w.log.Error("file not in force", "file", p.File, "line", p.Line, "reason", p.Reason)
		}
	}
	for _, p := range w.warnings {
		if !slices.Contains(before, p) {
			w.log.Warn("file not in force", "file", p.File, "reason", p.Reason)
		}
	}
	return slices.Clone(w.problems)
}

// State is what is wrong with the file, and what is to be known of it.
func (w *Watcher) State() (problems, warnings problem.List) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.problems), slices.Clone(w.warnings)
}
