package bans

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A Ban is one that is in force.
type Ban struct {
	Source  netip.Prefix // who may not log in; the zero Prefix for an account
	Account string       // that is under attack: who is not known there is slowed
	Until   time.Time
	Times   int // how often, with times without a ban of less than a day between
}

// List returns the bans in force, those that end last first.
func (b *Book) List() []Ban {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.opt.Now()
	var list []Ban
	for source, r := range b.sources.all() {
		if until := r.inForce(now); !until.IsZero() {
			list = append(list, Ban{Source: source, Until: until, Times: r.Bans})
		}
	}
	for account, r := range b.accounts.all() {
		if until := r.inForce(now); !until.IsZero() {
			list = append(list, Ban{Account: account, Until: until, Times: r.Bans})
		}
	}
	slices.SortStableFunc(list, func(a, b Ban) int { return cmp.Or(b.Until.Compare(a.Until), strings.Compare(a.Account, b.Account)) })
	return list
}

// Lift ends bans of sources and accounts for which f is true, forgets all that was counted of them, and
// returns the bans that it has ended. How often they were banned is forgotten, too.
func (b *Book) Lift(f func(Ban) bool) []Ban {
	b.mu.Lock()
	defer b.mu.Unlock()
	var lifted []Ban
	now := b.opt.Now()
	end := func(r *record, ban Ban, drop func()) {
		if ban.Until, ban.Times = r.inForce(now), r.Bans; f(ban) {
			drop()
			b.dirty = true
			if !ban.Until.IsZero() {
				lifted = append(lifted, ban)
			}
		}
	}
	for source, r := range b.sources.all() {
		end(r, Ban{Source: source}, func() { b.sources.drop(source) })
	}
	for account, r := range b.accounts.all() {
		end(r, Ban{Account: account}, func() { b.accounts.drop(account) })
	}
	return lifted
}
