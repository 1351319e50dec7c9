package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"relayd/address"
	"relayd/aliases"
	"relayd/certs"
	"relayd/domains"
	"relayd/moving"
	"relayd/problem"
)

// A moveIn takes over a plan whole or not at all: everything is made and judged in a draft beside
// the files, and then renamed into its place. Until then nothing can be seen of it.
type moveIn struct {
	t *tool
	world
	plan     *moving.Plan
	settings []byte // of a relayd.toml that is to be made; nil for none
	dry      bool

	draft    string // folder with a folder for each domain as it is to be
	moved    []movedDomain
	warnings problem.List
	steps    []placement // that put the draft in its place
	names    map[string]string
}

func (m *moveIn) run() error {
	if err := m.conflicts().Err(); err != nil {
		return fmt.Errorf("nothing was imported, because this is here already:\n%w", err)
	}
	around, tidy, err := m.around()
	if err != nil {
		return err
	}
	defer tidy()
	if m.draft, err = os.MkdirTemp(around, ".import.*"); err != nil {
		return err
	}
	defer os.RemoveAll(m.draft)
	if err := domains.LikeOther(m.draft, filepath.Dir(m.draft)); err != nil && !m.dry {
		return err
	}
	if err := errors.Join(m.prepareDomains(), m.prepareCerts()); err != nil {
		return err
	}
	if err := m.judgeDraft(); err != nil {
		return err
	}
	if !m.dry {
		if err := putInPlace(m.steps); err != nil {
			return fmt.Errorf("nothing was imported: %w", err)
		}
		m.t.makeLast(m.DomainsDir(), m.CertsDir())
		m.t.nudge(m.place, m.Dir())
	}
	return m.print()
}

// around is where the draft is made: in the folder of the domains, which is made if there is none,
// or for a dry run elsewhere. tidy takes away what was made for nothing.
func (m *moveIn) around() (dir string, tidy func(), err error) {
	if m.dry {
		return "", func() {}, nil
	}
	dir = m.DomainsDir()
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
		switch here := m.Get(d.Name); {
		case dir == "":
			if _, err := m.free(d.Name); err != nil {
				found = append(found, problem.At(filepath.Join(m.DomainsDir(), d.Name), 0, "%v", err))
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
		dir := filepath.Join(m.CertsDir(), c.Name)
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
			found = append(found, problem.At(old.File, old.Line, "%s is here already, and not %q", wholeLeft(r.Left, here.Name), r.String()))
		}
	}
	return found
}

func sameCert(dir string, c moving.Cert) bool {
	chain, err1 := os.ReadFile(filepath.Join(dir, "fullchain.pem"))
	key, err2 := os.ReadFile(filepath.Join(dir, "privkey.pem"))
	return err1 == nil && err2 == nil && bytes.Equal(chain, c.Chain) && bytes.Equal(key, c.Key)
}

// prepareDomains makes the draft of each domain.
func (m *moveIn) prepareDomains() error {
	m.names = map[string]string{}
	planned := map[string]bool{}
	for _, d := range m.plan.Domains {
		planned[d.Name] = true
		prepare := m.newDomain
		if m.folders[d.Name] != "" {
			prepare = m.moreRules
		}
		if err := prepare(d); err != nil {
			return err
		}
	}
	for name, dir := range m.folders { // the others, so that cycles through them are seen
		if planned[name] {
			continue
		}
		if err := link(dir, filepath.Join(m.draft, name)); err != nil {
			return err
		}
	}
	return nil
}

func link(to, name string) error {
	to, err := filepath.Abs(to)
	if err != nil {
		return err
	}
	return os.Symlink(to, name)
}

func (m *moveIn) newDomain(d moving.Domain) error {
	draft, final := filepath.Join(m.draft, d.Name), filepath.Join(m.DomainsDir(), d.Name)
	if err := domains.MakeFolder(draft); err != nil {
		return err
	}
	text := d.Aliases
	for _, r := range d.Rules {
		var err error
		if text, err = aliases.Add(text, r); err != nil {
			return err
		}
	}
	m.names[filepath.Join(draft, "aliases")] = d.Source
	files := map[string][]byte{"users": d.Users, "aliases": text}
	if len(d.Settings) > 0 {
		files["domain.toml"] = d.Settings
	}
	for name, data := range files {
		if err := domains.WriteFile(filepath.Join(draft, name), data, domains.NewFile); err != nil {
			return err
		}
	}
	made, err := m.keys(draft, d)
	if err != nil {
		return err
	}
	m.moved = append(m.moved, movedDomain{
		Domain: d.Name, New: true, Users: d.Count, Aliases: len(d.Rules), Keys: max(len(d.Keys), 1), old: d.Old, made: made,
	})
	m.steps = append(m.steps, rename(draft, final))
	return nil
}

// keys puts the keys of a domain into its draft: its own, or a new one.
func (m *moveIn) keys(draft string, d moving.Domain) (made bool, err error) {
	if len(d.Keys) == 0 {
		_, err := domains.MakeKey(draft, d.Name, domains.KeySpec{Selector: domains.DefaultSelector, Algo: domains.DefaultAlgo})
		return true, err
	}
	dir := filepath.Join(draft, "dkim")
	if err := domains.MakeFolder(dir); err != nil {
		return false, err
	}
	for selector, text := range d.Keys {
		if err := domains.WriteFile(filepath.Join(dir, selector+".pem"), text, 0o600); err != nil {
			return false, err
		}
	}
	return false, nil
}

// moreRules adds rules to the aliases of a domain that is hosted already.
func (m *moveIn) moreRules(d moving.Domain) error {
	draft, dir := filepath.Join(m.draft, d.Name), m.folders[d.Name]
	if err := domains.MakeFolder(draft); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == "aliases" {
			continue
		}
		if err := link(filepath.Join(dir, e.Name()), filepath.Join(draft, e.Name())); err != nil {
			return err
		}
	}
	file := filepath.Join(dir, "aliases")
	before, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	after, added := before, 0
	for _, r := range d.Rules {
		text, err := aliases.Add(after, r)
		switch {
		case err == nil:
			after, added = text, added+1
		case !errors.Is(err, aliases.ErrExists): // one that exists is the same, or conflicts had found it
			return err
		}
	}
	m.names[filepath.Join(draft, "aliases")] = file
	if err := os.WriteFile(filepath.Join(draft, "aliases"), after, 0o600); err != nil || added == 0 {
		return err
	}
	m.moved = append(m.moved, movedDomain{Domain: d.Name, Aliases: added})
	m.steps = append(m.steps, placement{exchange(file, before, after), exchange(file, after, before)})
	return nil
}

// prepareCerts makes the draft of each certificate, leaves out those that are not in order, and
// plans how relayd.toml is made.
func (m *moveIn) prepareCerts() error {
	dir := filepath.Join(m.draft, ".certs")
	if err := domains.MakeFolder(dir); err != nil {
		return err
	}
	for _, c := range m.plan.Certs {
		pair := filepath.Join(dir, c.Name)
		err := domains.MakeFolder(pair)
		if err == nil {
			err = domains.WriteFile(filepath.Join(pair, "fullchain.pem"), c.Chain, domains.NewFile)
		}
		if err == nil {
			err = domains.WriteFile(filepath.Join(pair, "privkey.pem"), c.Key, 0o600)
		}
		if err != nil {
			return err
		}
	}
	_, bad := certs.New(certs.Options{Dir: dir, Hostname: m.Hostname, Log: slog.New(slog.DiscardHandler)})
	m.plan.Certs = slices.DeleteFunc(m.plan.Certs, func(c moving.Cert) bool {
		i := slices.IndexFunc(bad, func(p problem.Problem) bool { return strings.HasPrefix(p.File, filepath.Join(dir, c.Name)+"/") })
		if i >= 0 {
			m.leave("certs/"+c.Name, "%s", bad[i].Reason)
		}
		return i >= 0 || sameCert(filepath.Join(m.CertsDir(), c.Name), c)
	})
	if len(m.plan.Certs) > 0 {
		m.steps = append(m.steps, placement{m.certsFolder, func() error { return nil }})
	}
	for _, c := range m.plan.Certs {
		m.steps = append(m.steps, rename(filepath.Join(dir, c.Name), filepath.Join(m.CertsDir(), c.Name)))
	}
	if m.settings != nil {
		m.steps = append(m.steps, placement{
			func() error { return domains.WriteFile(m.t.configFile, m.settings, domains.NewFile) },
			func() error { return os.Remove(m.t.configFile) },
		})
	}
	return nil
}

func (m *moveIn) certsFolder() error {
	if err := domains.MakeFolder(m.CertsDir()); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// judgeDraft reads the draft as a daemon would read the files.
func (m *moveIn) judgeDraft() error {
	store := domains.Open(domains.Options{
		Dir: m.draft, AllowPipe: m.Aliases.AllowPipe, Mailboxes: m.Mailbox.LMTP != "", Log: slog.New(slog.DiscardHandler),
	})
	if err := m.here(store.Problems()).Err(); err != nil {
		return fmt.Errorf("nothing was imported, because the files would be wrong:\n%w", err)
	}
	m.warnings = m.here(store.Warnings())
	set := store.Current()
	for i, moved := range m.moved {
		if !moved.New {
			continue
		}
		d := set.Get(moved.Domain)
		m.moved[i].Aliases = len(d.Aliases.Rules())
		for _, name := range d.Users.Names() {
			a := address.Address{Local: name, Domain: d.Name}
			if _, err := aliases.Resolve(set, a); errors.Is(err, aliases.ErrNoSuchAddress) {
				m.warnings = append(m.warnings, problem.At(filepath.Join(m.DomainsDir(), d.Name, "aliases"), 0,
					"there are no mailboxes here, so mail for %s is refused: say where it goes, with `relay-util alias-add %[1]s TARGET`", a))
			}
		}
	}
	return nil
}

// here are problems of the files that are drafted, by the names of those that they come from or will have.
func (m *moveIn) here(list problem.List) (found problem.List) {
	for _, p := range list {
		rest, ours := strings.CutPrefix(p.File, m.draft+"/")
		name, _, _ := strings.Cut(rest, "/")
		if !ours || !slices.ContainsFunc(m.plan.Domains, func(d moving.Domain) bool { return d.Name == name }) {
			continue
		}
		p.File = filepath.Join(m.DomainsDir(), rest)
		if source := m.names[filepath.Join(m.draft, rest)]; source != "" {
			p.File = source
		}
		found = append(found, p)
	}
	return found
}
