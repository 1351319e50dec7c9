package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"relayd/control"
	"relayd/queue"
)

func (t *tool) queueShow() *cobra.Command {
	c := &cobra.Command{
		Use:     "queue-show ID",
		Short:   "Show a message: its recipients with every attempt and what their servers said, and its header.",
		Example: "relay-util queue-show 1B2C3D4E5F6G7H8J",
	}
	return t.ask(c, between(1, 1), func(ctx context.Context, client *control.Client, args []string) error {
		d, err := client.Show(ctx, args[0])
		if err != nil {
			return err
		}
		if t.json {
			return t.printJSON(d)
		}
		return t.printDetail(d)
	})
}

func (t *tool) printDetail(d control.Detail) error {
	tw := t.table()
	fmt.Fprintf(tw, "id:\t%s\nsender:\t%s\n", d.ID, sender(d.Message))
	if d.User != "" {
		fmt.Fprintf(tw, "user:\t%s\n", oneLine(d.User))
	}
	fmt.Fprintf(tw, "received:\t%s\nsize:\t%s\nstate:\t%s\nnext:\t%s\n", t.when(d.Received), size(d.Size), state(d.State, d.ByAdmin), t.next(d.Message))
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, r := range d.Recipients {
		if err := t.printRecipient(r); err != nil {
			return err
		}
	}
	if d.Header != "" {
		t.say("\n%s", strings.TrimRight(plain(strings.ReplaceAll(d.Header, "\r\n", "\n")), "\n"))
	}
	if d.Unreadable != "" {
		t.say("\nits header cannot be read: %s", oneLine(d.Unreadable))
	}
	return nil
}

func (t *tool) printRecipient(r control.Recipient) error {
	t.say("\n%s", oneLine(r.Address))
	if r.Alias != "" {
		t.say("  for %s", oneLine(r.Alias))
	}
	line := fmt.Sprintf("  %s after %s", state(r.State, r.ByAdmin), count(r.Attempts, "attempt"))
	switch {
	case r.Trying:
		line += ", the last of them is under way"
	case !r.Next.IsZero():
		line += ", next " + t.when(r.Next)
	}
	t.say("%s", line)
	// The last reply is that of the history, unless the queue has given up with words of its own.
	if n := len(r.History); r.LastReply != "" && (n == 0 || !strings.HasPrefix(r.LastReply, r.History[n-1].Reply)) {
		t.printLastReply(r)
	}
	return t.printHistory(r)
}

// printHistory prints the attempts that have ended. Of very many some behind the first are not
// kept.
func (t *tool) printHistory(r control.Recipient) error {
	missing := r.Attempts
	if r.Trying {
		missing--
	}
	for _, run := range r.History {
		missing -= run.Count
	}
	tw := t.table()
	for i, run := range r.History {
		t.printRun(tw, run)
		if i == 0 && missing > 0 {
			fmt.Fprintf(tw, "  and %s of which nothing is kept\t\t\n", count(missing, "attempt"))
		}
	}
	return tw.Flush()
}

func (t *tool) printLastReply(r control.Recipient) {
	line := "  last reply"
	if r.LastHost != "" {
		line += " of " + oneLine(r.LastHost)
	}
	if !r.LastTry.IsZero() {
		line += ", " + t.when(r.LastTry)
	}
	t.say("%s: %s", line, oneLine(r.LastReply))
}

// printRun prints attempts that came to the same as a row: when, how often, where, and what was said.
func (t *tool) printRun(tw *tabwriter.Writer, run queue.Run) {
	const clock = "Jan _2 15:04:05"
	when := run.First.Local().Format(clock)
	if run.Count > 1 {
		when += fmt.Sprintf(" to %s, %d times", run.Last.Local().Format(clock), run.Count)
	}
	host, said := oneLine(run.Host), oneLine(run.Reply)
	if host == "" {
		host = "-"
	}
	fmt.Fprintf(tw, "  %s\t%s\t%s\n", when, host, said)
}
