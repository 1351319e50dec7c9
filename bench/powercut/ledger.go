package main

import (
	"sync"
	"time"

	"relayd/bench/load"
	"relayd/internal/sink"
)

// A ledger notes when messages were seen, by the ID that the load generator gave them. Safe for
// concurrent use.
type ledger struct {
	mu      sync.Mutex
	times   map[string][]time.Time
	damaged int
}

func newLedger() *ledger { return &ledger{times: map[string][]time.Time{}} }

// accept notes an answer of 250. It does so after it was read: the message was promised by then.
func (l *ledger) accept(id string) { l.note(id, time.Now(), true) }

// arrive notes a delivery. Its time is before it is answered: what relayd knows of, is noted.
func (l *ledger) arrive(m *sink.Message) { l.note(load.ID(m.Data), m.At, load.Whole(m.Data)) }

func (l *ledger) note(id string, at time.Time, whole bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.times[id] = append(l.times[id], at)
	if !whole {
		l.damaged++
	}
}

// until counts how often each message was seen before an instant.
func (l *ledger) until(instant time.Time) map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := map[string]int{}
	for id, times := range l.times {
		for _, t := range times {
			if t.Before(instant) {
				seen[id]++
			}
		}
	}
	return seen
}

// broken is how many messages arrived with other bytes than they were sent with.
func (l *ledger) broken() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.damaged
}
