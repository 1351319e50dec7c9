package setup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"relayd/address"
	"relayd/aliases"
	"relayd/config"
	"relayd/domains"
	"relayd/srs"
	"relayd/users"
)

// secret makes the secret of SRS, or gives one that was left half-made to the account.
func (p *Plan) secret(context.Context) error {
	file := filepath.Join(p.Config.StateDir, "srs-secrets")
	owned, err := ownedLike(p.at(file))
	if err != nil && !errors.Is(err, fs.ErrNotExist) || owned {
		return err
	}
	p.add(file+", the secret of return addresses", func(context.Context) error {
		if _, err := srs.LoadSecrets(p.at(file)); err != nil {
			return err
		}
		uid, gid, err := p.ids()
		if err != nil {
			return err
		}
		return os.Lchown(p.at(file), uid, gid) // the folder is the account's: what a link leads to is not for it
	})
	return nil
}

// domain makes the folder of the domain with a key and a catch-all.
func (p *Plan) domain(context.Context) error {
	dir := p.at("/etc/relayd/domains")
	folders, err := domains.Folders(dir)
	if err != nil {
		return err
	}
	if p.folder = folders[p.Domain]; p.folder != "" {
		return p.hosted(folders)
	}
	p.folder = filepath.Join(dir, p.Domain)
	if exists(p.folder) {
		return fmt.Errorf("%s is in the way; move it elsewhere first", p.folder)
	}
	to, err := p.elsewhere(folders)
	if err != nil {
		return err
	}
	text, err := p.catchAll(nil)
	if err != nil {
		return err
	}
	p.add(fmt.Sprintf("%s: a DKIM key, and a catch-all that forwards to %s", p.Domain, to), func(context.Context) error {
		_, err := domains.Make(dir, p.Domain, text)
		return err
	})
	return nil
}

// elsewhere is where mail goes: to no domain that is hosted here, from where it might come back.
func (p *Plan) elsewhere(folders map[string]string) (address.Address, error) {
	to, err := p.forward()
	if err == nil && folders[to.Domain] != "" {
		err = fmt.Errorf("--forward: %s is hosted here too, and this is for a mailbox elsewhere; `relay-util alias-add` forwards from domain to domain", to.Domain)
	}
	return to, err
}

// hosted looks over a domain that is there. Its aliases are a person's: the catch-all is added where
// there is none and one was asked for, and never changed.
func (p *Plan) hosted(folders map[string]string) error {
	if keys, _ := filepath.Glob(filepath.Join(p.folder, "dkim", "*.pem")); len(keys) == 0 {
		p.add("DKIM key of "+p.Domain, func(context.Context) error {
			_, err := domains.MakeKey(p.folder, p.Domain, domains.KeySpec{Selector: domains.DefaultSelector, Algo: domains.DefaultAlgo})
			return err
		})
	}
	if p.opt.Forward == "" {
		return nil
	}
	to, err := p.elsewhere(folders)
	if err != nil {
		return err
	}
	file := filepath.Join(p.folder, "aliases")
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	table, err := aliases.Parse(file, bytes.NewReader(old), p.aliasOptions())
	if err != nil {
		return fmt.Errorf("the aliases of %s cannot be used; mend them first:\n%w", p.Domain, err)
	}
	for _, rule := range table.Rules() {
		if rule.Left != "*" {
			continue
		}
		if len(rule.Targets) != 1 || rule.Targets[0].Address.Key() != to.Key() {
			p.found("catch-all: %s stays as it stands in line %d of %s, though --forward says otherwise", p.Domain, rule.Line, file)
		}
		return nil
	}
	p.add(fmt.Sprintf("catch-all of %s that forwards to %s", p.Domain, to), func(context.Context) error {
		return domains.Edit(file, domains.NewFile, p.catchAll)
	})
	return nil
}

func (p *Plan) aliasOptions() aliases.Options {
	d := config.DefaultDomain()
	return aliases.Options{Domain: p.Domain, SuffixSeparators: d.SuffixSeparators, DropCharacters: d.DropCharacters, AllowPipe: p.Config.Aliases.AllowPipe}
}

// catchAll adds the catch-all to the text of an alias file.
func (p *Plan) catchAll(old []byte) ([]byte, error) {
	to, err := p.forward()
	if err != nil {
		return nil, err
	}
	rule, err := aliases.NewRule("*", []string{aliases.Target{Address: to}.String()}, p.aliasOptions())
	if err != nil {
		return nil, err
	}
	return aliases.Add(old, rule)
}

// user makes the first user of the domain.
func (p *Plan) user(context.Context) error {
	name, err := users.CheckName(p.User.Local)
	if err != nil {
		return fmt.Errorf("--user: %w", err)
	}
	p.User.Local = name
	file := filepath.Join(p.folder, "users")
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) && !exists(p.folder) {
		err = nil // the step before this one makes it
	}
	if err != nil {
		return fmt.Errorf("%w; put the users back, or make an empty file to begin anew", err)
	}
	switch _, err := users.Remove(data, name); {
	case err == nil:
		return nil
	case !errors.Is(err, users.ErrNoUser):
		return fmt.Errorf("%s: %w", file, err)
	}
	p.add("user "+p.User.String()+" with a password", func(context.Context) error {
		password := users.Generate()
		hash, err := users.Hash(password, p.Config.Auth.BcryptCost)
		if err != nil {
			return err
		}
		err = domains.Edit(file, domains.NewFile, func(old []byte) ([]byte, error) { return users.Set(old, name, hash) })
		if err == nil {
			p.Password = password
		}
		return err
	})
	return nil
}
