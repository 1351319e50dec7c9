package moving

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
	"relayd/internal/placing"
	"relayd/problem"
)

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

func (m *moveIn) newDomain(d Domain) error {
	draft, final := filepath.Join(m.draft, d.Name), filepath.Join(m.Config.DomainsDir(), d.Name)
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
	m.Domains = append(m.Domains, Moved{
		Domain: d.Name, New: true, Users: d.Count, Aliases: len(d.Rules), Keys: max(len(d.Keys), 1), Old: d.Old, MadeKey: made,
	})
	m.steps = append(m.steps, placing.Rename(draft, final))
	return nil
}

// keys puts the keys of a domain into its draft: its own, or a new one.
func (m *moveIn) keys(draft string, d Domain) (made bool, err error) {
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
func (m *moveIn) moreRules(d Domain) error {
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
	m.Domains = append(m.Domains, Moved{Domain: d.Name, Aliases: added})
	m.steps = append(m.steps, placing.Step{Do: exchange(file, before, after), Undo: exchange(file, after, before)})
	return nil
}

// exchange puts a text in the place of another, unless somebody was faster.
func exchange(file string, from, to []byte) func() error {
	return func() error {
		return domains.Edit(file, domains.NewFile, func(old []byte) ([]byte, error) {
			if !bytes.Equal(old, from) {
				return nil, fmt.Errorf("%s was changed in the meantime: try again", file)
			}
			return to, nil
		})
	}
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
	_, bad := certs.New(certs.Options{Dir: dir, Hostname: m.Config.Hostname, Log: slog.New(slog.DiscardHandler)})
	m.Certs = slices.DeleteFunc(slices.Clone(m.plan.Certs), func(c Cert) bool {
		i := slices.IndexFunc(bad, func(p problem.Problem) bool { return strings.HasPrefix(p.File, filepath.Join(dir, c.Name)+"/") })
		if i >= 0 {
			m.leave("certs/"+c.Name, "%s", bad[i].Reason)
		}
		return i >= 0 || sameCert(filepath.Join(m.Config.CertsDir(), c.Name), c)
	})
	if len(m.Certs) > 0 {
		m.steps = append(m.steps, placing.Step{Do: m.certsFolder, Undo: func() error { return nil }})
	}
	for _, c := range m.Certs {
		m.steps = append(m.steps, placing.Rename(filepath.Join(dir, c.Name), filepath.Join(m.Config.CertsDir(), c.Name)))
	}
	if m.settings != nil {
		m.steps = append(m.steps, placing.Step{
			Do:   func() error { return domains.WriteFile(m.opt.File, m.settings, domains.NewFile) },
			Undo: func() error { return os.Remove(m.opt.File) },
		})
	}
	return nil
}

func (m *moveIn) certsFolder() error {
	if err := domains.MakeFolder(m.Config.CertsDir()); !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// judgeDraft reads the draft as a daemon would read the files.
func (m *moveIn) judgeDraft() error {
	store := domains.Read(m.Config, m.draft)
	if err := m.here(store.Problems()).Err(); err != nil {
		return fmt.Errorf("nothing was imported, because the files would be wrong:\n%w", err)
	}
	m.Warnings = m.here(store.Warnings())
	set := store.Current()
	for i, moved := range m.Domains {
		if !moved.New {
			continue
		}
		d := set.Get(moved.Domain)
		m.Domains[i].Aliases = len(d.Aliases.Rules())
		for _, name := range d.Users.Names() {
			a := address.Address{Local: name, Domain: d.Name}
			if _, err := aliases.Resolve(set, a); errors.Is(err, aliases.ErrNoSuchAddress) {
				m.Warnings = append(m.Warnings, problem.At(filepath.Join(m.Config.DomainsDir(), d.Name, "aliases"), 0,
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
		if !ours || !slices.ContainsFunc(m.plan.Domains, func(d Domain) bool { return d.Name == name }) {
			continue
		}
		p.File = filepath.Join(m.Config.DomainsDir(), rest)
		if source := m.names[filepath.Join(m.draft, rest)]; source != "" {
			p.File = source
		}
		found = append(found, p)
	}
	return found
}
