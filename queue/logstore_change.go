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

// finish ends a message. That of a large one is synced before its body goes, for a body that is
// gone cannot be found again after a power cut and its envelope can. A message whose end cannot
// be written is over all the same until the next start.
func (s *LogStore) finish(m *entry) error {
	at, err := s.journal.append(kindDone, []byte(m.id), nil, m.large)
	s.mu.Lock()
	if err == nil {
		s.own(at.seg)
		at.seg.pending.Done()
	}
	s.release(m)
	s.mu.Unlock()
	if m.large && err == nil {
		err = s.opt.FS.Remove(s.largePath(m.id))
	}
	return err
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
