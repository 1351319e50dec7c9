package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayd/address"
	"relayd/control"
	"relayd/queue"
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
		open = func() (io.ReadCloser, error) { return journal(ctx, since) }
	case "-":
		copied, err := spool(t.in)
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

// spool keeps what can be read only once in a file without a name.
func spool(in io.Reader) (*os.File, error) {
	f, err := os.CreateTemp("", "relay-util-")
	if err != nil {
		return nil, err
	}
	if _, err = io.Copy(f, in); err == nil {
		err = os.Remove(f.Name())
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("keeping the log: %w", err)
	}
	return f, nil
}

// journal reads the log of relayd's unit from systemd's journal.
func journal(ctx context.Context, since time.Time) (io.ReadCloser, error) {
	cmd := exec.CommandContext(ctx, "journalctl", "--unit=relayd", "--output=short-unix", "--no-pager", "--quiet", "--since="+since.Local().Format("2006-01-02 15:04:05"))
	said := &bytes.Buffer{}
	cmd.Stderr = said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); errors.Is(err, exec.ErrNotFound) {
		return nil, errors.New("there is no journal here: say where the log is with --log FILE, or --log - for standard input")
	} else if err != nil {
		return nil, err
	}
	return &journalReader{out, cmd, said}, nil
}

// A journalReader is what journalctl writes. Close waits for its end.
type journalReader struct {
	io.ReadCloser
	cmd  *exec.Cmd
	said *bytes.Buffer
}

func (r *journalReader) Close() error {
	r.ReadCloser.Close() // where it has not been read to its end, so that journalctl ends
	if err := r.cmd.Wait(); err != nil {
		return fmt.Errorf("journalctl: %w: %s", err, strings.TrimSpace(r.said.String()))
	}
	return nil
}

// maxTraced is how many messages of an address are asked for in the queue.
const maxTraced = 1000

// fromQueue is what the queue knows and the log did not say: how messages stand that wait, and
// attempts from before the log begins.
func (t *tool) fromQueue(ctx context.Context, about string, logged []trace.Event) ([]trace.Event, error) {
	client, err := t.daemon()
	if err != nil {
		return nil, err
	}
	ids := map[string]bool{}
	if strings.Contains(about, "@") {
		err = waitingFor(ctx, client, about, ids)
	} else {
		ids[about] = true
	}
	began := map[string]time.Time{} // when the log of a message begins
	for _, e := range logged {
		if began[e.ID].IsZero() && e.ID != "" {
			began[e.ID] = e.At
			ids[e.ID] = len(ids) < maxTraced || ids[e.ID]
		}
	}
	var events []trace.Event
	for id, ask := range ids {
		if err != nil || !ask {
			continue
		}
		d, failed := client.Show(ctx, id)
		if errors.Is(failed, queue.ErrNotFound) {
			continue
		}
		if err = failed; err == nil {
			events = append(events, t.waits(d, began[id])...)
		}
	}
	return events, err
}

// waitingFor adds the messages in the queue that are from or to an address.
func waitingFor(ctx context.Context, client *control.Client, about string, ids map[string]bool) error {
	a, err := address.Parse(about)
	if err != nil {
		return err
	}
	err = client.List(ctx, control.Filter{Sender: about}, maxTraced, func(m control.Message) bool {
		ids[m.ID] = true
		return true
	})
	return errors.Join(err, client.List(ctx, control.Filter{Domain: a.Domain}, 0, func(m control.Message) bool {
		if slices.ContainsFunc(m.Recipients, func(r control.Recipient) bool {
			return strings.EqualFold(r.Address, about) || strings.EqualFold(r.Alias, about)
		}) {
			ids[m.ID] = true
		}
		return len(ids) < maxTraced
	}))
}

// waits tells how a message in the queue stands, and what it has gone through before the log begins.
func (t *tool) waits(d control.Detail, began time.Time) (events []trace.Event) {
	note := func(at time.Time, what, format string, args ...any) {
		events = append(events, trace.Event{At: at, ID: d.ID, What: what, Text: fmt.Sprintf(format, args...)})
	}
	if began.IsZero() || d.Received.Before(began.Add(-time.Minute)) { // while the sender waits the log may begin late
		note(d.Received, "received", "received from <%s>, %d bytes", d.Sender, d.Size)
	}
	for _, r := range d.Recipients {
		for _, run := range r.History {
			if !began.IsZero() && !run.Last.Before(began.Truncate(time.Second)) {
				continue
			}
			text := fmt.Sprintf("tried for <%s>, at %s: %s", r.Address, cmp.Or(run.Host, "no server"), run.Reply)
			if run.Count > 1 {
				text += fmt.Sprintf(" (%d times until %s)", run.Count, run.Last.Local().Format("2006-01-02 15:04:05"))
			}
			note(run.First, "tried", "%s", text)
		}
		switch {
		case r.Trying:
			note(t.now(), "trying", "is being tried for <%s>", r.Address)
		case r.State == string(queue.Held):
			note(t.now(), "held", "is held for <%s>: see `relay-util queue-show %s`", r.Address, d.ID)
		case r.State == string(queue.Waiting):
			note(t.now(), "waiting", "waits for <%s> after %s, next %s", r.Address, count(r.Attempts, "attempt"), t.when(r.Next))
		}
	}
	return events
}
