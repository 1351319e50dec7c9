// Package queue holds the mail that was promised. What Add has taken is kept until every
// recipient has it, was refused for good, or was tried for as long as Lifetime; it survives
// kill -9 and a power cut, for Add returns only after the disk has it.
//
// A message is tried at once, then after 5 minutes, and after twice as long each time up to 4
// hours, each time 10 % sooner or later by chance (RFC 5321 section 4.5.4.1). Attempts are made
// per group of recipients that share a way out: the mail exchangers of one operator are a group,
// however many domains it serves. How many attempts a group bears at once is learned, and no group
// may hold so many that a slow destination delays anybody else. A group that asked for a pause gets
// nothing until it is over, and then one attempt at once; who waits for a limit was not tried.
// When a recipient fails for good a DSN (RFC 3464) goes to the sender, if the sender is known to
// have really sent the message; never to anybody else.
//
// In doubt the queue does a thing twice rather than not at all: a crash between a delivery and
// its record makes a duplicate, never a loss.
package queue

import (
	"context"
	"errors"
	"hash/maphash"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"relayd/reply"
)

// An Outcome is what an attempt came to for one recipient.
type Outcome struct {
	State State // Delivered, Failed, Held, or Waiting to be tried again, as is any other
	// Reply is the remote server's answer, or ours if it never came to one.
	Reply *reply.Reply
	Host  string // who gave it
	TLS   string // how the connection was protected, for the log; "" when there was none
	// Into replaces the recipient, when its address turned out to be an alias; State is ignored.
	// Those in it without a state become Waiting, and are due at once. They are known to the
	// sender by the Alias of the recipient that they replace, where that has one.
	Into []Recipient
	// Reported says that the next server takes over the sender's wish for a success DSN.
	Reported bool
	// Strained says that the other side has more of us than it bears: it said so, fell silent, or
	// refused or dropped the connection. Fewer attempts at once are made in the group.
	Strained bool
	// Stop is for how long at least nothing more is sent to the group; a day at most. Then one
	// attempt finds out how it is, and one more is made at a time.
	Stop time.Duration
	// Class is a word for the kind of reply, "" if there is none. Attempts is after how many that came
	// to the same Class a recipient fails that would be tried again; those without one do not count,
	// and another begins anew. 0: Options.Lifetime decides.
	Class    string
	Attempts int
	// Until, if it is not zero, says that the recipient was not tried: it has to wait for a limit of
	// ours, at least until then. It is as if there had been no attempt. Nothing else is looked at.
	Until time.Time
}

// A Deliverer makes attempts. Its methods are called from many goroutines.
type Deliverer interface {
	// Group names the way that mail for r takes, as far as it is known. It must be quick.
	Group(r *Recipient) string
	// Learn finds out the way that mail for r takes if Group does not know it. It may wait for
	// that, and returns soon after ctx ends. It is called before an attempt; one for which Group
	// then has another name is not made, and comes up again in that group.
	Learn(ctx context.Context, r *Recipient)
	// Deliver makes one attempt and returns one outcome for each of w.Indexes, in order. It
	// returns soon after ctx ends. If it panics, or outcomes are missing, those recipients are
	// tried again later; after the second panic in a row they are held until they are released.
	Deliver(ctx context.Context, w *Work) []Outcome
}

// Options are a Queue's. All are required but Now, Failed and Settled.
type Options struct {
	Hostname string
	// Lifetime is how long a recipient is tried before it fails. Only the time between attempts
	// counts, each wait no longer than it was meant to be, and that for its turn no longer than the
	// queue has run: so neither a clock that jumped, nor a week without power or on hold makes mail
	// fail that was tried once or twice.
	Lifetime     time.Duration
	DelayWarning time.Duration // after which a submitter is told; 0: never
	Workers      int           // attempts at once
	PerGroup     int           // attempts at once in one group, at most: each learns what it bears
	Grace        time.Duration // for attempts under way when Run is to end
	// Sign returns the DKIM-Signature fields for a message of ours that is From that domain.
	Sign func(domain string, body io.Reader) (string, error)
	// Failed, if it is not nil, is told of each recipient that has failed for good. It must be quick.
	Failed func(Failure)
	// Settled, if it is not nil, is told of each attempt once it is recorded: the message as it then is,
	// and the outcomes of the recipients at indexes. It changes nothing of that, and must be quick.
	Settled func(e *Envelope, indexes []int, outcomes []Outcome)
	Log     *slog.Logger
	Now     func() time.Time
}

// A Failure is a recipient that will not get a message. It is not to be changed.
type Failure struct {
	Envelope  *Envelope
	Recipient *Recipient // as it was left; its LastReply says why
	Refused   bool       // the message was not taken: the sender has heard the reason in the session
}

// A Queue is a Store and the scheduler that works on it. Its methods are safe for concurrent use.
type Queue struct {
	opt      Options
	store    Store
	deliver  Deliverer
	wake     chan struct{}
	locks    idLocks // held from reading an envelope to recording what follows from it
	slots    slots
	counters counters
	clock    steadyClock
	waiting  atomic.Int64       // offers that are waited for
	crew     crew               // makes all attempts
	attempts context.Context    // ends when attempts are to be cut off
	cut      context.CancelFunc // ends it
}

// New makes a queue; Run starts it.
func New(opt Options, store Store, deliver Deliverer) *Queue {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	q := &Queue{opt: opt, store: store, deliver: deliver, wake: make(chan struct{}, 1), locks: newIDLocks()}
	q.crew.on = map[*Work]bool{}
	q.attempts, q.cut = context.WithCancel(context.Background())
	q.clock.run(q.now())
	q.slots.init(opt.Workers, opt.PerGroup, q.now)
	return q
}

// now is the wall clock without the monotonic reading, which times read from the disk do not
// have: a comparison of the one kind with the other is no order.
func (q *Queue) now() time.Time { return q.opt.Now().Round(0) }

// Add takes responsibility for a message: after nil it will be delivered or its failure told.
// Recipients without a state become Waiting. An error is the disk's, and nothing was taken.
func (q *Queue) Add(e *Envelope, body io.Reader) error {
	q.prepare(e)
	if err := q.store.Add(e, body); err != nil {
		return err
	}
	q.poke()
	return nil
}

// prepare makes due now what is new.
func (q *Queue) prepare(e *Envelope) {
	e.Received = e.Received.Round(0)
	due := e.Received
	if now := q.now(); due.After(now) {
		due = now
	}
	for i := range e.Recipients {
		switch r := &e.Recipients[i]; r.State {
		case "":
			r.State, r.Next = Waiting, due
		case Held:
			r.Next = due.Add(lastRetry)
		}
	}
}

// poke makes the scheduler look again.
func (q *Queue) poke() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// List calls yield for each envelope, oldest first, until it returns false.
func (q *Queue) List(yield func(*Envelope) bool) { q.store.Search("", yield) }

// Search is List of those messages in whose envelope that text stands, such as a domain. It is
// much quicker where few of many do.
func (q *Queue) Search(text string, yield func(*Envelope) bool) { q.store.Search(text, yield) }

// Get returns a copy of an envelope, or ErrNotFound.
func (q *Queue) Get(id string) (*Envelope, error) {
	if e := q.store.Get(id); e != nil {
		return e, nil
	}
	return nil, ErrNotFound
}

// Body opens the bytes of a message; the caller closes it.
func (q *Queue) Body(id string) (io.ReadCloser, error) { return q.store.Body(id) }

// Remove forgets a message without telling anybody. An attempt that is under way goes on.
func (q *Queue) Remove(id string) error {
	defer q.locks.lock(id)()
	if err := q.store.Remove(id); err != nil {
		return err
	}
	q.opt.Log.Warn("removed from the queue by the admin", "id", id)
	return nil
}

// Retry makes everything of a message that waits due now, and has the deliverer really try: a
// server that did not answer of late is no reason to wait. What the admin holds stays held, and if
// there is nothing else it returns ErrHeld. One that is being tried is tried again after that.
func (q *Queue) Retry(id string) error {
	now := q.now()
	return q.change(id, ErrHeld, func(s *Status) bool {
		scheduled := s.Scheduled()
		s.Next, s.Asked = now, true
		return scheduled
	})
}

// Hold keeps a message from being tried until Release. An attempt that is under way goes on, and
// if it delivers or fails for good that stands.
func (q *Queue) Hold(id string) error {
	return q.change(id, nil, func(s *Status) bool {
		scheduled := s.Scheduled()
		s.State, s.Next = Held, time.Time{}
		return scheduled
	})
}

// Release makes what is held due now. It returns ErrNotHeld if nothing is.
func (q *Queue) Release(id string) error {
	now := q.now()
	return q.change(id, ErrNotHeld, func(s *Status) bool {
		was := s.State
		s.State, s.Next, s.Asked = Waiting, now, true
		return was == Held
	})
}

// Why a verb does nothing to a message.
var (
	ErrHeld    = errors.New("it is held: `relay-util queue-release` lets it go")
	ErrNotHeld = errors.New("it is not held")
)

// change does f to every recipient of a message and keeps those for which it returns true. If
// there are none it returns the error none.
func (q *Queue) change(id string, none error, f func(*Status) bool) error {
	defer q.locks.lock(id)()
	e, err := q.Get(id)
	if err != nil {
		return err
	}
	changes := map[int]Recipient{}
	for i, r := range e.Recipients {
		if f(&r.Status) {
			changes[i] = r
		}
	}
	if len(changes) == 0 {
		return none
	}
	defer q.poke()
	return q.store.Update(id, changes, true)
}

// idLocks are locks by queue ID. Two IDs may share one, so nobody takes a second.
type idLocks struct {
	seed  maphash.Seed
	locks []sync.Mutex
}

// newIDLocks makes enough of them that two messages at work seldom share one: it is held while
// the disk syncs.
func newIDLocks() idLocks { return idLocks{seed: maphash.MakeSeed(), locks: make([]sync.Mutex, 1024)} }

func (l *idLocks) lock(id string) (unlock func()) {
	m := &l.locks[maphash.String(l.seed, id)%uint64(len(l.locks))]
	m.Lock()
	return m.Unlock
}
