package main

import (
	"fmt"
	"slices"

	"relayd/address"
	"relayd/aliases"
	"relayd/problem"
)

// dispensable is nil if no alias needs the mailbox of a user. Without it such an alias would go in a
// circle, which takes the whole domain out of service, or lead nowhere.
func (t *tool) dispensable(u user) error {
	w, err := t.world()
	if err != nil {
		return err
	}
	before := w.aliasProblems(w)
	after := w.aliasProblems(bereft{w, u.addr.Key()})
	after = slices.DeleteFunc(after, func(p problem.Problem) bool { return slices.Contains(before, p) })
	if len(after) == 0 {
		return nil
	}
	return fmt.Errorf("%s was not removed, because aliases need the mailbox:\n%w\nchange or remove these aliases first; "+
		"`relay-util user-disable %[1]s` ends the logins and leaves the mailbox", u.addr.Key(), after)
}

// aliasProblems is what is wrong with all alias files together, as h has the mailboxes.
func (w world) aliasProblems(h aliases.Hosted) problem.List {
	var tables []*aliases.Table
	for _, d := range w.All() {
		if d.Aliases != nil {
			tables = append(tables, d.Aliases)
		}
	}
	return append(aliases.Check(h, tables), aliases.Dangling(h, tables)...)
}

// bereft is the world without one user.
type bereft struct {
	world
	gone string // the user's address.Address.Key
}

// HasMailbox makes bereft an aliases.Hosted.
func (b bereft) HasMailbox(a address.Address) bool {
	return a.Key() != b.gone && b.world.HasMailbox(a)
}
