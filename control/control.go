// Package control is how relay-util talks to a running relayd: HTTP with JSON over a unix socket
// in the state folder. Whoever may open the socket may do everything that it offers, so its file
// is readable and writable by its owner and group alone.
package control

import (
	"time"

	"relayd/problem"
)

// Status is what `relay-util status` shows.
type Status struct {
	Version     string         `json:"version"`
	Hostname    string         `json:"hostname"`
	Started     time.Time      `json:"started"`
	Listeners   []Listener     `json:"listeners"`
	Connections int            `json:"connections"`
	IPv6        string         `json:"ipv6,omitempty"` // how it is used for mail that leaves, in a sentence
	Filters     Filters        `json:"filters"`
	Queue       QueueStatus    `json:"queue"`
	Health      Health         `json:"health"`
	Domains     []DomainStatus `json:"domains"`
	Certs       []Certificate  `json:"certificates"`
	ACME        []ACME         `json:"acme"`     // names that certificates are ordered for
	Problems    problem.List   `json:"problems"` // files that are not in force as they stand
	Warnings    problem.List   `json:"warnings"`
}

// A Listener is one address that is listened on.
type Listener struct {
	Service string `json:"service"` // smtp, submission or submissions
	Address string `json:"address"`
}

// Filters are who is asked about mail of strangers, and how much was refused for it since the start:
// transactions because of a list in DNS, else messages.
type Filters struct {
	Uses    []string `json:"uses"`
	DNSBL   uint64   `json:"dnsbl"`
	Rspamd  uint64   `json:"rspamd"`
	Milter  uint64   `json:"milter"`
	Suspect uint64   `json:"suspect"` // put off, for what came the same way before
}

// QueueStatus is the queue in numbers.
type QueueStatus struct {
	Messages int       `json:"messages"`
	Held     int       `json:"held"`  // messages with a held recipient
	Bytes    int64     `json:"bytes"` // of all messages
	Oldest   time.Time `json:"oldest,omitzero"`
	Attempts Attempts  `json:"attempts"`
	Log      LogStatus `json:"log"`
}

// Attempts are what the attempts since the start of relayd came to, one for each recipient of
// each, and how many go on.
type Attempts struct {
	Delivered uint64 `json:"delivered"`
	Deferred  uint64 `json:"deferred"` // to be tried again, or held
	Failed    uint64 `json:"failed"`   // for good, or given up
	Running   int64  `json:"running"`
}

// LogStatus is how the queue fares on its disk. Each sync serves commits/syncs changes and takes
// sync_seconds/syncs.
type LogStatus struct {
	Segments    int     `json:"segments"`
	Syncs       int64   `json:"syncs"` // since the start, as the two below
	Commits     int64   `json:"commits"`
	SyncSeconds float64 `json:"sync_seconds"`
}

// Health is what is wrong with the queue; all is well when there is nothing in it.
type Health struct {
	Failure string   `json:"failure,omitempty"` // why no mail is taken until relayd is started again
	Damaged []string `json:"damaged"`           // files that were set aside, and no check was made since
}

// OK reports whether nothing is wrong.
func (h Health) OK() bool { return h.Failure == "" && len(h.Damaged) == 0 }

// A Group is how the destinations that share a way out fare.
type Group struct {
	Name   string `json:"name"`
	Used   int    `json:"used"`   // attempts at once, now
	Window int    `json:"window"` // how many there may be
	// WaitingSince is since when work that is due has found no slot.
	WaitingSince time.Time `json:"waiting_since,omitzero"`
	Paused       time.Time `json:"paused_until,omitzero"` // nothing is sent before
}

// A Destination is a group with what the admin wants to know of it.
type Destination struct {
	Name      string    `json:"name"`
	Waiting   int       `json:"waiting"`               // recipients
	Used      int       `json:"used"`                  // attempts at once, now
	Window    int       `json:"window"`                // how many there may be; 0: none was made of late
	Paused    time.Time `json:"paused_until,omitzero"` // nothing is sent before
	Note      string    `json:"note,omitempty"`        // on IPv6, in a sentence
	LastReply string    `json:"last_reply,omitempty"`
	LastAt    time.Time `json:"last_at,omitzero"` // of the reply
}

// DomainStatus is a hosted domain in numbers.
type DomainStatus struct {
	Name    string `json:"name"`
	Users   int    `json:"users"`
	Aliases int    `json:"aliases"`
	Keys    int    `json:"dkim_keys"`
	Broken  bool   `json:"broken"` // answers 451 until its files are mended
	Stale   bool   `json:"stale"`  // some file is not in force as it stands, but its last good version
}

// ACME is how a name fares that a certificate is ordered for.
type ACME struct {
	Name    string    `json:"name"`
	Expires time.Time `json:"expires,omitzero"` // of the one in place; zero if there is none
	Next    time.Time `json:"next"`             // when one is ordered next
	Error   string    `json:"error,omitempty"`  // of the last order, if it failed
	Since   time.Time `json:"since,omitzero"`   // since when orders fail
	Urgent  bool      `json:"urgent"`           // it runs out, or there is none: somebody must do something
	Text    string    `json:"text"`             // all that in a sentence
}

// A Certificate is one that the server shows.
type Certificate struct {
	Names      []string  `json:"names"`
	Expires    time.Time `json:"expires"`
	File       string    `json:"file,omitempty"`
	SelfSigned bool      `json:"self_signed"` // made by relayd because there is no other
}
