package queue

import (
	"slices"
	"strings"
	"time"
)

// A Run is some attempts after each other that came to the same.
type Run struct {
	First time.Time `json:"first"` // when the first of them began, to the second
	Last  time.Time `json:"last"`
	Count int       `json:"count"`
	Host  string    `json:"host,omitempty"`
	Reply string    `json:"reply,omitempty"` // 500 bytes of it at most
}

const (
	// maxRuns bounds a history: who was told the same each time has one run, who was told
	// something else each time in five days has twice as many attempts.
	maxRuns = 20
	// maxRunReply is the bytes of a reply in a history: it is written with every change.
	maxRunReply = 500
)

// remember returns history with one more attempt: a new list, because copies of an envelope share
// the old one. What is left out of a long one are the runs after the first, which says how the
// trouble began.
func remember(history []Run, at time.Time, host, reply string) []Run {
	if len(reply) > maxRunReply {
		reply = strings.ToValidUTF8(reply[:maxRunReply], "")
	}
	at = at.Truncate(time.Second)
	history = slices.Clone(history)
	if n := len(history); n > 0 && history[n-1].Host == host && history[n-1].Reply == reply {
		history[n-1].Last = at
		history[n-1].Count++
		return history
	}
	if len(history) >= maxRuns {
		history = slices.Delete(history, 1, len(history)-maxRuns+2)
	}
	return append(history, Run{First: at, Last: at, Count: 1, Host: host, Reply: reply})
}
