package aliases

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// A temporary rule has a comment line of its own, a mark, which chasquid skips like any other:
//
//	# relayd: shop7 expires 2026-12-22T10:30:00Z, the shop on 7th street
//
// The mark names its rule instead of standing at it, because lines that people sort, move and take
// out would otherwise make the next rule end. One without a rule does nothing but warn.
const markWord = "relayd:"

// maxNote is the longest note of a temporary rule that is written, in bytes.
const maxNote = 500

// A mark is what one such line says.
type mark struct {
	name    string // as Rule.Left
	line    int
	expires time.Time
	note    string
}

// An ExpiredError is the ErrNoSuchAddress of an address whose rule has expired.
type ExpiredError struct{ Rule *Rule }

func (e *ExpiredError) Error() string {
	return fmt.Sprintf("%s:%d: the alias %s has expired (%s)", e.Rule.File, e.Rule.Line, quoteLeft(e.Rule.Left), formatExpiry(e.Rule.Expires))
}

// Unwrap makes an ExpiredError an ErrNoSuchAddress.
func (e *ExpiredError) Unwrap() error { return ErrNoSuchAddress }

// Expired reports whether the rule is temporary and takes no mail at now any more.
func (r *Rule) Expired(now time.Time) bool { return !r.Expires.IsZero() && !now.Before(r.Expires) }

// Temporary is the rule with an end, in whole seconds, and a note, which may be empty. It returns
// an error for what could not be read again from a file.
func (r Rule) Temporary(expires time.Time, note string) (Rule, error) {
	note = strings.Trim(note, blanks)
	if len(note) > maxNote {
		return Rule{}, fmt.Errorf("the note has %d bytes, and %d are allowed", len(note), maxNote)
	}
	r.Expires, r.Note = expires.UTC().Truncate(time.Second), note
	if _, err := ParseExpiry(formatExpiry(r.Expires)); err != nil {
		return Rule{}, err
	}
	return r, checkNote(note)
}

// mark is the line that makes r temporary, without a line end.
func (r *Rule) mark() string {
	s := "# " + markWord + " " + quoteLeft(r.Left) + " expires " + formatExpiry(r.Expires)
	if r.Note != "" {
		s += ", " + r.Note
	}
	return s
}

// ParseExpiry reads the end of a temporary rule: a time as in RFC 3339, or a date, which is the
// last day, in UTC, on which the rule takes mail. Years go from 2000 to 2999.
func ParseExpiry(s string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		if at, err = time.Parse(time.DateOnly, s); err == nil {
			at = at.AddDate(0, 0, 1)
		}
	}
	at = at.UTC().Truncate(time.Second)
	if err != nil || at.Year() < 2000 || at.Year() > 2999 {
		return time.Time{}, fmt.Errorf("%q is neither a date like 2026-12-31 nor a time like 2026-12-31T18:00:00Z", s)
	}
	return at, nil
}

// formatExpiry writes an end as ParseExpiry reads it, the end of a day in UTC as a date.
func formatExpiry(at time.Time) string {
	at = at.UTC()
	if at.Equal(at.Truncate(24 * time.Hour)) {
		return at.AddDate(0, 0, -1).Format(time.DateOnly)
	}
	return at.Format(time.RFC3339)
}

// cutMark returns what follows the word of a mark in a comment.
func cutMark(comment string) (string, bool) {
	s, ok := strings.CutPrefix(strings.Trim(comment, blanks), "#")
	if !ok {
		return "", false
	}
	return strings.CutPrefix(strings.TrimLeft(s, blanks), markWord)
}

// parseMark reads what follows the word of a mark.
func parseMark(text, domain string) (mark, error) {
	head, note := text, ""
	if i, _ := indexUnquoted(text, func(i int) bool { return text[i] == ',' }); i >= 0 {
		head, note = text[:i], strings.Trim(text[i+1:], blanks)
	}
	words := fields(head)
	if len(words) != 3 || words[1] != "expires" {
		return mark{}, errors.New("a comment that begins with " + markWord + " is written # " + markWord + " NAME expires 2026-12-31, and a note")
	}
	name, err := leftName(words[0], domain)
	if err != nil {
		return mark{}, err
	}
	expires, err := ParseExpiry(words[2])
	if err != nil {
		return mark{}, err
	}
	return mark{name: name, expires: expires, note: note}, checkNote(note)
}

// checkNote keeps out what would end the line, or do something to the terminal that shows it.
func checkNote(note string) error {
	if !utf8.ValidString(note) || strings.ContainsFunc(note, unicode.IsControl) {
		return fmt.Errorf("%q: a control character, or bytes that are no UTF-8, in a note", note)
	}
	return nil
}

// mark notes what a comment says of a rule; before is what stands in front of it in its line.
func (p *parser) mark(before, comment string) {
	text, ok := cutMark(comment)
	if !ok {
		return
	}
	if strings.Trim(before, blanks) != "" {
		p.complain(p.line, "a comment that begins with %s stands on a line of its own", markWord)
		return
	}
	m, err := parseMark(text, p.t.opt.Domain)
	if err != nil {
		p.complain(p.line, "%v", err)
		return
	}
	if first, twice := p.marks[m.name]; twice {
		p.complain(p.line, "when %s expires stands already on line %d", quoteLeft(m.name), first.line)
		return
	}
	m.line = p.line
	p.marks[m.name] = m
}

// bind gives the rules what the marks say of them; what is left of the marks has no rule.
func (p *parser) bind() {
	for i := range p.t.rules {
		r := &p.t.rules[i]
		if m, ok := p.marks[r.Left]; ok {
			r.Expires, r.Note = m.expires, m.note
			delete(p.marks, r.Left)
		}
	}
	for _, m := range p.marks {
		p.t.astray = append(p.t.astray, m)
	}
	slices.SortFunc(p.t.astray, func(a, b mark) int { return a.line - b.line })
}
