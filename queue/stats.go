package queue

import (
	"slices"
	"time"
)

// Stats are the store's figures. Getting them costs the same however long the queue is.
type Stats struct {
	Messages int
	Held     int       // messages with a held recipient
	Bytes    int64     // of bodies
	Oldest   time.Time // when the oldest was received; zero if there is none
	Segments int
	// Syncs is how often a segment was synced since the start, Commits how many changes waited for
	// a sync, and SyncTime how long all syncs took: Commits/Syncs share one.
	Syncs, Commits int64
	SyncTime       time.Duration
}

// Waiting returns how many recipients wait in each group.
func (s *LogStore) Waiting() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	depth := make(map[string]int, len(s.index.groups))
	for name, g := range s.index.groups {
		if g.waiting > 0 {
			depth[name] = g.waiting
		}
	}
	return depth
}

// DueAfter implements Store.
func (s *LogStore) DueAfter(t time.Time) (ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.messages {
		if slices.ContainsFunc(m.slots, func(r slot) bool { return r.waiting && r.next > t.UnixNano() }) {
			ids = append(ids, m.id)
		}
	}
	return ids
}

// Stats returns the figures of now.
func (s *LogStore) Stats() Stats {
	s.mu.Lock()
	st := Stats{Messages: len(s.messages), Held: s.held, Bytes: s.accounts.total.bytes, Segments: len(s.segments)}
	for _, m := range s.order {
		if s.messages[m.id] != m {
			continue
		}
		if e, err := s.envelope(m); err == nil {
			st.Oldest = e.Received
			break
		}
	}
	s.mu.Unlock()
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	st.Syncs, st.Commits, st.SyncTime = s.journal.counts.syncs, s.journal.counts.appends, s.journal.counts.time
	return st
}
