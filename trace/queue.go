package trace

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"relayd/address"
	"relayd/control"
	"relayd/queue"
)

// maxAsked is how many messages are asked for in the queue.
const maxAsked = 1000

// A Queue is that of a running relayd.
type Queue struct {
	Client *control.Client
	Now    func() time.Time
	When   func(at time.Time) string // says when something is to be, in words
}

// Find returns what the queue knows of about and of the messages in logged, and the log did not say: how
// messages stand that wait, and attempts from before the log begins. They are in no order. With an error
// come those that were found before it.
func (q Queue) Find(ctx context.Context, about string, logged []Event) ([]Event, error) {
	var err error
	ids := map[string]bool{}
	if strings.Contains(about, "@") {
		err = waitingFor(ctx, q.Client, about, ids)
	} else {
		ids[about] = true
	}
	began := map[string]time.Time{} // when the log of a message begins
	for _, e := range logged {
		if began[e.ID].IsZero() && e.ID != "" {
			began[e.ID] = e.At
			ids[e.ID] = len(ids) < maxAsked || ids[e.ID]
		}
	}
	var events []Event
	for id, ask := range ids {
		if err != nil || !ask {
			continue
		}
		d, failed := q.Client.Show(ctx, id)
		if errors.Is(failed, queue.ErrNotFound) {
			continue
		}
		if err = failed; err == nil {
			events = append(events, q.waits(d, began[id])...)
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
	err = client.List(ctx, control.Filter{Sender: about}, maxAsked, func(m control.Message) bool {
		ids[m.ID] = true
		return true
	})
	return errors.Join(err, client.List(ctx, control.Filter{Domain: a.Domain}, 0, func(m control.Message) bool {
		if slices.ContainsFunc(m.Recipients, func(r control.Recipient) bool {
			return strings.EqualFold(r.Address, about) || strings.EqualFold(r.Alias, about)
		}) {
			ids[m.ID] = true
		}
		return len(ids) < maxAsked
	}))
}

// waits tells how a message in the queue stands, and what it has gone through before the log begins.
func (q Queue) waits(d control.Detail, began time.Time) (events []Event) {
	note := func(at time.Time, what, format string, args ...any) {
		events = append(events, Event{At: at, ID: d.ID, What: what, Text: fmt.Sprintf(format, args...)})
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
			at := run.First
			if at.Before(d.Received) { // in the same second, to which runs are kept
				at = d.Received
			}
			note(at, "tried", "%s", text)
		}
		switch {
		case r.Trying:
			note(q.Now(), "trying", "is being tried for <%s>", r.Address)
		case r.State == string(queue.Held):
			note(q.Now(), "held", "is held for <%s>: see `relay-util queue-show %s`", r.Address, d.ID)
		case r.State == string(queue.Waiting):
			note(q.Now(), "waiting", "waits for <%s> after %s, next %s", r.Address, attempts(r.Attempts), q.When(r.Next))
		}
	}
	return events
}

func attempts(n int) string {
	if n == 1 {
		return "1 attempt"
	}
	return fmt.Sprintf("%d attempts", n)
}
