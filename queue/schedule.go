package queue

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"relayd/reply"
)

// Run makes attempts until ctx ends. Those under way then have Grace to come to their end, for
// one that is cut off after the message was sent may deliver it twice.
func (q *Queue) Run(ctx context.Context) {
	attempts, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var running sync.WaitGroup
	defer func() {
		defer time.AfterFunc(q.opt.Grace, cut).Stop()
		running.Wait()
	}()
	var slots slots
	slots.init(q.opt.Workers, q.opt.PerGroup)
	for {
		work, next := q.store.Claim(q.opt.Now(), slots.left(), slots.take)
		for _, w := range work {
			running.Go(func() {
				defer q.poke()
				defer slots.release(w.Group)
				defer q.store.Done(w)
				q.attempt(attempts, w)
			})
		}
		if !q.wait(ctx, next) {
			return
		}
	}
}

// wait returns true when there may be work again, false when ctx has ended.
func (q *Queue) wait(ctx context.Context, next time.Time) bool {
	var due <-chan time.Time
	if !next.IsZero() {
		t := time.NewTimer(next.Sub(q.opt.Now()))
		defer t.Stop()
		due = t.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-q.wake:
	case <-due:
	}
	return ctx.Err() == nil
}

// slots bound the attempts at once: in all, and in one group, so that a destination that hangs
// holds up nobody else.
type slots struct {
	mu       sync.Mutex
	free     int
	perGroup int
	used     map[string]int
}

func (s *slots) init(all, perGroup int) { s.free, s.perGroup, s.used = all, perGroup, map[string]int{} }

func (s *slots) left() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.free
}

// take takes a slot in group if there is one.
func (s *slots) take(group string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.free == 0 || s.used[group] >= s.perGroup {
		return false
	}
	s.free--
	s.used[group]++
	return true
}

func (s *slots) release(group string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free++
	if s.used[group]--; s.used[group] == 0 {
		delete(s.used, group)
	}
}

// attempt makes one attempt and records what it came to.
func (q *Queue) attempt(ctx context.Context, w *Work) {
	now := q.opt.Now()
	started := map[int]Recipient{}
	for _, i := range w.Indexes {
		r := &w.Envelope.Recipients[i]
		r.Attempts++
		r.LastTry = now
		r.Next = now.Add(backoff(r.Attempts))
		if end := w.Envelope.Received.Add(q.opt.Lifetime); now.Before(end) && r.Next.After(end) {
			r.Next = end.Add(time.Second) // the last attempt, so that the sender hears of it in time
		}
		started[i] = *r
	}
	// Recorded first: a message that brings the process down must not be tried again at once,
	// for ever.
	if err := q.store.Update(w.Envelope.ID, started, false); err != nil {
		q.opt.Log.Error("an attempt could not be recorded", "id", w.Envelope.ID, "error", err.Error())
		return
	}
	q.settle(w, q.tryDeliver(ctx, w))
}

// tryDeliver keeps a panic in a delivery from reaching the process.
func (q *Queue) tryDeliver(ctx context.Context, w *Work) (outcomes []Outcome) {
	defer func() {
		if p := recover(); p != nil {
			q.opt.Log.Error("panic while delivering", "id", w.Envelope.ID, "panic", p, "stack", string(debug.Stack()))
			outcomes = nil
		}
		for len(outcomes) < len(w.Indexes) {
			outcomes = append(outcomes, Outcome{State: Waiting, Reply: reply.Internal(nil)})
		}
	}()
	return q.deliver.Deliver(ctx, w)
}

// settle records outcomes, after the DSNs that follow from them are safely in the queue.
func (q *Queue) settle(w *Work, outcomes []Outcome) {
	e := w.Envelope
	changes := map[int]Recipient{}
	var failed, delayed, relayed []int
	for n, i := range w.Indexes {
		o, r := outcomes[n], &e.Recipients[i]
		if len(o.Into) > 0 {
			q.expand(e, i, o.Into, changes)
			continue
		}
		r.State, r.LastHost = o.State, o.Host
		if o.Reply != nil {
			r.LastReply = o.Reply.String()
		}
		q.expire(e, r)
		switch {
		case r.State == Failed:
			failed = append(failed, i)
		case r.State == Delivered && slices.Contains(r.Notify, "SUCCESS") && !o.Reported:
			relayed = append(relayed, i)
		case r.State == Waiting && q.isLate(e, r):
			r.Delayed = true
			delayed = append(delayed, i)
		}
		changes[i] = *r
		q.logOutcome(e, r, o)
	}
	q.notify(e, failed, actionFailed)
	q.notify(e, relayed, actionRelayed)
	q.notify(e, delayed, actionDelayed)
	if err := q.store.Update(e.ID, changes, true); err != nil {
		q.opt.Log.Error("an outcome could not be recorded: the message will be tried again", "id", e.ID, "error", err.Error())
	}
}

// expand replaces recipient i by those that its address stands for: the first in its place.
func (q *Queue) expand(e *Envelope, i int, into []Recipient, changes map[int]Recipient) {
	for n, r := range into {
		r.State, r.Next = Waiting, q.opt.Now()
		if n == 0 {
			e.Recipients[i] = r
			changes[i] = r
			continue
		}
		e.Recipients = append(e.Recipients, r)
		changes[len(e.Recipients)-1] = r
	}
}

// expire turns a recipient that has waited for longer than Lifetime into a failed one. A clock
// that jumped cannot do it alone: the age must also be one that the attempts can explain.
func (q *Queue) expire(e *Envelope, r *Recipient) {
	if r.State == Waiting && q.opt.Now().Sub(e.Received) > q.opt.Lifetime && r.Attempts > 1 {
		r.State = Failed
		r.LastReply = "554 5.4.7 Given up after " + age(q.opt.Lifetime) + "; last: " + r.LastReply
	}
}

func (q *Queue) isLate(e *Envelope, r *Recipient) bool {
	return q.opt.DelayWarning > 0 && !r.Delayed && q.opt.Now().Sub(e.Received) > q.opt.DelayWarning
}

func (q *Queue) logOutcome(e *Envelope, r *Recipient, o Outcome) {
	attrs := []any{"id", e.ID, "to", "<" + r.Address.String() + ">", "host", o.Host, "reply", r.LastReply, "attempts", r.Attempts}
	if !r.Alias.IsNull() {
		attrs = append(attrs, "alias", r.Alias.String())
	}
	if o.Reply != nil && o.Reply.Cause != nil {
		attrs = append(attrs, "cause", o.Reply.Cause.Error())
	}
	switch r.State {
	case Delivered:
		q.opt.Log.Info("delivered", attrs...)
	case Failed:
		q.opt.Log.Warn("failed", attrs...)
	case Held:
		q.opt.Log.Warn("held: see `relay-util queue-show "+e.ID+"`", attrs...)
	default:
		q.opt.Log.Info("deferred", append(attrs, "next", r.Next.Format(time.RFC3339))...)
	}
}

// Retry times: RFC 5321 section 4.5.4.1 wants 30 minutes at least, which suits a destination
// that is down; greylisting and passing faults are over sooner.
const (
	firstRetry = 5 * time.Minute
	lastRetry  = 4 * time.Hour
)

// backoff is how long to wait after so many attempts (from 1): 5, 10, 20 … minutes up to 4
// hours, ±10 % so that what failed together does not come back together.
func backoff(attempts int) time.Duration {
	d := lastRetry
	if attempts < 7 {
		d = min(firstRetry<<(attempts-1), lastRetry)
	}
	return d - d/10 + rand.N(d/5)
}

// age says a duration as people do.
func age(d time.Duration) string {
	if d >= 48*time.Hour {
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	}
	return fmt.Sprintf("%d hours", max(1, int(d.Hours())))
}
