package queue

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"relayd/address"
)

// An Envelope is everything about a message but its bytes.
type Envelope struct {
	ID          string          `json:"id"` // 8 to 32 letters and digits, see NewID
	Received    time.Time       `json:"received"`
	Sender      address.Address `json:"sender"`           // reverse-path as it came; "" is "<>"
	User        address.Address `json:"user,omitzero"`    // who submitted it, when somebody logged in
	Source      string          `json:"source,omitempty"` // whom it is put down to if it is refused as spam; "" for nobody
	Authentic   bool            `json:"authentic"`        // Sender has really sent it, and so may get a DSN
	UTF8        bool            `json:"utf8,omitempty"`   // cannot go to a server without SMTPUTF8
	EightBit    bool            `json:"8bit,omitempty"`
	RequireTLS  bool            `json:"require_tls,omitempty"`  // REQUIRETLS (RFC 8689): goes on under TLS that is promised, or fails
	TLSOptional bool            `json:"tls_optional,omitempty"` // "TLS-Required: No": no demand of MTA-STS or DANE keeps it back
	Return      string          `json:"ret,omitempty"`          // DSN RET
	EnvelopeID  string          `json:"envid,omitempty"`        // DSN ENVID, decoded
	Size        int64           `json:"size"`                   // of the body in bytes
	Recipients  []Recipient     `json:"recipients"`             // one at least
}

// A Recipient is one forward-path and how far its copy has come.
type Recipient struct {
	Address    address.Address `json:"address"`
	Via        []string        `json:"via,omitempty"`      // hosts to use instead of the domain's MX
	Pipe       []string        `json:"pipe,omitempty"`     // a program that takes the message on standard input
	Mailbox    bool            `json:"mailbox,omitempty"`  // Address is a user's here, with its suffix: it goes to the mailbox server
	ReturnPath address.Address `json:"return_path"`        // reverse-path under which this copy leaves
	Fields     string          `json:"fields,omitempty"`   // header fields in front of this copy alone
	Rewrite    bool            `json:"rewrite,omitempty"`  // it passed DMARC by SPF alone: where that makes the destination refuse it, From may be made ours
	Alias      address.Address `json:"alias,omitzero"`     // the hosted address that was written to, if Address came from it
	Original   string          `json:"orcpt,omitempty"`    // DSN ORCPT, decoded
	Notify     []string        `json:"notify,omitempty"`   // DSN NOTIFY
	Expanded   int             `json:"expanded,omitempty"` // how often Outcome.Into has led here
	Status     `json:"status"` // changes with every attempt
}

// A Status is how far the copy for one recipient has come.
type Status struct {
	State     State         `json:"state"`
	Attempts  int           `json:"attempts,omitempty"`
	Tried     time.Duration `json:"tried,omitempty"` // how long attempts have gone on; see Options.Lifetime
	Next      time.Time     `json:"next,omitzero"`   // not tried before; zero when held until somebody releases it
	LastTry   time.Time     `json:"last_try,omitzero"`
	LastHost  string        `json:"last_host,omitempty"`
	LastReply string        `json:"last_reply,omitempty"`
	Class     string        `json:"class,omitempty"`   // the last Outcome.Class
	Same      int           `json:"same,omitempty"`    // how many attempts have come to it
	Delayed   bool          `json:"delayed,omitempty"` // the delay notice was sent
	Trying    bool          `json:"trying,omitempty"`  // an attempt has begun and its outcome is not known
	Asked     bool          `json:"asked,omitempty"`   // the admin wants the next attempt made, whatever is remembered of the host
	History   []Run         `json:"history,omitempty"` // of the attempts that have ended, oldest first, 20 at most; not to be changed in place
}

// State is the word that queue-list shows.
type State string

// A recipient is Waiting until it is one of the others. A Held one needs somebody to do something:
// one that the admin holds, or that has brought relayd to a panic twice, is tried when it is released,
// any other every 4 hours as well.
const (
	Waiting   State = "waiting"
	Held      State = "held"
	Delivered State = "delivered"
	Failed    State = "failed"
)

func (s State) known() bool { return s == Waiting || s == Held || s == Delivered || s == Failed }

// Scheduled reports whether the recipient is to be tried, now or at Next.
func (s Status) Scheduled() bool { return s.State == Waiting || s.State == Held && !s.Next.IsZero() }

// done reports whether nothing is left to be done for the recipient.
func (s Status) done() bool { return s.State == Delivered || s.State == Failed }

// name is the address that the sender knows the recipient by.
func (r *Recipient) name() address.Address {
	if !r.Alias.IsNull() {
		return r.Alias
	}
	return r.Address
}

// done reports whether the message can be forgotten.
func (e *Envelope) done() bool {
	for i := range e.Recipients {
		if !e.Recipients[i].done() {
			return false
		}
	}
	return true
}

// check reports why e cannot be kept: it would never be found, never be tried, or never be done.
func (e *Envelope) check() error {
	switch {
	case !validID(e.ID):
		return fmt.Errorf("%.40q is not a queue ID", e.ID)
	case e.Size < 0:
		return errors.New("the size is negative")
	case len(e.Recipients) == 0:
		return errors.New("there are no recipients")
	}
	for i := range e.Recipients {
		if s := e.Recipients[i].State; !s.known() {
			return fmt.Errorf("recipient %d is in no known state: %.20q", i, s)
		}
	}
	return nil
}

func validID(s string) bool {
	return len(s) >= 8 && len(s) <= 32 &&
		strings.Trim(s, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") == ""
}

// change sets recipients by index; those past the end are added, without a gap. After an error
// nothing is changed.
func (e *Envelope) change(changes map[int]Recipient) error {
	indexes := slices.Sorted(maps.Keys(changes))
	end := len(e.Recipients)
	for _, i := range indexes {
		if i < 0 || i > end {
			return fmt.Errorf("recipient %d of %d", i, end)
		}
		if s := changes[i].State; !s.known() {
			return fmt.Errorf("recipient %d would be in no known state: %.20q", i, s)
		}
		end = max(end, i+1)
	}
	for _, i := range indexes {
		if i < len(e.Recipients) {
			e.Recipients[i] = changes[i]
		} else {
			e.Recipients = append(e.Recipients, changes[i])
		}
	}
	return nil
}

func (e *Envelope) copy() *Envelope {
	c := *e
	c.Recipients = slices.Clone(e.Recipients)
	return &c
}
