package aliases

import (
	"errors"
	"fmt"
	"strings"

	"relayd/address"
)

// Bounds of one resolution.
const (
	maxChain   = 10     // rules on the way from an address to a final target
	maxFinals  = 1_000  // final targets of one address
	maxLookups = 10_000 // targets followed for one address
)

// Errors of Resolve.
var (
	// ErrNoSuchAddress means that nothing takes mail for the address: 550 5.1.1. An ExpiredError
	// is one.
	ErrNoSuchAddress = errors.New("no such address")
	// errLoop means a cycle, or a chain of more than 10 rules, that Check was not asked about.
	errLoop = errors.New("aliases lead in a circle or through more than 10 rules")
	// errTooMany means more than 1,000 final targets, or 10,000 look-ups to find them.
	errTooMany = errors.New("aliases lead to too many targets")
)

// A Resolution is where mail for one address goes, and how that was found.
type Resolution struct {
	Targets []Final // at least one, without duplicates, in the order of the files
	Steps   []Step  // every rule and mailbox that was met, in the order it was met
}

// A Final is a target at the end of the way. Its KeepLocal is false: the kept local part has
// been filled in.
type Final struct {
	Target
	Mailbox bool   // deliver into the local mailbox of Address
	Suffix  string // with Mailbox: what stood behind the name in the address that led here first, as in "+tag"
}

// A Step is one address of a hosted domain on the way.
type Step struct {
	Address address.Address
	Rule    *Rule // nil when the address is a mailbox
	Via     How   // how it was found
}

// Resolve finds the final targets for a. It returns ErrNoSuchAddress when there are none (also
// for a domain that is not hosted); every other error is a fault of the files and none of the
// sender. A target in a hosted domain that leads nowhere is left out. A final target
// in a hosted domain is a mailbox, unless the rule says via or is a command.
func Resolve(h Hosted, a address.Address) (Resolution, error) {
	t := h.Table(a.Domain)
	if t == nil {
		return Resolution{}, ErrNoSuchAddress
	}
	m, ok := lookup(h, t, a)
	switch {
	case !ok && m.rule != nil:
		return Resolution{}, &ExpiredError{m.rule}
	case !ok:
		return Resolution{}, ErrNoSuchAddress
	}
	w := walk{h: h, open: make(map[node]bool), finals: make(map[string]bool)}
	var err error
	if m.rule == nil {
		err = w.end(hop{address: m.mailbox, suffix: m.suffix, how: m.how}, Target{})
	} else {
		err = w.visit(hop{address: a, rule: m.rule, how: m.how}, 1)
	}
	switch {
	case err != nil:
		return Resolution{}, fmt.Errorf("%s: %w", a, err)
	case len(w.res.Targets) == 0:
		return Resolution{}, ErrNoSuchAddress
	}
	return w.res, nil
}

// A node is a rule at work. One that keeps the local part works differently for each.
type node struct {
	rule  *Rule
	local string // "" where it makes no difference
}

// walk is one resolution under way.
type walk struct {
	h       Hosted
	res     Resolution
	open    map[node]bool // rules met: true while their targets are being followed
	finals  map[string]bool
	lookups int
}

// visit follows the targets of the rule that at leads to, the depth-th rule of its chain.
func (w *walk) visit(at hop, depth int) error {
	n := node{rule: at.rule}
	if n.rule.keeps {
		n.local = at.address.Local
	}
	if open, met := w.open[n]; met {
		if open {
			return errLoop
		}
		return nil // all it leads to is in the result already
	}
	if depth > maxChain {
		return errLoop
	}
	w.res.Steps = append(w.res.Steps, Step{Address: at.address, Rule: at.rule, Via: at.how})
	w.open[n] = true
	for _, target := range at.rule.Targets {
		if w.lookups++; w.lookups > maxLookups {
			return errTooMany
		}
		next, ok := follow(w.h, at.rule, target, at.address.Local)
		if !ok {
			continue
		}
		var err error
		if next.rule != nil {
			err = w.visit(next, depth+1)
		} else {
			err = w.end(next, target)
		}
		if err != nil {
			return err
		}
	}
	w.open[n] = false
	return nil
}

// end records a final target.
func (w *walk) end(at hop, target Target) error {
	f := Final{Target: target, Mailbox: at.how == Mailbox, Suffix: at.suffix}
	f.Address, f.KeepLocal = at.address, false
	if f.Mailbox {
		w.res.Steps = append(w.res.Steps, Step{Address: at.address, Via: at.how})
	}
	id := w.identity(f)
	if w.finals[id] {
		return nil
	}
	if len(w.finals) == maxFinals {
		return errTooMany
	}
	w.finals[id] = true
	w.res.Targets = append(w.res.Targets, f)
	return nil
}

// identity is the same for two final targets that would give one person the mail twice. The
// route makes no difference: the first rule that names an address decides it.
func (w *walk) identity(f Final) string {
	switch {
	case f.Pipe != nil:
		return "|" + strings.Join(f.Pipe, "\x00")
	case f.Mailbox:
		return "=" + f.Address.Key()
	case w.h.Table(f.Address.Domain) != nil:
		return ">" + f.Address.Key()
	}
	return ">" + f.Address.Local + "@" + f.Address.Domain
}
