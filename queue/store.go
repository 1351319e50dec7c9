package queue

import (
	"errors"
	"io"
	"time"
)

// Work is one attempt: a message, and the recipients of it that go the same way now. Who gets
// one reads it only.
type Work struct {
	Envelope *Envelope // a copy
	Indexes  []int     // into Envelope.Recipients; one at least, but none of a message that cannot be read now
	Group    string
	Body     func() (io.ReadCloser, error) // opens the message's bytes; each call reads from the start
	before   map[int]Status                // of Indexes, before the attempt was counted
}

// A Store keeps messages durably and knows which work is due. All of its methods are safe for
// concurrent use.
type Store interface {
	// Add keeps the message; after nil it survives a power cut. e.Size is set from body. After
	// an error nothing is kept. The works on it that are under way are taken until Done, as if
	// Claim had given them.
	Add(e *Envelope, body io.Reader, underWay ...*Work) error
	// Update changes recipients of a message, those past its last being added without a gap.
	// With sync it survives a power cut; without, a crash of the process. A message that is
	// done is removed. It returns ErrNotFound where there is no such message. After an error of
	// the disk the change is in force all the same, but may be forgotten when the process ends:
	// then something is done twice, but nothing is lost.
	Update(id string, changes map[int]Recipient, sync bool) error
	// Remove forgets a message, durably. After an error it may still be there.
	Remove(id string) error
	// Get returns a copy of the envelope, nil if there is none.
	Get(id string) *Envelope
	// Body opens the message's bytes, which the caller closes; ErrNotFound if there are none.
	Body(id string) (io.ReadCloser, error)
	// Search calls yield for a copy of each envelope that contains text as it is stored, in JSON,
	// oldest first, until it returns false. "" is in all of them.
	Search(text string, yield func(*Envelope) bool)
	// DueAfter returns the IDs of messages with a recipient that waits and is due after t.
	DueAfter(t time.Time) []string
	// Claim takes up to limit pieces of work that are due at now, the longest due first. It asks
	// free before each, which takes a slot in that group, in which so many recipients wait, or says
	// that there is none; once free has said no, the group is left alone until the next Claim. Work
	// stays taken until Done, and its recipients are in no other work. When nothing more is due Claim
	// also tells when the next work will be (zero: when something changes).
	Claim(now time.Time, limit int, free func(group string, waiting int) bool) ([]*Work, time.Time)
	// Done gives work back, the same that Claim gave, after its outcome was recorded by Update. What
	// is left of it comes up in the group that its recipients are in by then.
	Done(w *Work)
}

// ErrNotFound says that there is no message of that ID in the queue.
var ErrNotFound = errors.New("no such message in the queue")
