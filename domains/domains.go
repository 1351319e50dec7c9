// Package domains holds what is known of the hosted domains: settings, users, aliases and DKIM
// keys of each. All of it is one immutable Set, swapped whole when a file changes, so that a
// transaction sees one state of the world from its first recipient to its last.
//
// A file that does not parse never takes anything down and is never half applied. Its last good
// version stays in force, from memory or, after a restart, from a copy under the state folder;
// only a domain that has no good version of a file is unavailable, and mail for it is asked to
// come later. Every such file is a problem with file, line and reason until it is mended.
package domains

import (
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"relayd/address"
	"relayd/aliases"
	"relayd/config"
	"relayd/dkim"
	"relayd/problem"
	"relayd/users"
)

// A Domain is one hosted domain. It is not changed after it was loaded.
type Domain struct {
	Name     string // A-labels, lower case
	Settings *config.Domain
	Users    *users.Table
	Aliases  *aliases.Table
	Keys     []*dkim.Key
	// Broken says why the domain is unavailable: a file of it is broken and there is no good
	// copy. The fields above are then incomplete and must not be used.
	Broken problem.List
}

// A Set is all hosted domains at one moment. It is immutable; the zero Set hosts nothing.
type Set struct {
	domains map[string]*Domain
}

// Get returns a hosted domain by its name in A-labels and lower case, nil if it is not hosted.
func (s *Set) Get(name string) *Domain { return s.domains[name] }

// All lists the hosted domains by name.
func (s *Set) All() []*Domain {
	return slices.SortedFunc(maps.Values(s.domains), func(a, b *Domain) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
}

// Table makes a Set the view of the world that aliases resolves in. A broken domain has an
// empty table there; whoever resolves asks for Broken first.
func (s *Set) Table(domain string) *aliases.Table {
	d := s.domains[domain]
	switch {
	case d == nil:
		return nil
	case d.Aliases == nil:
		return new(aliases.Table)
	}
	return d.Aliases
}

// HasMailbox is always false as long as no mailbox store is configured.
func (s *Set) HasMailbox(address.Address) bool { return false }

// tables are the alias tables of the domains that work.
func (s *Set) tables() []*aliases.Table {
	var list []*aliases.Table
	for _, d := range s.All() {
		if d.Broken == nil {
			list = append(list, d.Aliases)
		}
	}
	return list
}

// Options are a Store's.
type Options struct {
	Dir       string // with one folder for each domain
	GoodDir   string // where last good copies are kept; "" keeps none
	AllowPipe bool
	Log       *slog.Logger
}

// A Store keeps the current Set. Its methods are safe for concurrent use.
type Store struct {
	opt     Options
	current atomic.Pointer[Set]

	mu       sync.Mutex // held while loading
	good     map[string]texts
	problems problem.List
	warnings problem.List
	applied  string // fingerprint of the files behind current
}

// texts are the files of a domain that are in force, by name below the domain's folder.
type texts map[string][]byte

// Open loads all domains. Problems are logged and kept, not returned: what can be served is served.
func Open(opt Options) *Store {
	s := &Store{opt: opt}
	s.current.Store(&Set{})
	s.good = loadGood(opt)
	s.Reload()
	return s
}

// Current is the Set in force.
func (s *Store) Current() *Set { return s.current.Load() }

// Problems are the files that are not in force as they stand, as of the last load.
func (s *Store) Problems() problem.List {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.problems)
}

// Warnings are things that work and should still be looked at.
func (s *Store) Warnings() problem.List {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.warnings)
}

// Reload reads all files now and puts in force what is right in them.
func (s *Store) Reload() problem.List {
	s.mu.Lock()
	defer s.mu.Unlock()
	mark := fingerprint(s.opt.Dir)
	l := &loader{opt: s.opt, good: s.good}
	set, err := l.load()
	if err != nil && len(s.current.Load().domains) > 0 {
		l.problems = append(l.problems, problem.At(s.opt.Dir, 0, "the folder of the domains cannot be read, nothing is changed: %v", err))
	} else {
		s.good = l.good
		s.current.Store(set)
		l.saveGood()
	}
	s.applied = mark
	s.report(l)
	return slices.Clone(s.problems)
}

// report logs what is new since the last load.
func (s *Store) report(l *loader) {
	for _, p := range l.problems {
		if !slices.Contains(s.problems, p) {
			s.opt.Log.Error("file not in force", "file", p.File, "line", p.Line, "reason", p.Reason)
		}
	}
	if len(l.problems) == 0 && len(s.problems) > 0 {
		s.opt.Log.Info("all domain files are in force again")
	}
	s.problems, s.warnings = l.problems, l.warnings
	if len(l.changed) > 0 {
		s.opt.Log.Info("domain files in force", "files", l.changed)
	}
}
