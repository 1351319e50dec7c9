// Package control is how relay-util talks to a running relayd: HTTP with JSON over a unix socket
// in the state folder. Whoever may open the socket may do everything that it offers, so its file
// is readable and writable by its owner and group alone.
package control

import (
	"encoding/json"
	"time"

	"relayd/problem"
	"relayd/queue"
)

// Status is what `relay-util status` shows.
type Status struct {
	Version     string         `json:"version"`
	Hostname    string         `json:"hostname"`
	Started     time.Time      `json:"started"`
	Listeners   []Listener     `json:"listeners"`
	Connections int            `json:"connections"`
	Queue       QueueStatus    `json:"queue"`
	Domains     []DomainStatus `json:"domains"`
	Certs       []Certificate  `json:"certificates"`
	Problems    problem.List   `json:"problems"` // files that are not in force as they stand
	Warnings    problem.List   `json:"warnings"`
}

// A Listener is one address that is listened on.
type Listener struct {
	Service string `json:"service"` // smtp, submission or submissions
	Address string `json:"address"`
}

// QueueStatus is the queue in numbers.
type QueueStatus struct {
	Messages int       `json:"messages"`
	Held     int       `json:"held"`
	Oldest   time.Time `json:"oldest,omitzero"`
}

// DomainStatus is a hosted domain in numbers.
type DomainStatus struct {
	Name    string `json:"name"`
	Users   int    `json:"users"`
	Aliases int    `json:"aliases"`
	Keys    int    `json:"dkim_keys"`
	Broken  bool   `json:"broken"` // answers 451 until its files are mended
}

// A Certificate is one that the server shows.
type Certificate struct {
	Names      []string  `json:"names"`
	Expires    time.Time `json:"expires"`
	File       string    `json:"file,omitempty"`
	SelfSigned bool      `json:"self_signed"` // made by relayd because there is no other
}

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
}

// Detail is what `queue-show` shows.
type Detail struct {
	Message
	User   string `json:"user,omitempty"`
	Header string `json:"header"`
}

// MarshalJSON implements json.Marshaler, because it would inherit that of Message.
func (d Detail) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		shownMessage
		User   string `json:"user,omitempty"`
		Header string `json:"header"`
	}{d.shown(), d.User, d.Header})
}

// A Selection names messages: by ID, or all to a domain, or all. Exactly one of the three must be
// given, since an empty one could be a mistake.
type Selection struct {
	IDs    []string `json:"ids,omitempty"`
	Domain string   `json:"domain,omitempty"`
	All    bool     `json:"all,omitempty"`
}

// Changed is the answer to a change of a selection.
type Changed struct {
	IDs    []string `json:"ids"`              // what was changed
	Failed []string `json:"failed,omitempty"` // "ID: reason" for what was not
}

// newMessage is the view of an envelope.
func newMessage(e *queue.Envelope) Message {
	m := Message{ID: e.ID, Sender: e.Sender.String(), Size: e.Size, Received: e.Received, State: string(queue.Held), Recipients: []Recipient{}}
	for _, r := range e.Recipients {
		v := Recipient{Address: r.Address.String(), Alias: r.Alias.String(), State: string(r.State), Attempts: r.Attempts,
			LastReply: r.LastReply, LastHost: r.LastHost, LastTry: r.LastTry}
		if r.State == queue.Waiting {
			v.Next, m.State = r.Next, string(queue.Waiting)
			if m.Next.IsZero() || r.Next.Before(m.Next) {
				m.Next = r.Next
			}
		}
		m.Recipients = append(m.Recipients, v)
	}
	return m
}
