package main

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"relayd/aliases"
	"relayd/domains"
)

// A lifespan is what the flags of alias-add say of a temporary alias.
type lifespan struct {
	flag, note string
	end        time.Time // zero: the alias is for good
}

func (t *tool) lifespanFlags(c *cobra.Command) *lifespan {
	l := &lifespan{}
	c.Flags().StringVar(&l.flag, "expires", "", "take no mail for it any more after an `AGE` like 30d or 12h, or after a day like 2026-12-31 (UTC)")
	c.Flags().StringVar(&l.note, "note", "", "with --expires: what the alias is for; `TEXT` is shown by alias-list")
	c.PreRunE = func(c *cobra.Command, _ []string) error {
		switch {
		case c.Flag("expires").Changed:
			return l.resolve(t.now())
		case c.Flag("note").Changed:
			return errors.New("--note belongs to --expires")
		}
		return nil
	}
	return l
}

// resolve turns the flag into a time.
func (l *lifespan) resolve(now time.Time) error {
	if age, err := parseAge(l.flag); err == nil {
		l.end = now.Add(age)
		return nil
	}
	end, err := aliases.ParseExpiry(l.flag)
	switch {
	case err != nil:
		return fmt.Errorf("--expires: %q is neither an age like 30d or 12h nor a day like 2026-12-31", l.flag)
	case !end.After(now):
		return fmt.Errorf("--expires: %s is over", l.flag)
	}
	l.end = end
	return nil
}

// apply makes a rule temporary if the flags say so.
func (l *lifespan) apply(r aliases.Rule) (aliases.Rule, error) {
	if l.end.IsZero() {
		return r, nil
	}
	return r.Temporary(l.end, l.note)
}

// renewed is the text of an alias file without the rule that r is to stand in for: one that has
// expired or is about to, if r is to expire as well. To have it for good without a word would undo
// what somebody meant, and so would other targets while it still gets mail.
func (t *tool) renewed(w world, d *domains.Domain, old []byte, r aliases.Rule) ([]byte, error) {
	file := w.file(d.Name, "aliases")
	table, err := aliases.Parse(file, bytes.NewReader(old), w.options(d))
	if err != nil {
		return old, nil // what is wrong with it is said of the new text
	}
	was, ok := table.Rule(r.Left)
	switch {
	case !ok || was.Expires.IsZero():
		return old, nil
	case !was.Expired(t.now()) && (r.Expires.IsZero() || r.String() != was.String()):
		return old, nil
	case r.Expires.IsZero():
		name := wholeLeft(r.Left, d.Name)
		return nil, fmt.Errorf("%s %s (%s:%d): renew it with --expires, or take it out first with `relay-util alias-remove '%[1]s'`", name, t.expiry(was), file, was.Line)
	}
	return aliases.Remove(old, was.Name())
}

// expiry says when a temporary rule expires, or when it did; "" for any other.
func (t *tool) expiry(r aliases.Rule) string {
	now := t.now()
	switch {
	case r.Expires.IsZero():
		return ""
	case r.Expired(now):
		return "expired " + inWords(now.Sub(r.Expires)) + " ago"
	}
	return "expires in " + inWords(roundedUp(r.Expires.Sub(now)))
}

// roundedUp is d as somebody would say it who has just asked for a little more.
func roundedUp(d time.Duration) time.Duration {
	unit := time.Minute
	switch {
	case d > 47*time.Hour:
		unit = 24 * time.Hour
	case d > 59*time.Minute:
		unit = time.Hour
	}
	if rest := d % unit; rest > 0 && d+unit > 0 { // the longest durations have no room for more
		d += unit - rest
	}
	return d
}

// inWords writes a duration in its largest fitting unit, as in "29 days".
func inWords(d time.Duration) string {
	switch {
	case d < time.Minute:
		return "less than a minute"
	case d < time.Hour:
		return count(int(d/time.Minute), "minute")
	case d < 48*time.Hour:
		return count(int(d/time.Hour), "hour")
	}
	return count(int(d/(24*time.Hour)), "day")
}
