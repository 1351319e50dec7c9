package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"sync"
	"time"

	"relayd/config"
	"relayd/problem"
	"relayd/tasks"
)

// settings watches relayd.toml, whose values are in force from start to end: an edit that would
// not do at the next start is told of now, and one that would do is not forgotten.
type settings struct {
	conf *config.Config
	log  *slog.Logger

	mu       sync.Mutex
	text     string // of the file when it was looked at last
	problems problem.List
	warnings problem.List
}

func newSettings(conf *config.Config, log *slog.Logger) *settings {
	s := &settings{conf: conf, log: log}
	s.look()
	return s
}

// settingsEvery is how often the file is looked at.
const settingsEvery = 2 * time.Second

func (s *settings) watch(ctx context.Context) {
	tasks.Every(ctx, settingsEvery, func() { s.look() })
}

// look reads the file if it has changed, and returns what is wrong with it.
func (s *settings) look() problem.List {
	s.mu.Lock()
	defer s.mu.Unlock()
	file := s.conf.File()
	text, err := os.ReadFile(file)
	if err == nil && string(text) == s.text {
		return slices.Clone(s.problems)
	}
	s.text = string(text)
	before := append(slices.Clone(s.problems), s.warnings...)
	s.problems, s.warnings = nil, nil
	conf, err := config.Load(file)
	if list, ok := errors.AsType[problem.List](err); ok {
		s.problems = list
	} else if err != nil {
		s.problems = problem.List{problem.At(file, 0, "%v", err)}
	} else if !reflect.DeepEqual(conf, s.conf) {
		s.warnings = problem.List{problem.At(file, 0, "the settings have changed since relayd was started: restart it to have them in force")}
	}
	for _, p := range s.problems {
		if !slices.Contains(before, p) {
			s.log.Error("file not in force", "file", p.File, "line", p.Line, "reason", p.Reason)
		}
	}
	for _, p := range s.warnings {
		if !slices.Contains(before, p) {
			s.log.Warn("file not in force", "file", p.File, "reason", p.Reason)
		}
	}
	return slices.Clone(s.problems)
}

// state is what is wrong with the file, and what is to be known of it.
func (s *settings) state() (problems, warnings problem.List) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.problems), slices.Clone(s.warnings)
}
