package queue

import (
	"encoding/json"
	"slices"
	"time"
)

// find returns a message with its changes locked, nil if there is none.
func (s *LogStore) find(id string) (m *entry, unlock func()) {
	unlock = s.changes.lock(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if m = s.messages[id]; m == nil {
		unlock()
	}
	return m, unlock
}

// Update implements Store.
func (s *LogStore) Update(id string, changes map[int]Recipient, sync bool) error {
	m, unlock := s.find(id)
	if m == nil {
		return ErrNotFound
	}
	defer unlock()
	s.mu.Lock()
	e, err := s.envelope(m)
	if err == nil {
		err = e.change(changes)
	}
	if err == nil {
		// In force from here on, whatever the disk says: what was delivered is not to be sent
		// again because a disk is full.
		m.behind = true
		s.remember(m, e)
		s.setHeld(m, hasHeld(e))
		s.index.fill(m, e, time.Time{})
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if e.done() {
		return s.finish(m)
	}
	head, err := json.Marshal(e)
	if err != nil {
		return err
	}
	at, err := s.journal.append(kindEnvelope, head, nil, sync)
	if err != nil {
		return err
	}
	defer at.seg.pending.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.own(at.seg)
	s.setEnv(m, at)
	m.behind = false
	s.trim(m)
	return nil
}

// Remove implements Store.
func (s *LogStore) Remove(id string) error {
	m, unlock := s.find(id)
	if m == nil {
		return ErrNotFound
	}
	defer unlock()
	if err := s.finish(m); err != nil {
		return err
	}
	return s.journal.settle()
}

// finish ends a message. Where its end cannot be written it is over all the same until the next start,
// and its end is written with that of another one when there is room again.
func (s *LogStore) finish(m *entry) error {
	s.mu.Lock()
	s.unended = append(s.unended, ending{m.id, m.large})
	s.mu.Unlock()
	err := s.writeEnds()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.release(m)
	return err
}

// An ending is that of a message with a body in a file, or without.
type ending struct {
	id    string
	large bool
}

// writeEnds writes the ends that are to be written, the latest first.
func (s *LogStore) writeEnds() error {
	s.mu.Lock()
	ends := s.unended
	s.unended = nil
	s.mu.Unlock()
	for n := len(ends) - 1; n >= 0; n-- {
		if err := s.writeEnd(ends[n]); err != nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.unended = append(s.unended, ends[:n+1]...)
			return err
		}
	}
	return nil
}

// writeEnd writes that a message is over. For a large one that is synced before its body goes, for a
// body that is gone cannot be found again after a power cut and its envelope can.
func (s *LogStore) writeEnd(e ending) error {
	at, err := s.journal.append(kindDone, []byte(e.id), nil, e.large)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.own(at.seg)
	at.seg.pending.Done()
	s.mu.Unlock()
	if !e.large {
		return nil
	}
	if err := s.opt.FS.Remove(s.largePath(e.id)); err != nil {
		s.opt.Log.Error("the file of a message that is over stays until the next start", "id", e.id, "error", err.Error())
	}
	return nil
}

// release takes a message out that is over, and gives up what it holds.
func (s *LogStore) release(m *entry) {
	delete(s.messages, m.id)
	s.index.forget(m)
	s.setHeld(m, false)
	s.accounts.leave(m)
	s.forget(m)
	env, body := m.env, m.body
	m.env, m.body = place{}, place{}
	s.unuse(env, m)
	if body != env {
		s.unuse(body, m)
	}
	for len(s.order) > 0 && s.messages[s.order[0].id] != s.order[0] {
		s.order = s.order[1:]
	}
	if len(s.order) > 1000 && len(s.order) > 2*len(s.messages) {
		s.order = slices.DeleteFunc(s.order, func(o *entry) bool { return s.messages[o.id] != o })
	}
	s.tidy()
}
