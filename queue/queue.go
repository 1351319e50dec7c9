// Package queue holds the mail that was promised. What Add has taken is kept until every
// recipient has it, was refused for good, or the message is older than Lifetime; it survives
// kill -9 and a power cut, for Add returns only after the disk has it.
//
// A message is tried at once, then after 5 minutes, and after twice as long each time up to 4
// hours, each time 10 % sooner or later by chance (RFC 5321 section 4.5.4.1). Attempts are made
// per group of recipients that share a way out, so that one slow destination delays nobody else.
// When a recipient fails for good a DSN (RFC 3464) goes to the sender, if the sender is known to
// have really sent the message; never to anybody else.
package queue

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"relayd/address"
	"relayd/reply"
)

// An Envelope is everything about a message but its bytes.
type Envelope struct {
	ID         string          `json:"id"`
	Received   time.Time       `json:"received"`
	Sender     address.Address `json:"sender"`         // reverse-path as it came; "" is "<>"
	User       address.Address `json:"user,omitzero"`  // who submitted it, when somebody logged in
	Authentic  bool            `json:"authentic"`      // Sender has really sent it, and so may get a DSN
	UTF8       bool            `json:"utf8,omitempty"` // cannot go to a server without SMTPUTF8
	EightBit   bool            `json:"8bit,omitempty"`
	Return     string          `json:"ret,omitempty"`   // DSN RET
	EnvelopeID string          `json:"envid,omitempty"` // DSN ENVID
	Size       int64           `json:"size"`            // of the body in bytes
	Recipients []Recipient     `json:"recipients"`
}

// A Recipient is one forward-path and how far its copy has come.
type Recipient struct {
	Address    address.Address `json:"address"`
	Via        []string        `json:"via,omitempty"`    // hosts to use instead of the domain's MX
	Pipe       []string        `json:"pipe,omitempty"`   // a program that takes the message on standard input
	ReturnPath address.Address `json:"return_path"`      // reverse-path under which this copy leaves
	Fields     string          `json:"fields,omitempty"` // header fields in front of this copy alone
	Alias      address.Address `json:"alias,omitzero"`   // the hosted address that was written to, if Address came from it
	Original   string          `json:"orcpt,omitempty"`  // DSN ORCPT
	Notify     []string        `json:"notify,omitempty"` // DSN NOTIFY
	Status     `json:"status"` // changes with every attempt
}

// A Status is how far the copy for one recipient has come.
type Status struct {
	State     State     `json:"state"`
	Attempts  int       `json:"attempts,omitempty"`
	Next      time.Time `json:"next,omitzero"` // when Waiting: not tried before
	LastTry   time.Time `json:"last_try,omitzero"`
	LastHost  string    `json:"last_host,omitempty"`
	LastReply string    `json:"last_reply,omitempty"`
	Delayed   bool      `json:"delayed,omitempty"` // the delay notice was sent
}

// State is the word that queue-list shows.
type State string

// A recipient is Waiting until it is one of the others. A Held one is tried when it is released.
const (
	Waiting   State = "waiting"
	Held      State = "held"
	Delivered State = "delivered"
	Failed    State = "failed"
)

// done reports whether nothing is left to be done for the recipient.
func (s Status) done() bool { return s.State == Delivered || s.State == Failed }

// done reports whether the message can be forgotten.
func (e *Envelope) done() bool {
	for i := range e.Recipients {
		if !e.Recipients[i].done() {
			return false
		}
	}
	return true
}

// Work is one attempt: a message, and the recipients of it that go the same way now.
type Work struct {
	Envelope *Envelope // a copy; the deliverer may read it freely
	Indexes  []int     // into Envelope.Recipients
	Group    string
	Body     func() (io.ReadCloser, error) // opens the message's bytes; each call reads from the start
}

// An Outcome is what an attempt came to for one recipient.
type Outcome struct {
	State State // Delivered, Failed, Held, or Waiting to be tried again
	// Reply is the remote server's answer, or ours if it never came to one.
	Reply *reply.Reply
	Host  string // who gave it
	// Into replaces the recipient, when its address turned out to be an alias; State is ignored.
	Into []Recipient
	// Reported says that the next server takes over the sender's wish for a success DSN.
	Reported bool
}

// A Deliverer makes attempts. Its methods are called from many goroutines.
type Deliverer interface {
	// Group names the way that mail for r takes. It must be quick.
	Group(r *Recipient) string
	// Deliver makes one attempt and returns one outcome for each of w.Indexes, in order. It
	// returns soon after ctx ends.
	Deliver(ctx context.Context, w *Work) []Outcome
}

// A Store keeps messages durably and knows which work is due. All of its methods are safe for
// concurrent use.
type Store interface {
	// Add keeps the message; after nil it survives a power cut. e.Size is set from body. After
	// an error nothing is kept.
	Add(e *Envelope, body io.Reader) error
	// Update changes recipients of a message, those of a higher index than it has being added.
	// With sync it survives a power cut; without, a crash of the process. A message that is
	// done is removed.
	Update(id string, changes map[int]Recipient, sync bool) error
	Remove(id string) error
	// Get returns a copy of the envelope, nil if there is none.
	Get(id string) *Envelope
	Body(id string) (io.ReadCloser, error)
	// List calls yield for a copy of each envelope, oldest first, until it returns false.
	List(yield func(*Envelope) bool)
	// Claim takes up to max pieces of work that are due at now from groups that free lets have
	// more, the longest due first. Work stays taken until Done. When nothing more is due it also
	// tells when the next work will be (zero: when something changes).
	Claim(now time.Time, max int, free func(group string) bool) ([]*Work, time.Time)
	// Done gives work back after its outcome was recorded by Update.
	Done(w *Work)
}

// ErrNotFound says that there is no message of that ID in the queue.
var ErrNotFound = errors.New("no such message in the queue")

// Options are a Queue's. All are required but Now.
type Options struct {
	Hostname     string
	Lifetime     time.Duration // after which a recipient fails
	DelayWarning time.Duration // after which a submitter is told; 0: never
	Workers      int           // attempts at once
	PerGroup     int           // attempts at once in one group
	Grace        time.Duration // for attempts under way when Run is to end
	// Sign returns the DKIM-Signature fields for a message of ours that is From that domain.
	Sign func(domain string, body io.Reader) (string, error)
	Log  *slog.Logger
	Now  func() time.Time
}

// A Queue is a Store and the scheduler that works on it. Its methods are safe for concurrent use.
type Queue struct {
	opt     Options
	store   Store
	deliver Deliverer
	wake    chan struct{}
}

// New makes a queue; Run starts it.
func New(opt Options, store Store, deliver Deliverer) *Queue {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	return &Queue{opt: opt, store: store, deliver: deliver, wake: make(chan struct{}, 1)}
}

// Add takes responsibility for a message: after nil it will be delivered or its failure told.
// Recipients without a state become Waiting. An error is the disk's, and nothing was taken.
func (q *Queue) Add(e *Envelope, body io.Reader) error {
	for i := range e.Recipients {
		r := &e.Recipients[i]
		if r.State == "" {
			r.State = Waiting
			r.Next = e.Received
		}
	}
	if err := q.store.Add(e, body); err != nil {
		return err
	}
	q.poke()
	return nil
}

// poke makes the scheduler look again.
func (q *Queue) poke() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// List calls yield for each envelope, oldest first, until it returns false.
func (q *Queue) List(yield func(*Envelope) bool) { q.store.List(yield) }

// Get returns a copy of an envelope, or ErrNotFound.
func (q *Queue) Get(id string) (*Envelope, error) {
	if e := q.store.Get(id); e != nil {
		return e, nil
	}
	return nil, ErrNotFound
}

// Remove forgets a message without telling anybody.
func (q *Queue) Remove(id string) error {
	if err := q.store.Remove(id); err != nil {
		return err
	}
	q.opt.Log.Warn("removed from the queue by the admin", "id", id)
	return nil
}

// Retry makes everything of a message that waits due now. Held recipients stay held.
func (q *Queue) Retry(id string) error {
	return q.change(id, func(s *Status) bool {
		s.Next = q.opt.Now()
		return s.State == Waiting
	})
}

// Hold keeps a message from being tried until Release.
func (q *Queue) Hold(id string) error {
	return q.change(id, func(s *Status) bool {
		was := s.State
		s.State = Held
		return was == Waiting
	})
}

// Release makes what is held due now.
func (q *Queue) Release(id string) error {
	return q.change(id, func(s *Status) bool {
		was := s.State
		s.State, s.Next = Waiting, q.opt.Now()
		return was == Held
	})
}

func (q *Queue) change(id string, f func(*Status) bool) error {
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
	if err := q.store.Update(id, changes, true); err != nil {
		return err
	}
	q.poke()
	return nil
}

// Body opens the bytes of a message.
func (q *Queue) Body(id string) (io.ReadCloser, error) { return q.store.Body(id) }
