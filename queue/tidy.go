package queue

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"
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
			s.mu.Unlock()
			if err := s.retireOldest(); err != nil {
				s.opt.Log.Error("the queue could not be tidied", "error", err.Error())
				s.giveUpTidying(err)
				return
			}
		}
	})
}

// giveUpTidying notes why a segment could not be retired. One that nothing could be moved out of goes
// when it is empty, or when there is room for others. One that could not be removed is not passed over
// until the next start.
func (s *LogStore) giveUpTidying(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.crammed = errors.Is(err, errNotMoved)
	s.tidying = !s.crammed
}

// errNotMoved says that what lives in a segment is still there.
var errNotMoved = errors.New("messages cannot be moved")

// retireOldest retires the oldest segment if that is still worth it: somebody else may have done
// so meanwhile.
func (s *LogStore) retireOldest() error {
	s.tidyTurn.Lock()
	defer s.tidyTurn.Unlock()
	s.mu.Lock()
	oldest, worth := s.segments[0], s.worthTidying()
	s.mu.Unlock()
	if !worth {
		return nil
	}
	return s.retire(oldest)
}

// worthTidying: the oldest segment is empty, or most of the journal is holes.
func (s *LogStore) worthTidying() bool {
	if len(s.segments) < 2 {
		return false
	}
	if s.segments[0].live == 0 || s.crammed {
		return s.segments[0].live == 0
	}
	size, live := -4*s.opt.segmentSize, int64(0)
	for _, seg := range s.segments {
		size += seg.size
		live += seg.live
	}
	return size > 2*live
}

// retire moves what lives in a segment to the end of the journal and removes it, or sets it aside
// if it is damaged, for whoever wants to look into it. That is durable before the next one goes: a
// segment that came back after a power cut must find all that ended its messages.
func (s *LogStore) retire(seg *segment) error {
	seg.pending.Wait() // the journal has gone on to another one: none is added
	if err := s.evacuate(seg); err != nil {
		return fmt.Errorf("%w: %w", errNotMoved, err)
	}
	s.drop(seg)
	if seg.bad == nil {
		return errors.Join(s.opt.FS.Remove(seg.name), s.opt.FS.SyncDir(s.journal.dir))
	}
	aside := s.asideDir()
	err := s.opt.FS.Rename(seg.name, filepath.Join(aside, filepath.Base(seg.name)))
	return errors.Join(err, s.opt.FS.SyncDir(s.journal.dir), s.opt.FS.SyncDir(aside))
}

// setAside retires a damaged segment, and all that are older: what it says of the end of their
// messages goes with it.
func (s *LogStore) setAside(seg *segment) error {
	for !s.isRetired(seg) {
		s.mu.Lock()
		oldest := s.segments[0]
		s.mu.Unlock()
		if err := s.retire(oldest); err != nil {
			return err
		}
	}
	return nil
}

func (s *LogStore) isRetired(seg *segment) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !slices.Contains(s.segments, seg)
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
	defer s.changes.lock(m.id)()
	s.mu.Lock()
	gone := s.messages[m.id] != m || m.env.seg != from && m.body.seg != from
	s.mu.Unlock()
	if gone {
		return nil
	}
	e, body, err := s.whole(m)
	if errors.Is(err, errBadFrame) && s.rewind(m) {
		e, body, err = s.whole(m)
	}
	if errors.Is(err, errBadFrame) {
		s.opt.Log.Error("a message in the queue is damaged and lost", "id", m.id, "error", err.Error())
		s.mu.Lock()
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
	defer at.seg.pending.Done()
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

// rewind brings a message whose latest envelope is damaged back to what it was when it came, and reports
// whether that can be read: some of it may be done twice.
func (s *LogStore) rewind(m *entry) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := new(Envelope)
	head, err := readPlace(m.body, false)
	if err != nil || json.Unmarshal(head, e) != nil || e.check() != nil {
		return false
	}
	s.opt.Log.Error("what became of a message in the queue is damaged: it is tried as if it had just come", "id", m.id)
	s.index.forget(m)
	m.slots, m.behind = nil, true
	s.remember(m, e)
	s.setHeld(m, hasHeld(e))
	s.index.fill(m, e, time.Time{})
	return true
}

// whole reads a message's envelope and what the journal has of its body. The sum of a large body may be
// missing.
func (s *LogStore) whole(m *entry) (e *Envelope, body []byte, err error) {
	s.mu.Lock()
	e, err = s.envelope(m)
	at := m.body
	s.mu.Unlock()
	if err == nil {
		body, err = readPlace(at, true)
	}
	if errors.Is(err, errBadFrame) && e != nil && m.large {
		return e, nil, nil
	}
	return e, body, err
}

// Close waits for background work and makes everything durable. Nothing may be called after it.
func (s *LogStore) Close() error {
	err := s.writeEnds()
	s.idle.Wait()
	err = errors.Join(err, s.journal.close())
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seg := range s.segments {
		err = errors.Join(err, seg.file.Close())
	}
	return err
}
