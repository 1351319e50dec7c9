package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"relayd/address"
	"relayd/config"
	"relayd/users"
)

func (t *tool) userVerbs() []*cobra.Command {
	return []*cobra.Command{
		t.userAdd(),
		t.userPasswd(),
		t.userChange("user-remove", "removed", "Remove a user, whose address and mail then go by the aliases alone.", users.Remove, t.dispensable),
		t.userChange("user-disable", "disabled", "Keep a user from logging in, without forgetting the password.", users.Disable, nil),
		t.userChange("user-enable", "enabled", "Let a disabled user log in again.", users.Enable, nil),
		t.userList(),
		t.authenticate(),
	}
}

// A user is a user of a hosted domain, who may not be there.
type user struct {
	place
	addr address.Address
	file string
}

func (t *tool) user(addr string) (user, error) {
	a, err := address.Parse(addr)
	if err != nil {
		return user{}, err
	}
	p, err := t.place()
	if err != nil {
		return user{}, err
	}
	a.Domain, err = p.hosted(a.Domain)
	return user{p, a, p.file(a.Domain, "users")}, err
}

// check reports whether the user is in a users file as wanted, and says what to type if not.
func (u user) check(data []byte, wanted bool) error {
	_, err := users.Remove(data, u.addr.Local)
	missing := errors.Is(err, users.ErrNoUser)
	switch {
	case missing && wanted:
		return fmt.Errorf("there is no user %s; add one with `relay-util user-add %[1]s`", u.addr.Key())
	case missing:
		return nil
	case err == nil && !wanted:
		return fmt.Errorf("the user %s exists already; change the password with `relay-util user-passwd %[1]s`", u.addr.Key())
	}
	return err
}

// mayBeNew reports why nobody should get the name, though it could stand in the file with these bytes.
func (u user) mayBeNew(data []byte) error {
	file := u.place.file(u.addr.Domain, "domain.toml")
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s, err := config.ParseDomain(file, text)
	if err != nil {
		return err
	}
	table, err := users.Parse(u.file, bytes.NewReader(data))
	if err != nil {
		return err
	}
	return users.CheckNew(u.addr.Local, table, users.Ways{SuffixSeparators: s.SuffixSeparators, DropCharacters: s.DropCharacters})
}

// editUser changes the line of a user who must be there, or must not.
func (t *tool) editUser(u user, wanted bool, change func(old []byte) ([]byte, error)) error {
	return t.edit(u.place, u.addr.Domain, "users", func(old []byte) ([]byte, error) {
		if err := u.check(old, wanted); err != nil {
			return nil, err
		}
		data, err := change(old)
		if err != nil {
			return nil, err
		}
		if _, err := users.Parse(u.file, bytes.NewReader(data)); err != nil {
			return nil, refused(err)
		}
		return data, nil
	})
}

func (t *tool) userAdd() *cobra.Command {
	c := &cobra.Command{
		Use:     "user-add ADDR",
		Short:   "Add a user, who may log in with the whole address and a password.",
		Example: "relay-util user-add me@example.org --generate",
	}
	source := t.passwordFlags(c, true)
	return t.verb(c, between(1, 1), func(_ context.Context, args []string) error {
		return t.setPassword(args[0], source, false)
	})
}

func (t *tool) userPasswd() *cobra.Command {
	c := &cobra.Command{
		Use:     "user-passwd ADDR",
		Short:   "Give a user a new password; a disabled user stays disabled.",
		Example: "relay-util user-passwd me@example.org",
	}
	source := t.passwordFlags(c, true)
	return t.verb(c, between(1, 1), func(_ context.Context, args []string) error {
		return t.setPassword(args[0], source, true)
	})
}

// setPassword gives a user who exists a new password, or a new user the first one. Everything
// that can be known to fail does so before somebody is asked to type.
func (t *tool) setPassword(addr string, source *passwordSource, exists bool) error {
	u, err := t.user(addr)
	if err != nil {
		return err
	}
	if _, err := users.CheckName(u.addr.Local); err != nil {
		return err
	}
	data, err := os.ReadFile(u.file)
	if errors.Is(err, fs.ErrNotExist) {
		err = u.vanished(u.addr.Domain, "users")
	}
	if err != nil {
		return err
	}
	if err := u.check(data, exists); err != nil {
		return err
	}
	if !exists {
		if err := u.mayBeNew(data); err != nil {
			return err
		}
	}
	password, err := t.password(source, "new password for "+u.addr.Key(), true)
	if err != nil {
		return err
	}
	hash, err := users.Hash(password, u.Auth.BcryptCost)
	if err != nil {
		return err
	}
	set := func(old []byte) ([]byte, error) { return users.Set(old, u.addr.Local, hash) }
	if err := t.editUser(u, exists, set); err != nil {
		return err
	}
	if !source.generate {
		password = ""
	}
	return t.printPassword(u.addr, password, exists)
}

// printPassword says that it is done. A password is printed only if nobody has typed it.
func (t *tool) printPassword(addr address.Address, password string, exists bool) error {
	if t.json {
		return t.printJSON(struct {
			Address  string `json:"address"`
			Password string `json:"password,omitempty"`
		}{addr.Key(), password})
	}
	if exists {
		t.say("changed the password of %s", addr.Key())
	} else {
		t.say("added %s", addr.Key())
	}
	if password != "" {
		t.say("%s", password)
	}
	return nil
}

// userChange is a verb that needs nothing but the user, and that check, if there is one, lets happen.
func (t *tool) userChange(name, done, short string, change func(data []byte, local string) ([]byte, error), check func(user) error) *cobra.Command {
	c := &cobra.Command{Use: name + " ADDR", Short: short, Example: "relay-util " + name + " me@example.org"}
	return t.verb(c, between(1, 1), func(_ context.Context, args []string) error {
		u, err := t.user(args[0])
		if err != nil {
			return err
		}
		err = t.editUser(u, true, func(old []byte) ([]byte, error) {
			if check != nil {
				if err := check(u); err != nil {
					return nil, err
				}
			}
			return change(old, u.addr.Local)
		})
		if err == nil {
			err = t.did("address", u.addr.Key(), done+" "+u.addr.Key())
		}
		return err
	})
}

// A listedUser is a user as `user-list --json` shows one.
type listedUser struct {
	Address  string `json:"address"`
	Disabled bool   `json:"disabled"`
}

func (t *tool) userList() *cobra.Command {
	c := &cobra.Command{
		Use:     "user-list [DOMAIN]",
		Short:   "List the users, one a line, with the word disabled behind those who are.",
		Example: "relay-util user-list example.org",
	}
	return t.verb(c, between(0, 1), func(_ context.Context, args []string) error {
		w, err := t.world()
		if err != nil {
			return err
		}
		chosen, err := w.chosen(args)
		if err != nil {
			return err
		}
		list := []listedUser{}
		for _, d := range chosen {
			for _, u := range d.Users.All() {
				list = append(list, listedUser{u.Name + "@" + d.Name, u.Disabled})
			}
		}
		if err := t.printUsers(list); err != nil {
			return err
		}
		return broken(chosen)
	})
}

func (t *tool) printUsers(list []listedUser) error {
	if t.json {
		return t.printJSON(list)
	}
	tw := t.table()
	for _, u := range list {
		if u.Disabled {
			fmt.Fprintf(tw, "%s\tdisabled\n", u.Address)
		} else {
			fmt.Fprintf(tw, "%s\n", u.Address)
		}
	}
	return tw.Flush()
}

func (t *tool) authenticate() *cobra.Command {
	c := &cobra.Command{
		Use:     "authenticate ADDR",
		Short:   "Say whether a password is right by the files as they stand: yes or no.",
		Example: "relay-util authenticate me@example.org",
	}
	source := t.passwordFlags(c, false)
	return t.verb(c, between(1, 1), func(ctx context.Context, args []string) error {
		addr, err := address.Parse(args[0])
		if err != nil {
			return err
		}
		p, err := t.place()
		if err != nil {
			return err
		}
		table, err := p.users(addr.Domain)
		if err != nil {
			return err
		}
		password, err := t.password(source, "password of "+addr.Key(), false)
		if err != nil {
			return err
		}
		verifier := users.NewVerifier(users.VerifierOptions{Cost: p.Auth.BcryptCost})
		right, err := verifier.Verify(ctx, users.Login{Table: table, User: addr, Password: password})
		if err != nil {
			return err
		}
		return t.printVerdict(addr, right)
	})
}

// users reads the users of a domain; nil for one that is not hosted.
func (p place) users(domain string) (*users.Table, error) {
	if p.folders[domain] == "" {
		return nil, nil
	}
	name := p.file(domain, "users")
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return users.Parse(name, f)
}

func (t *tool) printVerdict(addr address.Address, right bool) error {
	if t.json {
		err := t.printJSON(struct {
			Address string `json:"address"`
			Right   bool   `json:"authenticated"`
		}{addr.Key(), right})
		if err != nil {
			return err
		}
	} else if right {
		t.say("yes")
	} else {
		t.say("no")
	}
	if !right {
		return errNo
	}
	return nil
}
