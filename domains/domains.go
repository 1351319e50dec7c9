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
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
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
	// Stale says that some file of the domain is not in force as it stands: its last good version
	// is, or for a new key none.
	Stale bool

	usersFile string
}

// AliasOptions are those under which the alias file of the domain is read.
func (d *Domain) AliasOptions(allowPipe bool) aliases.Options {
	return aliases.Options{
		Domain:           d.Name,
		SuffixSeparators: d.Settings.SuffixSeparators,
		DropCharacters:   d.Settings.DropCharacters,
		AllowPipe:        allowPipe,
	}
}

// A Set is all hosted domains at one moment. It is immutable; the zero Set hosts nothing.
type Set struct {
	domains   map[string]*Domain
	mailboxes bool
}

// Get returns a hosted domain by its name in A-labels and lower case, nil if it is not hosted.
func (s *Set) Get(name string) *Domain { return s.domains[name] }

// All lists the hosted domains by name.
func (s *Set) All() []*Domain {
	return slices.SortedFunc(maps.Values(s.domains), func(a, b *Domain) int { return strings.Compare(a.Name, b.Name) })
}

// Table makes a Set the view of the world that aliases resolves in. A broken domain has what its
// alias file says, nothing if it cannot be read; whoever takes mail asks for Broken first.
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

// HasMailbox reports whether a, in lower case, is a user with a mailbox. One who may not log in
// still gets mail.
func (s *Set) HasMailbox(a address.Address) bool {
	d := s.domains[a.Domain]
	if d == nil || !s.mailboxes || !d.Settings.Mailbox {
		return false
	}
	_, ok := d.Users.Lookup(a.Local)
	return ok
}

// Options are a Store's.
type Options struct {
	Dir       string // with one folder for each domain
	GoodDir   string // where last good copies are kept; "" keeps none
	ReadOnly  bool   // GoodDir is read, so that it is known which file is gone, and not written
	AllowPipe bool   // whether aliases may be commands
	Mailboxes bool   // whether users have mailboxes, in the domains whose settings do not deny it
	Log       *slog.Logger
}

// A Store keeps the current Set. Its methods are safe for concurrent use.
type Store struct {
	opt     Options
	current atomic.Pointer[Set]

	mu       sync.Mutex // held while loading
	good     map[string]texts
	copies   *copies
	keys     map[keyText]*dkim.Key
	problems problem.List
	warnings problem.List
	applied  string // fingerprint of the files behind current
	restless int    // looks in a row that found files changed, since the last load
}

// texts are the files of a domain that are in force, by name below the domain's folder.
type texts map[string][]byte

// A keyText is what a parsed key was made of.
type keyText struct{ domain, selector, text string }

// Open loads all domains. Problems are logged and kept, not returned: what can be served is served.
func Open(opt Options) *Store {
	s := &Store{opt: opt, copies: openCopies(opt)}
	s.current.Store(&Set{})
	s.good = maps.Clone(s.copies.kept)
	s.Reload()
	return s
}

// Read loads the domains below dir as conf wants them read and as their files stand, whatever a
// daemon has in force. Nothing is kept or logged.
func Read(conf *config.Config, dir string) *Store {
	return Open(Options{
		Dir: dir, AllowPipe: conf.Aliases.AllowPipe, Mailboxes: conf.Mailbox.LMTP != "", Log: slog.New(slog.DiscardHandler),
	})
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

// Reload reads all files now and puts in force what is right in them. It returns what Problems
// does from then on.
func (s *Store) Reload() problem.List {
	s.mu.Lock()
	defer s.mu.Unlock()
	mark := fingerprint(s.opt.Dir)
	s.restless = 0
	l := &loader{opt: s.opt, good: s.good, oldKeys: s.keys, keys: map[keyText]*dkim.Key{}}
	folders, err := l.folders()
	before := s.current.Load()
	if err == nil && len(folders) == 0 && len(before.domains) > 1 {
		err = errors.New("it is empty, and several domains are not given up at once: `relay-util domain-remove` ends each")
	}
	switch {
	case err == nil:
	case len(before.domains) > 0:
		s.nothingChanged(err)
		return slices.Clone(s.problems)
	case len(s.good) == 0 && errors.Is(err, fs.ErrNotExist):
		l.warn(s.opt.Dir, "there is no such folder, so no domain is hosted: `relay-util domain-add` makes one")
	default:
		instead := ""
		if len(s.good) > 0 {
			instead = ", and its last good copy is used"
		}
		l.complain(s.opt.Dir, "the folder of the domains cannot be read%s: %v", instead, err)
		l.down, folders = true, map[string]string{}
		for name := range s.good {
			folders[name] = filepath.Join(s.opt.Dir, name)
		}
	}
	set := l.load(folders)
	s.good, s.keys = l.good, l.keys
	s.current.Store(set)
	for name := range before.domains {
		if set.Get(name) == nil {
			s.opt.Log.Warn("a domain is not hosted any more: its folder is gone", "domain", name)
		}
	}
	s.copies.save(s.good)
	if s.applied = mark; l.unsure {
		s.applied = "" // what could not be read now may be readable next time, and look the same
	}
	s.report(l)
	return slices.Clone(s.problems)
}

// nothingChanged notes that the folder of the domains cannot be listed at the moment, which is no
// reason to give up any of them.
func (s *Store) nothingChanged(err error) {
	l := &loader{opt: s.opt, warnings: s.warnings}
	l.problems = slices.DeleteFunc(slices.Clone(s.problems), func(p problem.Problem) bool { return p.File == s.opt.Dir })
	l.complain(s.opt.Dir, "the folder of the domains cannot be read, nothing is changed: %v", err)
	s.applied = ""
	s.report(l)
}

// maxLogged is how many file names stand in one line of the log.
const maxLogged = 20

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
	if n := len(l.changed); n > 0 {
		s.opt.Log.Info("domain files in force", "changed", n, "files", l.changed[:min(n, maxLogged)])
	}
}
