// Package follow lets one who waits see what becomes of a message, step by step and as it happens.
// Nobody who makes the steps ever waits for one who looks on.
package follow

import (
	"sync"
	"time"
)

// An Event is one step of a message. Which fields are filled in follows from What.
type Event struct {
	At         time.Time   `json:"at"`
	What       What        `json:"what"`
	ID         string      `json:"id,omitempty"`
	Signatures []Signature `json:"signatures,omitempty"`
	Host       string      `json:"host,omitempty"`   // as "name [address]"
	Family     string      `json:"family,omitempty"` // IPv4 or IPv6
	TLS        string      `json:"tls,omitempty"`    // version, such as "TLS1.3"; "" in the clear
	Verified   string      `json:"verified,omitempty"`
	Recipient  string      `json:"recipient,omitempty"`
	Reply      string      `json:"reply,omitempty"`
	Next       time.Time   `json:"next,omitzero"` // when it is tried again
	Left       int         `json:"left"`          // recipients of whom it is not known yet what becomes; with an outcome
}

// What says what has happened.
type What string

// The steps of a message. Those from Delivered on are outcomes, each of one recipient.
const (
	Queued      What = "queued"      // ID, Signatures
	Connected   What = "connected"   // Host, Family
	Kept        What = "kept"        // Host, Family, TLS: an open connection is used once more
	Ready       What = "ready"       // Host, TLS, Verified: mail can be sent
	Unreachable What = "unreachable" // Host, Reply: the next address is tried
	Delivered   What = "delivered"
	Failed      What = "failed"
	Held        What = "held"
	Deferred    What = "deferred" // Next
	Waits       What = "waits"    // Next: it was not tried, for a limit of ours
)

// IsOutcome reports whether an attempt for one recipient has ended.
func (w What) IsOutcome() bool {
	return w == Delivered || w == Failed || w == Held || w == Deferred || w == Waits
}

// A Signature is a DKIM-Signature field that the message leaves with.
type Signature struct {
	Domain    string `json:"domain"`
	Selector  string `json:"selector"`
	Algorithm string `json:"algorithm"` // as in its a=
}

// A Book knows who follows which message. The zero Book is ready; it is safe for concurrent use.
type Book struct {
	mu sync.Mutex
	by map[string]chan Event
}

// backlog is how many events are kept for one who is slow. What comes past it is dropped.
const backlog = 1000

// Follow makes Tell send the events of a message to the channel, until stop is called. There is one
// follower of a message at a time.
func (b *Book) Follow(id string) (events <-chan Event, stop func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.by == nil {
		b.by = map[string]chan Event{}
	}
	c := make(chan Event, backlog)
	b.by[id] = c
	return c, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.by, id)
	}
}

// Followed reports whether anybody would hear of the message.
func (b *Book) Followed(id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.by[id] != nil
}

// Tell passes an event on to the message's follower, if it has one. It never waits.
func (b *Book) Tell(id string, e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case b.by[id] <- e:
	default:
	}
}
