package aliases

import (
	"strings"

	"relayd/address"
)

// Hosted is what resolving must know about all hosted domains. Its methods are called many
// times for one address and should be map look-ups.
type Hosted interface {
	// Table returns the aliases of a hosted domain, an empty table where it has none, and
	// nil for a domain that is not hosted. The domain is in lower case.
	Table(domain string) *Table
	// HasMailbox reports whether a is a user of a hosted domain with a mailbox here. The local
	// part is in lower case. It is asked for the name as it is, without its suffix, and without
	// suffix and drop characters.
	HasMailbox(a address.Address) bool
}

// How says by which step of the look-up an address was found.
type How string

// The steps, in the order in which they are tried.
const (
	Exact    How = "exact"
	Loose    How = "without suffix and dots"
	Mailbox  How = "mailbox"
	CatchAll How = "catch-all"
)

// A match is the answer of one look-up: a rule or, with rule nil, a mailbox. With the answer that
// nothing takes the mail, rule is the one that has expired.
type match struct {
	rule    *Rule
	mailbox address.Address
	suffix  string // what stands behind the name of the mailbox in the address, as in "+tag"
	how     How
}

// lookup finds what takes mail for a, which is in t's domain. A user with a mailbox comes before
// the catch-all also when the mail is for user+tag: a catch-all is for names that nobody has. A
// rule that has expired ends the search: whoever made it wants no more mail for the name, from
// wherever else in the file it might be led.
func lookup(h Hosted, t *Table, a address.Address) (match, bool) {
	m, ok := find(h, t, a)
	if ok && m.rule != nil && !m.rule.Expires.IsZero() && m.rule.Expired(t.now()) {
		return match{rule: m.rule}, false
	}
	return m, ok
}

// find is lookup without regard to time.
func find(h Hosted, t *Table, a address.Address) (match, bool) {
	name := strings.ToLower(a.Local)
	if r := t.exact[name]; r != nil {
		return match{rule: r, how: Exact}, true
	}
	if bare := t.withoutDrops(t.withoutSuffix(name)); bare != "" {
		if r := t.loose[bare]; r != nil {
			return match{rule: r, how: Loose}, true
		}
	}
	if m, ok := mailboxOf(h, t, a); ok {
		return m, true
	}
	if t.catchAll != nil {
		return match{rule: t.catchAll, how: CatchAll}, true
	}
	return match{}, false
}

// mailboxOf finds the user with a mailbox whom a names, with or without suffix and dots.
func mailboxOf(h Hosted, t *Table, a address.Address) (match, bool) {
	short := t.withoutSuffix(a.Local)
	suffix := a.Local[len(short):]
	short = strings.ToLower(short)
	forms := [...]string{strings.ToLower(a.Local), short, t.withoutDrops(short)}
	for i, form := range forms {
		if form == "" || i > 0 && form == forms[i-1] {
			continue
		}
		m := match{mailbox: address.Address{Local: form, Domain: a.Domain}, how: Mailbox}
		if i > 0 {
			m.suffix = suffix
		}
		if h.HasMailbox(m.mailbox) {
			return m, true
		}
	}
	return match{}, false
}

// A hop is where one target of a rule leads: to another rule, or to the end of the way.
type hop struct {
	address address.Address // with the kept local part filled in; zero for a pipe
	rule    *Rule           // nil at the end of the way
	suffix  string          // as in match
	how     How             // how address was found; "" for a target that is not looked up
}

// follow looks up where target of rule leads for mail to the name local. It reports false when
// that is nowhere; the hop's rule is then one that has expired, if it is for that. A target with Via is always the end: its host is asked instead of us, which
// is how a second server hands a domain's mail to the first.
func follow(h Hosted, rule *Rule, target Target, local string) (hop, bool) {
	a := target.Address
	if target.KeepLocal {
		a.Local = local
	}
	if target.Pipe != nil || target.Via != nil {
		return hop{address: a}, true
	}
	t := h.Table(a.Domain)
	if t == nil {
		return hop{address: a}, true
	}
	m, ok := lookup(h, t, a)
	if !ok {
		return hop{rule: m.rule}, false
	}
	if m.rule == rule {
		// "me: me, other@x.org": the rule's own address means the mailbox behind it.
		if own, ok := mailboxOf(h, t, a); ok {
			return hop{address: own.mailbox, suffix: own.suffix, how: Mailbox}, true
		}
	}
	if m.rule == nil {
		a = m.mailbox
	}
	return hop{address: a, rule: m.rule, suffix: m.suffix, how: m.how}, true
}
