package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayd/control"
	"relayd/queue"
)

// A filter is what the flags say of the messages that are meant.
type filter struct {
	control.Filter
	older, younger string
}

// filterNames are the flags of a filter.
func filterNames() []string { return []string{"domain", "sender", "user", "state", "older", "younger"} }

// filterFlags gives a verb the flags of a filter, and has it refuse a wrong one before it is run.
func (t *tool) filterFlags(c *cobra.Command) *filter {
	f := &filter{}
	flags := c.Flags()
	flags.StringVar(&f.Domain, "domain", "", "only messages to `DOMAIN`, or to an alias in it")
	flags.StringVar(&f.Sender, "sender", "", "only messages from `ADDR`; a domain stands for all its addresses, <> for bounces")
	flags.StringVar(&f.User, "user", "", "only messages that were submitted by the user `ADDR`")
	flags.StringVar((*string)(&f.State), "state", "", "only messages with a recipient in that `STATE`, waiting or held")
	flags.StringVar(&f.older, "older", "", "only messages received longer than `AGE` ago, like 90m or 3d")
	flags.StringVar(&f.younger, "younger", "", "only messages received less than `AGE` ago")
	c.PreRunE = func(c *cobra.Command, _ []string) error {
		for _, name := range filterNames() {
			// Else a script with an unset variable would mean every message.
			if flag := c.Flag(name); flag.Changed && flag.Value.String() == "" {
				return fmt.Errorf("--%s is empty", name)
			}
		}
		return f.resolve(t.now())
	}
	return f
}

// resolve turns ages into times and checks the whole.
func (f *filter) resolve(now time.Time) error {
	for _, limit := range []struct {
		name, age string
		at        *time.Time
	}{{"older", f.older, &f.Before}, {"younger", f.younger, &f.After}} {
		if limit.age == "" {
			continue
		}
		d, err := parseAge(limit.age)
		if err != nil {
			return fmt.Errorf("--%s: %w", limit.name, err)
		}
		*limit.at = now.Add(-d)
	}
	return f.Check()
}

// noneSo is the answer where a filter lets nothing through.
const noneSo = "no message is so"

// given reports whether the filter limits anything.
func (f *filter) given() bool { return f.Filter != control.Filter{} }

// String says in words which messages are meant, for a question.
func (f *filter) String() string {
	var words []string
	for _, w := range []struct{ word, value string }{
		{"to", f.Domain}, {"from", f.Sender}, {"submitted by", f.User},
		{"older than", f.older}, {"younger than", f.younger},
	} {
		if w.value != "" {
			words = append(words, w.word+" "+w.value)
		}
	}
	if f.State == queue.Waiting {
		words = append(words, "that wait")
	} else if f.State == queue.Held {
		words = append(words, "that are held")
	}
	return strings.Join(words, ", ")
}

// parseAge reads a Go duration that may begin with days, as in 3d or 1d12h.
func parseAge(s string) (time.Duration, error) {
	wrong := fmt.Errorf("%q is no age: write 90m, 12h or 3d", s)
	days, rest, ok := strings.Cut(s, "d")
	if !ok {
		days, rest = "0", s
	}
	n, err := strconv.ParseUint(days, 10, 16)
	if err != nil {
		return 0, wrong
	}
	d := time.Duration(n) * 24 * time.Hour
	if rest != "" {
		more, err := time.ParseDuration(rest)
		if err != nil || more < 0 {
			return 0, wrong
		}
		d += more
	}
	if d <= 0 {
		return 0, errors.New("an age is more than nothing")
	}
	return d, nil
}
