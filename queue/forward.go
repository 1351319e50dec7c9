package queue

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"relayd/reply"
)

// An Offer is a message that nobody has answered for yet.
type Offer struct {
	Envelope *Envelope
	// Open opens the message's bytes from the start. It works until Done is called, which is once.
	Open func() (io.ReadCloser, error)
	Done func()
}

// An Answer is what became of an offered message. If it is zero the message is in the queue.
type Answer struct {
	Forwarded bool // everybody has it, and nothing is left to be done
	// Refused is why the destination does not take it, for good; nothing was kept. It names the
	// recipients by their aliases.
	Refused *reply.Reply
}

// maxWaiting bounds the offers that are waited for: each holds a session of the other side and a
// message in memory or in a file.
const maxWaiting = 500

// slotPatience is how long a session waits for a slot that others hold, before its message is
// queued.
const slotPatience = 100 * time.Millisecond

// Forward tries to deliver a message at once, so that its sender hears from the destination itself.
// If everybody has it, or everybody has refused it for good, within that time, nothing is written to
// the disk: until it is answered the message is still the sender's. Else it is put into the queue,
// durably, attempts that are under way going on. So it is too where anybody would have to wait for
// a slot, except for a moment. An error is the disk's, and the sender has to try again.
func (q *Queue) Forward(ctx context.Context, o Offer, within time.Duration) (Answer, error) {
	q.prepare(o.Envelope)
	f := &flight{q: q, Offer: o, landed: make(chan struct{})}
	f.attempt, f.cut = context.WithCancel(q.attempts)
	defer f.leave()
	defer q.waiting.Add(-1)
	if q.waiting.Add(1) <= maxWaiting && within > 0 {
		ctx, cancel := context.WithTimeout(ctx, within)
		defer cancel()
		if f.takeOff(ctx) {
			select {
			case <-f.landed:
			case <-ctx.Done():
			}
		}
	}
	return f.answer()
}

// A flight is a message under way that is not in the queue, or not when it began.
type flight struct {
	q *Queue
	Offer
	landed  chan struct{}   // closed when no attempt is under way any more
	attempt context.Context // of all attempts
	cut     context.CancelFunc

	mu     sync.Mutex // guards the rest
	legs   []*leg
	left   int  // attempts under way
	stored bool // the message is in the queue: what attempts come to is recorded there
	gone   bool // the session has its answer
}

// A leg is one attempt of a flight.
type leg struct {
	work     *Work
	outcomes []Outcome // nil while it is under way
}

// takeOff begins attempts for all recipients, or none, and reports which.
func (f *flight) takeOff(ctx context.Context) bool {
	groups, order := f.groups(ctx)
	soon, cancel := context.WithTimeout(ctx, slotPatience)
	defer cancel()
	if !f.q.slots.takeSoon(soon, order) {
		return false
	}
	now, chance := f.q.now(), rand.Float64()
	before := map[int]Status{}
	for i := range f.Envelope.Recipients {
		before[i] = f.Envelope.Recipients[i].Status
		f.q.count(f.Envelope, &f.Envelope.Recipients[i], now, chance)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range order {
		w := &Work{Envelope: f.Envelope.copy(), Indexes: groups[name], Group: name, Body: f.Open, before: before}
		l := &leg{work: w}
		f.legs = append(f.legs, l)
		if !f.q.crew.work(w, func() { f.fly(l) }) { // relayd goes down
			f.q.slots.release(name)
			l.outcomes = complete(w, nil)
			continue
		}
		f.left++
	}
	return f.left > 0
}

// groups sorts the recipients by their way out, once that is known. None are returned if somebody
// is not to be tried.
func (f *flight) groups(ctx context.Context) (indexes map[string][]int, order []string) {
	indexes = map[string][]int{}
	for i := range f.Envelope.Recipients {
		r := &f.Envelope.Recipients[i]
		if r.State != Waiting {
			return nil, nil
		}
		name, ok := f.q.learn(ctx, f.Envelope.ID, r)
		if !ok {
			return nil, nil
		}
		if indexes[name] == nil {
			order = append(order, name)
		}
		indexes[name] = append(indexes[name], i)
	}
	return indexes, order
}

// fly makes one attempt and notes what it came to: for whoever waits, or in the queue.
func (f *flight) fly(l *leg) {
	q := f.q
	defer q.poke()
	outcomes := q.try(f.attempt, l.work)
	q.slots.release(l.work.Group)
	f.mu.Lock()
	l.outcomes = outcomes
	stored := f.stored
	f.mu.Unlock()
	if stored {
		f.record(l)
	}
	f.mu.Lock()
	f.left--
	if f.left == 0 {
		close(f.landed)
	}
	f.mu.Unlock()
	f.release()
}

// record notes in the queue what an attempt came to. A panic over one message stays with it.
func (f *flight) record(l *leg) {
	defer f.q.store.Done(l.work)
	defer f.q.containWork(l.work)
	f.q.settle(l.work, l.outcomes)
}

// leave is called when the session has its answer.
func (f *flight) leave() {
	f.mu.Lock()
	f.gone = true
	f.mu.Unlock()
	f.release()
}

// release gives up the bytes if nobody needs them any more.
func (f *flight) release() {
	f.mu.Lock()
	last := f.gone && f.left == 0 && f.Done != nil
	done := f.Done
	if last {
		f.Done = nil
	}
	f.mu.Unlock()
	if last {
		f.cut()
		done()
	}
}

// answer decides what becomes of the message.
func (f *flight) answer() (Answer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.everybody(Delivered) && !f.wantsReport() {
		f.tell()
		return Answer{Forwarded: true}, nil
	}
	if f.everybody(Failed) {
		f.tell()
		return Answer{Refused: f.refusal()}, nil
	}
	err := f.keep()
	if err != nil && f.everybody(Delivered) {
		f.tell()
		return Answer{Forwarded: true}, nil
	}
	return Answer{}, err
}

// everybody reports whether all recipients have come to that state.
func (f *flight) everybody(s State) bool {
	n := 0
	for _, l := range f.legs {
		if l.outcomes == nil || slices.ContainsFunc(l.outcomes, func(o Outcome) bool { return o.State != s || len(o.Into) > 0 || !o.Until.IsZero() }) {
			return false
		}
		n += len(l.outcomes)
	}
	return n > 0 && n == len(f.Envelope.Recipients)
}

func (f *flight) wantsReport() bool {
	return slices.ContainsFunc(f.Envelope.Recipients, func(r Recipient) bool { return slices.Contains(r.Notify, "SUCCESS") })
}

const refused = "The destination refused the message: "

// refusal is the answer of the first recipient's server, without the address behind the alias.
func (f *flight) refusal() *reply.Reply {
	for _, l := range f.legs {
		if n := slices.Index(l.work.Indexes, 0); n >= 0 {
			first, o := l.work.Envelope.Recipients[0], l.outcomes[n]
			if o.Host == "" { // our own words, about a domain that the sender knows nothing of
				return reply.New(o.Reply.Code, o.Reply.Enhanced, "Mail for <%s> cannot reach the mailbox behind it, and trying again will not help: its owner must mend that", first.name()).Because(o.Reply)
			}
			// A chain of servers like this one says it once, or nothing else would be left of the text.
			text := strings.TrimPrefix(mask(o.Reply.Text, first.Address, first.name()), refused)
			return reply.New(o.Reply.Code, o.Reply.Enhanced, refused+"%s", text).Because(o.Reply)
		}
	}
	return reply.Internal(errors.New("nobody tried the first recipient"))
}

// tell logs and counts what nobody records.
func (f *flight) tell() {
	for _, l := range f.legs {
		for n, i := range l.work.Indexes {
			r, o := l.work.Envelope.Recipients[i], l.outcomes[n]
			r.State, r.LastHost, r.Class = o.State, o.Host, o.Class
			if o.Reply != nil {
				r.LastReply = o.Reply.String()
			}
			f.q.counters.count(o.State)
			f.q.logOutcome(f.Envelope, &r, o)
			f.q.report(Failure{Envelope: f.Envelope, Recipient: &r, Refused: true})
		}
	}
}

// keep puts the message into the queue, with the attempts that it has behind it or under way. If
// that cannot be done they are cut off.
func (f *flight) keep() error {
	body, err := f.Open()
	if err != nil {
		f.cut()
		return err
	}
	defer body.Close()
	var underWay []*Work
	for _, l := range f.legs {
		underWay = append(underWay, l.work)
	}
	if err := f.q.store.Add(f.Envelope, body, underWay...); err != nil {
		f.cut()
		return err
	}
	f.stored = true
	for _, l := range f.legs {
		if l.outcomes != nil {
			f.record(l)
		}
	}
	f.q.poke()
	return nil
}
