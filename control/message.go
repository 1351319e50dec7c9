package control

import (
	"encoding/json"
	"strings"
	"time"

	"relayd/queue"
)

// A Message is one line of `queue-list`. Its times are in RFC 3339; "next" is always there, and
// null while nothing is going to be tried.
type Message struct {
	ID         string      `json:"id"`
	Sender     string      `json:"sender"`
	Size       int64       `json:"size"`
	Received   time.Time   `json:"received"`
	State      string      `json:"state"` // waiting or held
	Next       time.Time   `json:"next"`
	Recipients []Recipient `json:"recipients"`
	ByAdmin    bool        `json:"held_by_admin,omitempty"` // and not for a cause, of any recipient
}

// A shownMessage is a Message as it is written.
type shownMessage struct {
	plainMessage
	Next *time.Time `json:"next"` // in place of plainMessage's
}

type plainMessage Message

func (m Message) shown() shownMessage {
	s := shownMessage{plainMessage: plainMessage(m)}
	if !m.Next.IsZero() {
		s.Next = &m.Next
	}
	return s
}

// MarshalJSON implements json.Marshaler.
func (m Message) MarshalJSON() ([]byte, error) { return json.Marshal(m.shown()) }

// A Recipient is one recipient of a Message.
type Recipient struct {
	Address   string    `json:"address"`
	Alias     string    `json:"alias,omitempty"`
	State     string    `json:"state"` // waiting, held, delivered or failed
	Attempts  int       `json:"attempts"`
	LastReply string    `json:"last_reply"`
	LastHost  string    `json:"last_host,omitempty"`
	LastTry   time.Time `json:"last_try,omitzero"`
	Next      time.Time `json:"next,omitzero"`
	ByAdmin   bool      `json:"held_by_admin,omitempty"` // it is not tried until `queue-release`
	// Only `queue-show` has these.
	Trying  bool        `json:"trying,omitempty"`  // an attempt goes on
	History []queue.Run `json:"history,omitempty"` // of the attempts that have ended, oldest first
}

// Detail is what `queue-show` shows.
type Detail struct {
	Message
	User       string `json:"user,omitempty"`
	Header     string `json:"header"`
	Unreadable string `json:"unreadable,omitempty"` // why there is no header
}

// MarshalJSON implements json.Marshaler, because it would inherit that of Message.
func (d Detail) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		shownMessage
		User       string `json:"user,omitempty"`
		Header     string `json:"header"`
		Unreadable string `json:"unreadable,omitempty"`
	}{d.shown(), d.User, d.Header, d.Unreadable})
}

// newMessage is the view of an envelope.
func newMessage(e *queue.Envelope) Message {
	m := Message{ID: e.ID, Sender: e.Sender.String(), Size: e.Size, Received: e.Received, State: string(queue.Held), Recipients: []Recipient{}}
	forCause := false
	for _, r := range e.Recipients {
		v := Recipient{Address: r.Address.String(), Alias: r.Alias.String(), State: string(r.State), Attempts: r.Attempts,
			LastReply: r.LastReply, LastHost: r.LastHost, LastTry: r.LastTry}
		v.ByAdmin = heldByAdmin(&r)
		switch {
		case r.State == queue.Waiting:
			m.State = string(queue.Waiting)
		case r.State == queue.Held && !v.ByAdmin:
			forCause = true
		}
		m.ByAdmin = m.ByAdmin || v.ByAdmin
		if r.Scheduled() {
			v.Next = r.Next
			if m.Next.IsZero() || r.Next.Before(m.Next) {
				m.Next = r.Next
			}
		}
		m.Recipients = append(m.Recipients, v)
	}
	m.ByAdmin = m.ByAdmin && !forCause && m.State == string(queue.Held)
	return m
}

// heldByAdmin tells what `queue-hold` holds from what waits for a cause to be mended: that is tried
// every few hours, or its reply says that it is held.
func heldByAdmin(r *queue.Recipient) bool {
	return r.State == queue.Held && !r.Scheduled() && !strings.HasPrefix(r.LastReply, "held: ") && !r.HeldAfterPanics()
}

// newDetail is the view of an envelope with all that is known, but for the header.
func newDetail(e *queue.Envelope) Detail {
	d := Detail{Message: newMessage(e), User: e.User.String()}
	for i, r := range e.Recipients {
		d.Recipients[i].Trying, d.Recipients[i].History = r.Trying, r.History
	}
	return d
}
