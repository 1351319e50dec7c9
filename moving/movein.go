package moving

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"relayd/address"
	"relayd/aliases"
	"relayd/config"
	"relayd/domains"
	"relayd/internal/placing"
	"relayd/problem"
)

// Options are where a plan is moved in, and how.
type Options struct {
	File   string                           // relayd.toml
	Config *config.Config                   // what it says; nil where there is none: then one is made, for which the Plan must have a Hostname
	Dry    bool                             // make and judge everything elsewhere, and leave nothing of it
	Warn   func(format string, args ...any) // is told what went wrong after all was in its place
}

// An Outcome is what MoveIn has done or, if Dry, would do.
type Outcome struct {
	Config   *config.Config // which is in force here, or was made
	Made     bool           // relayd.toml was
	Domains  []Moved        // by name
	Certs    []Cert         // by name
	Left     problem.List   // what stays behind, by file and line, and why
	Warnings problem.List
}

// A Moved is a domain that is made or gets more aliases, as programs are shown it.
type Moved struct {
	Domain  string `json:"domain"`
	New     bool   `json:"new"`
	Users   int    `json:"users"`
	Aliases int    `json:"aliases"`
	Keys    int    `json:"keys"`
	Old     int    `json:"-"` // users whose hash is by scrypt
	MadeKey bool   `json:"-"` // its key was made here
}

// A moveIn takes over a plan whole or not at all: everything is made and judged in a draft beside
// the files, and then renamed into its place. Until then nothing can be seen of it.
type moveIn struct {
	Outcome
	opt      Options
	plan     *Plan
	settings []byte            // of a relayd.toml that is to be made; nil for none
	folders  map[string]string // of the domains that are hosted here, by name
	set      *domains.Set

	draft string // folder with a folder for each domain as it is to be
	steps []placing.Step
	names map[string]string
}

// MoveIn takes over a plan, whole or not at all. Nothing that is here already is changed: what is in
// the way is an error that wraps a problem.List, and so is what would make the files wrong. A running
// daemon sees each domain whole or not at all.
func MoveIn(plan *Plan, opt Options) (*Outcome, error) {
	m := &moveIn{opt: opt, plan: plan}
	m.Left = slices.Clone(plan.Left)
	if err := m.look(); err != nil {
		return nil, err
	}
	if err := m.conflicts().Err(); err != nil {
		return nil, fmt.Errorf("nothing was imported, because this is here already:\n%w", err)
	}
	around, tidy, err := m.around()
	if err != nil {
		return nil, err
	}
	defer tidy()
	if m.draft, err = os.MkdirTemp(around, ".import.*"); err != nil {
		return nil, err
	}
	defer os.RemoveAll(m.draft)
	if err := domains.LikeOther(m.draft, filepath.Dir(m.draft)); err != nil && !opt.Dry {
		return nil, err
	}
	if err := errors.Join(m.prepareDomains(), m.prepareCerts()); err != nil {
		return nil, err
	}
	if err := m.judgeDraft(); err != nil {
		return nil, err
	}
	if !opt.Dry {
		if err := placing.Run(m.steps); err != nil {
			return nil, fmt.Errorf("nothing was imported: %w", err)
		}
		placing.MakeLast(opt.Warn, m.Config.DomainsDir(), m.Config.CertsDir())
	}
	slices.SortStableFunc(m.Left, func(a, b problem.Problem) int { return cmp.Or(strings.Compare(a.File, b.File), a.Line-b.Line) })
	return &m.Outcome, nil
}

// look sees what is here.
func (m *moveIn) look() (err error) {
	m.Config = m.opt.Config
	if m.Config == nil {
		err = m.firstSettings()
	} else {
		m.compareSettings()
	}
	if err != nil {
		return err
	}
	m.set = domains.Read(m.Config, m.Config.DomainsDir()).Current()
	m.folders, err = domains.Folders(m.Config.DomainsDir())
	return err
}

// firstSettings makes the text of a relayd.toml where there is none.
func (m *moveIn) firstSettings() (err error) {
	m.Made = true
	m.settings = fmt.Appendf(nil, "hostname = %q\n", m.plan.Hostname)
	if m.plan.MessageSizeMB > 0 {
		m.settings = fmt.Appendf(m.settings, "\n[limits]\nmessage_size = \"%dMB\"\n", m.plan.MessageSizeMB)
	}
	m.Config, err = config.Parse(m.opt.File, m.settings)
	return err
}

// compareSettings leaves the settings that are here as they are.
func (m *moveIn) compareSettings() {
	if here, there := m.Config.Hostname, m.plan.Hostname; there != "" && here != there {
		m.leave(m.opt.File, "hostname stays %s, and there it is %s", here, there)
	}
	size := config.Size(m.plan.MessageSizeMB) * config.MB
	if size != 0 && m.Config.Limits.MessageSize != size {
		m.leave(m.opt.File, "limits.message_size stays %v, and there it is %v", m.Config.Limits.MessageSize, size)
	}
}

func (m *moveIn) leave(file, format string, args ...any) {
	m.Left = append(m.Left, problem.At(file, 0, format, args...))
}

// around is where the draft is made: in the folder of the domains, which is made if there is none,
// or for a dry run elsewhere. tidy takes away what was made for nothing.
func (m *moveIn) around() (dir string, tidy func(), err error) {
	if m.opt.Dry {
		return "", func() {}, nil
	}
	dir = m.Config.DomainsDir()
	err = domains.MakeFolder(dir)
	if errors.Is(err, fs.ErrExist) {
		return dir, func() {}, nil
	}
	return dir, func() { os.Remove(dir) }, err // a folder with something in it stays
}

// conflicts are what is in the way.
func (m *moveIn) conflicts() (found problem.List) {
	for _, d := range m.plan.Domains {
		dir := m.folders[d.Name]
		switch here := m.set.Get(d.Name); {
		case dir == "":
			if err := domains.CheckFree(m.Config.DomainsDir(), d.Name); err != nil {
				found = append(found, problem.At(filepath.Join(m.Config.DomainsDir(), d.Name), 0, "%v", err))
			}
		case d.Rules == nil && d.Users == nil && d.Aliases == nil && d.Keys == nil: // nothing but its name
		case d.Rules == nil:
			found = append(found, problem.At(dir, 0, "%s is hosted already", d.Name))
		case here == nil || here.Broken != nil || here.Stale:
			found = append(found, problem.At(dir, 0, "%s has a file that is wrong: see `relay-util domain-list`", d.Name))
		default:
			found = append(found, otherRules(here, d.Rules)...)
		}
	}
	for _, c := range m.plan.Certs {
		dir := filepath.Join(m.Config.CertsDir(), c.Name)
		if _, err := os.Lstat(dir); err == nil && !sameCert(dir, c) {
			found = append(found, problem.At(dir, 0, "there is another certificate of that name"))
		}
	}
	return found
}

// otherRules are the rules of a domain that lead elsewhere than new ones for the same name.
func otherRules(here *domains.Domain, rules []aliases.Rule) (found problem.List) {
	for _, r := range rules {
		if old, ok := here.Aliases.Rule(r.Left); ok && old.String() != r.String() {
			name := address.Address{Local: r.Left, Domain: here.Name}
			found = append(found, problem.At(old.File, old.Line, "%s is here already, and not %q", name, r.String()))
		}
	}
	return found
}

func sameCert(dir string, c Cert) bool {
	chain, err1 := os.ReadFile(filepath.Join(dir, "fullchain.pem"))
	key, err2 := os.ReadFile(filepath.Join(dir, "privkey.pem"))
	return err1 == nil && err2 == nil && bytes.Equal(chain, c.Chain) && bytes.Equal(key, c.Key)
}
