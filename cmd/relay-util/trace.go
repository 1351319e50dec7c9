package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"

	"github.com/spf13/cobra"

	"relayd/address"
	"relayd/trace"
)

// A tracing is what the flags of trace say.
type tracing struct {
	about string // an ID or an address
	log   string // a file, "-" for standard input, "" for the journal
	since string
}

func (t *tool) trace() *cobra.Command {
	c := &cobra.Command{
		Use:   "trace ID|ADDR",
		Short: "Tell the whole life of a message, or of all from and to an address.",
		Long: "Tell the whole life of a message, or of all from and to an address, in order: from relayd's log, and from\n" +
			"the queue where it waits. The log is that of systemd's journal unless --log says where it is. A notice to the\n" +
			"sender is told of with the message that it is about. An address is found only if the log names addresses:\n" +
			"see privacy under [log] of relayd.toml.\n" +
			"Exits with 1 if nothing is known.",
		Example: "relay-util trace 1B2C3D4E5F6G7H8J\n  relay-util trace shop@example.com --since 2d\n  docker logs relayd 2>&1 | relay-util trace ID --log -",
	}
	asked := &tracing{}
	c.Flags().StringVar(&asked.log, "log", "", "read relayd's log from `FILE`, - is standard input")
	c.Flags().StringVar(&asked.since, "since", "7d", "how far to go back in the journal: an `AGE` like 90m or 3d")
	id := regexp.MustCompile(`^[A-Za-z0-9]{8,32}$`)
	check := func(c *cobra.Command, args []string) error {
		if err := between(1, 1)(c, args); err != nil {
			return err
		}
		asked.about = args[0]
		if _, err := address.Parse(asked.about); err != nil && !id.MatchString(asked.about) {
			return fmt.Errorf("%q is neither a message's ID nor an address", asked.about)
		}
		if _, err := parseAge(asked.since); err != nil {
			return fmt.Errorf("--since: %w", err)
		}
		return nil
	}
	return t.verb(c, check, func(ctx context.Context, _ []string) error { return t.tell(ctx, asked) })
}

// tell prints what the log and the queue know. Each makes do without the other.
func (t *tool) tell(ctx context.Context, asked *tracing) error {
	events, logged := t.fromLog(ctx, asked)
	waiting, queued := t.fromQueue(ctx, asked.about, events)
	if logged != nil && (queued != nil || len(waiting) == 0) {
		return errors.Join(logged, queued)
	}
	for _, err := range []error{logged, queued} {
		if err != nil {
			t.warn("%v", err)
		}
	}
	events = append(events, waiting...)
	slices.SortStableFunc(events, func(a, b trace.Event) int { return a.At.Compare(b.At) })
	if t.json {
		return cmp.Or(t.printJSON(append([]trace.Event{}, events...)), isNone(events))
	}
	if len(events) == 0 {
		t.say("nothing is known of %s", asked.about)
		return errNo
	}
	return t.printEvents(events)
}

func isNone(events []trace.Event) error {
	if len(events) == 0 {
		return errNo
	}
	return nil
}

// printEvents prints a line for each, with IDs if there are several.
func (t *tool) printEvents(events []trace.Event) error {
	several := slices.ContainsFunc(events, func(e trace.Event) bool { return e.ID != events[0].ID })
	tw := t.table()
	for _, e := range events {
		line := e.At.Local().Format("2006-01-02 15:04:05")
		if several {
			line += "\t" + cmp.Or(oneLine(e.ID), "-")
		}
		fmt.Fprintf(tw, "%s\t%s\n", line, oneLine(e.Text))
	}
	return tw.Flush()
}

// fromLog finds what the log says.
func (t *tool) fromLog(ctx context.Context, asked *tracing) ([]trace.Event, error) {
	open := func() (io.ReadCloser, error) { return os.Open(asked.log) }
	switch asked.log {
	case "":
		age, _ := parseAge(asked.since) // it was checked
		since := t.now().Add(-age)
		open = func() (io.ReadCloser, error) { return trace.Journal(ctx, since) }
	case "-":
		copied, err := trace.Spool(t.in)
		if err != nil {
			return nil, err
		}
		defer copied.Close()
		open = func() (io.ReadCloser, error) {
			_, err := copied.Seek(0, io.SeekStart)
			return io.NopCloser(copied), err
		}
	}
	events, more, err := trace.Find(open, asked.about)
	if more {
		t.warn("there is more than can be told: these are the newest lines")
	}
	if err != nil {
		return nil, fmt.Errorf("reading relayd's log: %w", err)
	}
	return events, nil
}

// fromQueue finds what the queue knows and the log did not say.
func (t *tool) fromQueue(ctx context.Context, about string, logged []trace.Event) ([]trace.Event, error) {
	client, err := t.daemon()
	if err != nil {
		return nil, err
	}
	return trace.Queue{Client: client, Now: t.now, When: t.when}.Find(ctx, about, logged)
}
