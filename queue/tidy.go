package queue

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
)

// tidy gives up segments in the background when it is worth it. The caller holds mu.
func (s *LogStore) tidy() {
	if s.tidying || !s.worthTidying() {
		return
	}
	s.tidying = true
	s.idle.Go(func() {
		for {
			s.mu.Lock()
			if !s.worthTidying() {
				s.tidying = false
				s.mu.Unlock()
				return
			}
			oldest := s.segments[0]
			s.mu.Unlock()
			if err := s.retire(oldest); err != nil {
				s.opt.Log.Error("the queue could not be tidied", "error", err.Error())
				return // tidying stays true: what failed once is not tried until the next start
			}
		}
	})
}

// worthTidying: the oldest segment is empty, or most of the journal is holes.
func (s *LogStore) worthTidying() bool {
	if len(s.segments) < 2 {
		return false
	}
	if s.segments[0].live == 0 {
		return true
	}
	var live int64
	for _, seg := range s.segments {
		live += seg.live
	}
	return int64(len(s.segments)-4)*s.opt.segmentSize > 2*live
}

// retire moves what lives in a segment to the end of the journal and removes it, or sets it aside
// if it is damaged, for whoever wants to look into it. That is durable before the next one goes: a
// segment that came back after a power cut must find all that ended its messages.
func (s *LogStore) retire(seg *segment) error {
	if err := s.evacuate(seg); err != nil {
		return err
	}
	s.drop(seg)
	if seg.bad == nil {
		return errors.Join(s.opt.FS.Remove(seg.name), s.opt.FS.SyncDir(s.journal.dir))
	}
	aside := filepath.Join(s.opt.Dir, "damaged")
	err := s.opt.FS.Rename(seg.name, filepath.Join(aside, filepath.Base(seg.name)))
	return errors.Join(err, s.opt.FS.SyncDir(s.journal.dir), s.opt.FS.SyncDir(aside))
}

func (s *LogStore) drop(seg *segment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.segments = slices.DeleteFunc(s.segments, func(o *segment) bool { return o == seg })
	seg.file.Close()
}

// evacuate writes the messages that need seg again.
func (s *LogStore) evacuate(seg *segment) error {
	s.mu.Lock()
	var living []*entry
	if seg.live > 0 {
		for _, m := range s.messages {
			if m.env.seg == seg || m.body.seg == seg {
				living = append(living, m)
			}
		}
	}
	s.mu.Unlock()
	for _, m := range living {
		if err := s.move(m, seg); err != nil {
			return err
		}
	}
	if len(living) == 0 {
		return nil
	}
	return s.journal.settle()
}

// move writes a message again at the end of the journal. One whose frame is damaged cannot be
// moved; it is given up with its segment, which is then kept in damaged/.
func (s *LogStore) move(m *entry, from *segment) error {
	m.change.Lock()
	defer m.change.Unlock()
	s.mu.Lock()
	gone := s.messages[m.id] != m || m.env.seg != from && m.body.seg != from
	s.mu.Unlock()
	if gone {
		return nil
	}
	e, body, err := s.whole(m)
	if errors.Is(err, errBadFrame) {
		s.opt.Log.Error("a message in the queue is damaged and lost", "id", m.id, "error", err.Error())
		s.mu.Lock()
		delete(s.messages, m.id)
		s.index.forget(m)
		s.release(m)
		s.mu.Unlock()
		from.bad = err
		return nil
	}
	if err != nil {
		return err
	}
	head, err := json.Marshal(e)
	if err != nil {
		return err
	}
	kind := byte(kindMessage)
	if m.large {
		kind = kindLarge
	}
	at, err := s.journal.append(kind, head, body, false)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.messages[m.id] != m {
		return nil
	}
	s.own(at.seg)
	env, old := m.env, m.body
	m.env, m.body = at, at
	at.seg.live += at.size()
	s.unuse(env, m)
	if old != env {
		s.unuse(old, m)
	}
	return nil
}

// whole reads a message's envelope and small body.
func (s *LogStore) whole(m *entry) (e *Envelope, body []byte, err error) {
	s.mu.Lock()
	e, err = s.envelope(m)
	at := m.body
	s.mu.Unlock()
	if err == nil && !m.large {
		body, err = readPlace(at, true)
	}
	return e, body, err
}

// Close waits for background work and makes everything durable. Nothing may be called after it.
func (s *LogStore) Close() error {
	s.idle.Wait()
	err := s.journal.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seg := range s.segments {
		err = errors.Join(err, seg.file.Close())
	}
	return err
}
