// Package bans keeps those who guess passwords out. It counts wrong passwords, never connections or
// mail, by source (an IPv4 address or an IPv6 /64) and by account, and decides before any hashing who
// may try one. It promises:
//
//   - After 5 wrong passwords within an hour a source is banned from logging in for a minute, the next
//     time for two, then four, up to a day. A day without a ban makes the count begin anew. A ban is
//     of logins alone: mail from a banned source is taken, for mail is no login.
//   - A source near which an account has logged in is never banned for that account. Gmail and mobile
//     networks send many people from one address: what one of them does wrong must not lock out
//     another. Near is the same IPv4 /24 or IPv6 /48, as such services use many addresses, within 60
//     days. Where the source would be banned, such a login is slowed, so that it is no way to guess.
//   - An account that many sources guess at, with 10 wrong passwords within an hour from sources that it
//     does not know, is under attack, for times that double in the same way. It is never locked: that
//     would let anybody lock out anybody. Sources that it knows notice nothing; all others are slowed,
//     to a try in 5 seconds of each of them, two at a time. Whether there is such an account makes no difference.
//   - This machine's own programs share one address: 100 wrong passwords from it, not 5, lead to a ban, and
//     they are no attack on an account. An old password in one program must not lock out the others.
//   - A right password makes the wrong ones of the same account from the same source forgotten, and no
//     others: who has an account here must not be able to guess at another's without an end.
//   - Memory is bounded, and what was learned longest ago goes first: 50,000 sources, accounts and accounts
//     with the places they know, 50 of these each.
//   - Bans and known places survive a restart. They are written every 5 seconds at most; a crash loses that
//     much of them, and the count of what has not led to a ban.
//
// The state on disk names sources and accounts, whatever `[log] privacy` says.
package bans

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

const (
	window      = time.Hour // in which wrong passwords are added up
	fromSource  = 5         // of them ban a source
	fromHere    = 100       // of them ban this machine itself
	ofAccount   = 10        // of them are an attack
	firstBan    = time.Minute
	longestBan  = 24 * time.Hour
	forgiven    = 24 * time.Hour // after the end of a ban
	knownFor    = 60 * 24 * time.Hour
	placesOfOne = 50
	maxEntries  = 50_000
	saveEvery   = 5 * time.Second
)

// Options are a Book's. All are required.
type Options struct {
	// Load returns what Save was last given, nil if nothing was.
	Load func() ([]byte, error)
	Save func(data []byte) error
	Now  func() time.Time
	Log  *slog.Logger
}

// A Book knows who has guessed. Make one with Open; it is safe for concurrent use.
type Book struct {
	opt  Options
	slow queues

	mu       sync.Mutex // guards the rest
	sources  *shelf[netip.Prefix, record]
	accounts *shelf[string, record]
	known    *shelf[string, places]
	dirty    bool // it is not on disk as it is
}

// A Refusal is the error of Admit for a source that is banned.
type Refusal struct {
	Source netip.Prefix
	Until  time.Time
}

func (r *Refusal) Error() string {
	return fmt.Sprintf("logins from %s are refused until %s", Name(r.Source), r.Until.UTC().Format(time.RFC3339))
}

// Admit decides whether a login is to be looked at, and waits where it is to be slowed. known says
// that the account has logged in near there. The error is a *Refusal, that of ctx, or one
// that says that too many wait already; after these two the client may try again. An account is named by
// address.Key, with "" for a name that is no address.
func (b *Book) Admit(ctx context.Context, ip netip.Addr, account string) (known bool, err error) {
	source := Source(ip)
	b.mu.Lock()
	now := b.opt.Now()
	known = b.known.get(account).has(near(ip), now)
	until := b.sources.get(source).inForce(now)
	attacked := !ip.IsLoopback() && !b.accounts.get(account).inForce(now).IsZero()
	b.mu.Unlock()
	switch {
	case until.IsZero() && (known || !attacked):
		return known, nil
	case !until.IsZero() && !known:
		return known, &Refusal{source, until}
	}
	return known, b.slow.wait(ctx, place{source, account, known})
}

// Check returns the *Refusal of a source that is banned. It is for a login that was admitted a while
// ago: what waited with it may have been guesses.
func (b *Book) Check(ip netip.Addr, account string) error {
	source := Source(ip)
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.opt.Now()
	until := b.sources.get(source).inForce(now)
	if until.IsZero() || b.known.get(account).has(near(ip), now) {
		return nil
	}
	return &Refusal{source, until}
}

// Failed notes a wrong password.
func (b *Book) Failed(ip netip.Addr, account string) {
	source := Source(ip)
	b.mu.Lock()
	defer b.mu.Unlock()
	now, enough := b.opt.Now(), fromSource
	if ip.IsLoopback() {
		enough = fromHere
	}
	if b.sources.touch(source).fail(failure{account, now}, enough) {
		b.dirty = true
		b.opt.Log.Warn("banned from logging in: too many wrong passwords", "client", ip.String(), "user", account, "until", b.sources.get(source).Until.UTC().Format(time.RFC3339))
	}
	if account == "" || ip.IsLoopback() || b.known.get(account).has(near(ip), now) {
		return
	}
	if b.accounts.touch(account).fail(failure{source.String(), now}, ofAccount) {
		b.dirty = true
		b.opt.Log.Warn("passwords of an account are guessed: logins from where it is not known are slowed", "user", account, "until", b.accounts.get(account).Until.UTC().Format(time.RFC3339))
	}
}

// Succeeded notes a right password.
func (b *Book) Succeeded(ip netip.Addr, account string) {
	source := Source(ip)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sources.get(source).forget(account)
	b.accounts.get(account).forget(source.String())
	if b.known.touch(account).add(near(ip), b.opt.Now()) {
		b.dirty = true
	}
}

// Source is what counts as one: the zero Prefix for no address.
func Source(ip netip.Addr) netip.Prefix { return prefix(ip, 32, 64) }

// near is where logins are known from.
func near(ip netip.Addr) netip.Prefix { return prefix(ip, 24, 48) }

func prefix(ip netip.Addr, bits4, bits6 int) netip.Prefix {
	ip = ip.Unmap().WithZone("")
	bits := bits4
	if ip.Is6() {
		bits = bits6
	}
	p, _ := ip.Prefix(bits) // of a valid length
	return p
}

// Name is a source as a person writes it: an IPv4 address without its length.
func Name(source netip.Prefix) string {
	if source.IsSingleIP() {
		return source.Addr().String()
	}
	return source.String()
}
