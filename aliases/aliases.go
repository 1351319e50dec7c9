// Package aliases reads the alias files of the hosted domains and answers where mail for an
// address goes. The syntax is chasquid's: one "name: target, target" a line, "*" for every name
// that nothing else takes, "address via host" for a fixed next hop, "*@domain" to keep the name.
//
// A rule may be temporary: from the moment it expires nothing takes mail for its name, the catch-all
// neither, without the file being read again.
//
// A file either parses whole or not at all, with every problem named by file and line, so a typo
// never half-applies. Cycles and over-long chains are found by Check when files are loaded, not
// when mail arrives; Resolve is bounded all the same.
//
// Names compare in lower case: RFC 5321 section 2.4 leaves the case of a local part to the host
// that owns the mailbox, which is us. Everything here is safe for concurrent use; only what the
// caller passes as Hosted has to be so itself.
package aliases

import (
	"strings"
	"time"
	"unicode"

	"relayd/address"
)

// Bounds of one alias file. They are far above what people write and low enough that a wrong
// file cannot eat the memory of the server.
const (
	maxFile     = 16 << 20 // bytes
	maxLine     = 64 << 10 // bytes, without the line end
	maxRules    = 1_000_000
	maxTargets  = maxFinals // a rule with more could never be resolved
	maxProblems = 1_000     // reported for one file; more help nobody
)

// Options are what a file's meaning depends on besides its text.
type Options struct {
	Domain           string // the domain of the file: A-labels, lower case
	SuffixSeparators string // each of these characters begins a suffix, as "+" in user+tag; may be empty
	DropCharacters   string // characters without meaning in a name, as "." in first.last; may be empty
	AllowPipe        bool   // whether "|command" is accepted as a target
	// Now says when a rule has expired, at each look-up; nil is time.Now.
	Now func() time.Time
}

// A Table is one parsed alias file. It never changes.
type Table struct {
	file     string
	opt      Options
	rules    []Rule
	exact    map[string]*Rule // by Left
	loose    map[string]*Rule // by Left without drop characters; no Left with a suffix separator
	catchAll *Rule            // nil when the file has none
	astray   []mark           // of names that have no rule
}

// Domain is the domain whose addresses t answers for.
func (t *Table) Domain() string { return t.opt.Domain }

// Rules are the rules in file order. The caller must not change them.
func (t *Table) Rules() []Rule { return t.rules }

// Rule returns the rule for a name, written as in Rule.Left.
func (t *Table) Rule(left string) (Rule, bool) {
	r := t.exact[left]
	if left == catchAllName {
		r = t.catchAll
	}
	if r == nil {
		return Rule{}, false
	}
	return *r, true
}

func (t *Table) now() time.Time {
	if t.opt.Now == nil {
		return time.Now()
	}
	return t.opt.Now()
}

// A Rule is one line of an alias file.
type Rule struct {
	Left    string // the name it is for, in lower case and unquoted; "*" is the catch-all
	File    string
	Line    int // from 1
	Targets []Target
	Expires time.Time // from then on nothing takes mail for Left; zero: never
	Note    string    // of a temporary rule: what it is for; may be empty

	keeps bool // some target keeps the local part
}

// Name is Left as a file has it, in quotes where it needs them.
func (r Rule) Name() string { return quoteLeft(r.Left) }

// String writes the rule as a line that Parse reads back, without a line end. When it expires
// stands in another line, and is not in it.
func (r Rule) String() string {
	var b strings.Builder
	b.WriteString(r.Name())
	sep := ": "
	for _, t := range r.Targets {
		b.WriteString(sep)
		b.WriteString(t.String())
		sep = ", "
	}
	return b.String()
}

// A Target is one destination of a rule: an address or, with Pipe set, a command.
type Target struct {
	Address   address.Address // its Local is "*" when KeepLocal is set; zero for a pipe
	KeepLocal bool            // "*@domain": the local part that mail came for is kept, with case and suffix
	Via       []string        // hosts to hand the mail to, tried in order; each is host, [ip], host:port or [ip]:port
	Pipe      []string        // the command and its arguments
}

// String writes the target as an alias file has it.
func (t Target) String() string {
	if t.Pipe != nil {
		return "|" + joinFields(t.Pipe)
	}
	s := t.Address.Domain
	if t.KeepLocal {
		s = catchAllName + "@" + s
	} else {
		s = quoteName(t.Address.Local) + "@" + s
	}
	if t.Via != nil {
		s += " via " + strings.Join(t.Via, "/")
	}
	return s
}

const catchAllName = "*"

// quoteName quotes a local part where an alias file needs it, which is more often than SMTP
// does: a leading "|", "#" or "*" would change what the line means.
func quoteName(local string) string {
	q := address.QuoteLocal(local)
	if q != local {
		return q
	}
	if strings.IndexAny(local, "|#*") == 0 || strings.ContainsFunc(local, unicode.IsSpace) {
		return `"` + local + `"`
	}
	return local
}

// withoutSuffix cuts the suffix off a name. A separator at the very start begins none, or
// nothing of the name would be left.
func (t *Table) withoutSuffix(name string) string {
	if i := strings.IndexAny(name, t.opt.SuffixSeparators); i > 0 {
		return name[:i]
	}
	return name
}

func (t *Table) hasSuffix(name string) bool {
	return strings.ContainsAny(name, t.opt.SuffixSeparators)
}

func (t *Table) withoutDrops(name string) string {
	if !strings.ContainsAny(name, t.opt.DropCharacters) {
		return name
	}
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(t.opt.DropCharacters, r) {
			return -1
		}
		return r
	}, name)
}
