package queue

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
)

// find returns a message with its file locked, nil if there is none.
func (s *FileStore) find(id string) *entry {
	s.mu.Lock()
	m := s.messages[id]
	s.mu.Unlock()
	if m == nil {
		return nil
	}
	m.file.Lock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.messages[id] != m { // removed meanwhile
		m.file.Unlock()
		return nil
	}
	return m
}

// Update implements Store.
func (s *FileStore) Update(id string, changes map[int]Recipient, sync bool) error {
	m := s.find(id)
	if m == nil {
		return ErrNotFound
	}
	defer m.file.Unlock()
	s.mu.Lock()
	if err := m.env.change(changes); err != nil {
		s.mu.Unlock()
		return err
	}
	s.index.schedule(m)
	now := m.env.copy()
	s.mu.Unlock()
	err := s.record(m, now, changes, sync)
	if now.done() {
		// Also when the record failed: it is delivered, and on a full disk this makes room.
		s.forget(id, m)
		s.discard(s.path(id))
	}
	return err
}

// record writes a change behind those before it. After one that failed, what is written next is
// all recipients as they are now, in place of what may stand there half-written.
func (s *FileStore) record(m *entry, now *Envelope, changes map[int]Recipient, sync bool) error {
	f, err := s.disk.Open(s.path(now.ID), os.O_WRONLY)
	if err != nil {
		m.behind = true
		return err
	}
	defer f.Close()
	if m.behind {
		if err := f.Truncate(m.end); err != nil {
			return err
		}
		changes = map[int]Recipient{}
		for i, r := range now.Recipients {
			changes[i] = r
		}
	}
	m.behind = true
	line, err := json.Marshal(changes)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(append(line, '\n'), m.end); err != nil {
		return err
	}
	if sync {
		if err := s.sync(f); err != nil {
			return err
		}
	}
	m.end += int64(len(line)) + 1
	m.behind = false
	return nil
}

// Remove implements Store.
func (s *FileStore) Remove(id string) error {
	m := s.find(id)
	if m == nil {
		return ErrNotFound
	}
	defer m.file.Unlock()
	if err := s.disk.Remove(s.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.forget(id, m)
	return s.syncFolder()
}

func (s *FileStore) forget(id string, m *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index.forget(m)
	delete(s.messages, id)
}
