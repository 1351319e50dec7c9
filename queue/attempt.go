package queue

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"relayd/reply"
)

// attempt makes one attempt and records what it came to.
func (q *Queue) attempt(ctx context.Context, w *Work) {
	defer q.containWork(w)
	try := q.begin(w)
	if try == nil {
		return
	}
	q.settle(try, q.try(ctx, try))
}

// try makes an attempt whose slot is taken, and learns from it. It returns one outcome for each of
// w.Indexes.
func (q *Queue) try(ctx context.Context, w *Work) []Outcome {
	q.counters.running.Add(1)
	defer q.counters.running.Add(-1)
	x, began := experience{round: q.slots.round(w.Group)}, q.now()
	x.outcomes = q.tryDeliver(ctx, w)
	x.took = max(0, q.now().Sub(began))
	q.slots.heed(w.Group, x)
	return x.outcomes
}

// begin records an attempt before it is made: a message that brings the process down must not
// be tried again at once, for ever. It returns the work with the recipients as recorded, without
// those that were held since it was claimed; nil if nothing is left.
func (q *Queue) begin(w *Work) *Work {
	id := w.Envelope.ID
	defer q.locks.lock(id)()
	e := q.store.Get(id)
	if e == nil {
		return nil
	}
	try := &Work{Envelope: e, Group: w.Group, Body: w.Body, before: map[int]Status{}}
	changes := map[int]Recipient{}
	now, chance := q.now(), rand.Float64()
	for _, i := range w.Indexes {
		r := &e.Recipients[i]
		if !r.Scheduled() {
			continue
		}
		try.before[i] = r.Status
		q.count(e, r, now, chance)
		changes[i] = *r
		try.Indexes = append(try.Indexes, i)
	}
	if len(changes) == 0 {
		return nil
	}
	err := q.store.Update(id, changes, false)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		// It is made all the same: where the disk is full, delivery is what makes room.
		q.opt.Log.Error("an attempt could not be recorded", "id", id, "error", err.Error())
	}
	return try
}

// tryDeliver returns one outcome for each of w.Indexes, whatever the deliverer does.
func (q *Queue) tryDeliver(ctx context.Context, w *Work) (outcomes []Outcome) {
	defer func() { outcomes = complete(w, outcomes) }()
	defer func() {
		if p := recover(); p != nil {
			q.logPanic(w.Envelope.ID, p)
			outcomes = nil
			for range w.Indexes {
				outcomes = append(outcomes, Outcome{State: Waiting, Reply: reply.Internal(nil), Class: panicked})
			}
		}
	}()
	return q.deliver.Deliver(ctx, w)
}

// panicked is the Class of what a panic came to. Once may be chance; who brings us to it a second time
// in a row is held until the admin has seen to it, for it would do so at every attempt. A bounce would
// blame somebody else for it.
const (
	panicked  = "panic"
	maxPanics = 2
)

// holdAfterPanics notes one more panic over a recipient, and reports whether that was one too many: then
// it is held until somebody releases it.
func (r *Recipient) holdAfterPanics() bool {
	if r.Same < maxPanics {
		return false
	}
	r.State, r.Next, r.Same = Held, time.Time{}, 0
	r.LastReply += " (held: it has made relayd fail repeatedly, see its log)"
	return true
}

// HeldAfterPanics reports whether that holds it, and not the admin.
func (s Status) HeldAfterPanics() bool {
	return s.State == Held && s.Class == panicked && s.Same == 0
}

// containWork is contain for one attempt, outside of the deliverer: what was not settled counts as
// tried, and its panics are counted too. It is to be deferred.
func (q *Queue) containWork(w *Work) {
	p := recover()
	if p == nil {
		return
	}
	defer q.contain(w.Envelope.ID)
	q.logPanic(w.Envelope.ID, p)
	defer q.locks.lock(w.Envelope.ID)()
	e := q.store.Get(w.Envelope.ID)
	if e == nil {
		return
	}
	changes := map[int]Recipient{}
	for _, i := range w.Indexes {
		r := e.Recipients[i]
		if !r.Scheduled() {
			continue
		}
		r.classify(panicked)
		r.LastReply, r.Trying = reply.Internal(nil).String(), false
		r.holdAfterPanics()
		changes[i] = r
	}
	if err := q.store.Update(w.Envelope.ID, changes, false); err != nil {
		q.opt.Log.Error("a panic could not be recorded", "id", w.Envelope.ID, "error", err.Error())
	}
}

// classify counts outcomes of the same class in a row.
func (r *Recipient) classify(class string) {
	if r.Class != class {
		r.Class, r.Same = class, 0
	}
	r.Same++
}

// complete adds what is missing of the outcomes: those recipients are tried again.
func complete(w *Work, outcomes []Outcome) []Outcome {
	for len(outcomes) < len(w.Indexes) {
		outcomes = append(outcomes, Outcome{State: Waiting, Reply: reply.Internal(nil)})
	}
	return outcomes
}

// A settlement is what follows from an attempt.
type settlement struct {
	e       *Envelope // as it is now, with what follows
	now     time.Time
	changes map[int]Recipient
	again   map[int]Recipient // those that failed, as they are if the sender cannot be told
	relayed []int
	delayed []int
}

// settle records outcomes, after the DSNs that follow from them are safely in the queue. What the
// admin has asked for since the attempt began is kept.
func (q *Queue) settle(w *Work, outcomes []Outcome) {
	id := w.Envelope.ID
	defer q.locks.lock(id)()
	e := q.store.Get(id)
	if e == nil {
		q.opt.Log.Info("a message was removed while it was tried", "id", id)
		return
	}
	s := &settlement{e: e, now: q.now(), changes: map[int]Recipient{}, again: map[int]Recipient{}}
	for n, i := range w.Indexes {
		if was := &w.Envelope.Recipients[i]; outcomes[n].Until.IsZero() {
			q.judge(s, i, was, outcomes[n])
		} else {
			s.postpone(i, was, w.before[i], outcomes[n].Until)
		}
	}
	q.tell(s)
	sync := false // that a message waits on may be forgotten in a power cut: it is tried again then
	for _, i := range w.Indexes {
		r := e.Recipients[i]
		s.changes[i] = r
		sync = sync || r.done() || r.Expanded > 0
	}
	// Recorded before anything is said of it: until then a crash makes a duplicate.
	if err := q.store.Update(id, s.changes, sync); err != nil {
		q.opt.Log.Error("an outcome could not be recorded: after a restart the message may be tried again", "id", id, "error", err.Error())
	}
	if q.opt.Settled != nil {
		q.opt.Settled(e, w.Indexes, outcomes)
	}
	for n, i := range w.Indexes {
		r := &e.Recipients[i]
		if !outcomes[n].Until.IsZero() {
			q.opt.Log.Debug("waits for a limit", "id", id, "to", "<"+r.Address.String()+">", "next", r.Next.Format(time.RFC3339))
			continue
		}
		if r.Expanded == w.Envelope.Recipients[i].Expanded {
			q.counters.count(r.State)
			q.logOutcome(e, r, outcomes[n])
			q.report(Failure{Envelope: e, Recipient: r})
		}
	}
}

// report tells of a recipient, if it has failed.
func (q *Queue) report(f Failure) {
	if q.opt.Failed != nil && f.Recipient.State == Failed {
		q.opt.Failed(f)
	}
}

// postpone undoes that recipient i was counted as tried. was is how the attempt found it, and before
// how it was until then.
func (s *settlement) postpone(i int, was *Recipient, before Status, until time.Time) {
	r := &s.e.Recipients[i]
	r.Trying = false
	r.Attempts, r.Tried, r.LastTry = before.Attempts, before.Tried, before.LastTry
	if r.State == was.State && r.Next.Equal(was.Next) { // else the admin wants something else
		r.Next, r.Asked = until.Round(0), false // who asked has been heard
	}
}

// judge brings recipient i to where outcome o has it. was is how the attempt found it.
func (q *Queue) judge(s *settlement, i int, was *Recipient, o Outcome) {
	r := &s.e.Recipients[i]
	r.Trying = false
	asked := r.State != was.State || !r.Next.Equal(was.Next) // the admin, for something else
	if !asked {
		r.State, r.Asked = Waiting, false
		r.Next = s.now.Add(was.Next.Sub(was.LastTry)) // the wait begins when the attempt has ended
	}
	if len(o.Into) > 0 {
		if r.Expanded < maxExpansions {
			s.expand(i, o.Into)
			return
		}
		o.State, o.Reply = Failed, reply.New(554, "5.4.6", "Mail for %s is forwarded in a circle", r.name())
	}
	r.LastHost = o.Host
	said := ""
	if o.Reply != nil {
		said = o.Reply.String()
		r.LastReply = said
	}
	if o.Class != "" {
		r.classify(o.Class)
	}
	if o.Attempts > 0 && r.Same >= o.Attempts && !asked && o.State == Waiting {
		o.State = Failed
	}
	r.History = remember(r.History, was.LastTry, o.Host, said)
	switch {
	case o.State == Delivered:
		r.State = Delivered
		if slices.Contains(r.Notify, "SUCCESS") && !o.Reported {
			s.relayed = append(s.relayed, i)
		}
	case o.State == Failed:
		s.again[i] = *r
		r.State = Failed
	case o.Class == panicked && r.holdAfterPanics():
	case asked:
	case o.State == Held && !q.expired(r):
		r.State, r.Next = Held, s.now.Add(lastRetry)
	case q.expired(r):
		s.again[i] = *r
		r.State = Failed
		r.LastReply = "554 5.4.7 Given up after " + age(q.opt.Lifetime) + "; last: " + r.LastReply
	case q.late(s.e, r, s.now):
		s.delayed = append(s.delayed, i)
	}
}

// maxExpansions bounds how often a recipient leads to others, for each time is at once after the
// one before. Alias files are free of circles, but two versions of one together may hold one.
const maxExpansions = 10

// expand replaces recipient i by those that its address stands for: the first in its place.
func (s *settlement) expand(i int, into []Recipient) {
	old := s.e.Recipients[i]
	for n, r := range into {
		r.Next = s.now
		switch {
		case !old.Scheduled(): // the admin holds it, since the attempt began
			r.State, r.Next = Held, time.Time{}
		case r.State == "":
			r.State = Waiting
		case r.State == Held:
			r.Next = s.now.Add(lastRetry)
		}
		r.Tried, r.Delayed, r.Expanded = old.Tried, old.Delayed, old.Expanded+1
		if !old.Alias.IsNull() {
			r.Alias = old.Alias
		}
		if n == 0 {
			s.e.Recipients[i] = r
			continue
		}
		s.e.Recipients = append(s.e.Recipients, r)
		s.changes[len(s.e.Recipients)-1] = r
	}
}

// tell sends the DSNs that are due. Who failed and cannot be told of now is tried again: a
// failure that nobody hears of is a loss.
func (q *Queue) tell(s *settlement) {
	if err := q.notify(s.e, slices.Sorted(maps.Keys(s.again)), actionFailed); err != nil {
		for i, r := range s.again {
			if wants(&r, actionFailed) {
				s.e.Recipients[i] = r
			}
		}
	}
	q.notify(s.e, s.relayed, actionRelayed)
	if err := q.notify(s.e, s.delayed, actionDelayed); err == nil {
		for _, i := range s.delayed {
			s.e.Recipients[i].Delayed = true
		}
	}
}

func (q *Queue) logOutcome(e *Envelope, r *Recipient, o Outcome) {
	attrs := []any{"id", e.ID, "to", "<" + r.Address.String() + ">", "host", o.Host, "reply", r.LastReply, "attempts", r.Attempts}
	if o.TLS != "" {
		attrs = append(attrs, "tls", o.TLS)
	}
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
		if o.Reply != nil && o.Reply.Enhanced == "4.7.8" {
			q.opt.Log.Error("a server refuses our login: nothing leaves through it until that is mended", "host", o.Host, "reply", r.LastReply)
		}
		q.opt.Log.Info("deferred", append(attrs, "next", r.Next.Format(time.RFC3339))...)
	}
}
