package queue

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// A LogStore is the Store of this relay: a journal of envelopes, small bodies and every later
// change, one file for each large body, and an index of all messages in memory that is rebuilt
// from the journal at start. It takes about 250 bytes of memory for a message that waits.
//
// Messages that are over leave holes in the journal. Segments are given up oldest first: what
// still lives in the oldest one is written again at the end once the holes are most of it all.
// That order matters: a kindDone is never given up before the message that it ends.
type LogStore struct {
	opt     StoreOptions
	journal journal
	bodies  sync.Pool // buffers for small ones
	changes idLocks   // held while a message is changed, so that no change overwrites another

	mu       sync.Mutex
	index    index
	messages map[string]*entry
	adding   map[string]bool // IDs that Add is at work on
	order    []*entry        // by ID, which is by time; also some that are over
	segments []*segment      // oldest first
	accounts accounts
	held     int // messages with a held recipient
	cached   int // entries with an envelope in memory
	tidying  bool
	unended  []ending       // of messages that are over, but not on the disk
	crammed  bool           // there was no room to move what lives in the oldest segment
	tidyTurn sync.Mutex     // held while a segment is retired
	idle     sync.WaitGroup // background work
}

// StoreOptions are a LogStore's.
type StoreOptions struct {
	Dir   string
	Group func(*Recipient) string // names the way that a recipient's mail takes; must be quick
	Log   *slog.Logger
	FS    FS // nil: the machine's
	// Reserve is how much room must be left on the disk for a message to be taken: for the
	// changes of those that are here already, and for whoever else uses the disk. On a small disk
	// no more than two segments are reserved.
	ReserveBytes, ReserveFiles uint64
	// MaxMessages and MaxBytes, of bodies, bound the queue; 0: nothing but the disk does.
	MaxMessages, MaxBytes int64
	segmentSize           int64
}

// An entry is what memory holds of a message.
type entry struct {
	id        string
	env, body place // of the latest envelope, and of the body, or of the sum of a large one
	size      int64 // of the body
	slots     []slot
	first     item     // in the index, for one group
	more      *[]*item // for the others
	cache     *Envelope
	account   *account
	large     bool
	held      bool // has a held recipient
	behind    bool // the latest change could not be written: cache is ahead of the disk
}

// maxCached bounds the envelopes kept in memory: those of messages that are just being worked on.
const maxCached = 2000

func (s *LogStore) largePath(id string) string { return filepath.Join(s.opt.Dir, "large", id) }

// TemporaryDir is a folder on the same disk for what is not yet accepted; emptied at each start.
func (s *LogStore) TemporaryDir() string { return filepath.Join(s.opt.Dir, "tmp") }

// Add implements Store.
func (s *LogStore) Add(e *Envelope, body io.Reader, underWay ...*Work) error {
	if err := e.check(); err != nil {
		return err
	}
	if err := s.reserve(e.ID); err != nil {
		return err
	}
	defer s.unreserve(e.ID)
	if err := s.room(e); err != nil {
		return err
	}
	buf := s.bodies.Get().(*[]byte)
	defer s.bodies.Put(buf)
	small, rest, err := readSmall(*buf, body)
	if err != nil {
		return err
	}
	kind, large := byte(kindMessage), rest != nil
	e.Size = int64(len(small))
	if large {
		if e.Size, small, err = s.writeLarge(e.ID, small, rest); err != nil {
			return err
		}
		kind = kindLarge
	}
	head, err := json.Marshal(e)
	if err == nil && len(head) > maxHead {
		err = errors.New("the envelope is too large")
	}
	var at place
	if err == nil {
		at, err = s.journal.append(kind, head, small, true)
	}
	if err != nil {
		if large {
			s.opt.FS.Remove(s.largePath(e.ID))
		}
		return err
	}
	defer at.seg.pending.Done()
	s.mu.Lock()
	defer s.mu.Unlock()
	m := &entry{id: e.ID, large: large, size: e.Size}
	s.own(at.seg)
	s.setEnv(m, at)
	m.body = at
	s.accounts.enter(m, e)
	s.setHeld(m, hasHeld(e))
	s.insert(m)
	s.remember(m, e.copy())
	s.index.note(m, e, time.Time{})
	for _, w := range underWay {
		for _, i := range w.Indexes {
			m.slots[i].taken = true
		}
	}
	s.index.schedule(m)
	return nil
}

// reserve keeps id for one Add.
func (s *LogStore) reserve(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.messages[id] != nil || s.adding[id] {
		return fmt.Errorf("there is a message %s in the queue already", id)
	}
	s.adding[id] = true
	return nil
}

func (s *LogStore) unreserve(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.adding, id)
}

// insert adds a message to those that are known. IDs are made when a transaction begins, so that
// they come almost in order.
func (s *LogStore) insert(m *entry) {
	s.messages[m.id] = m
	i, _ := slices.BinarySearchFunc(s.order, m.id, compareEntry)
	s.order = slices.Insert(s.order, i, m)
}

// own notes a segment that the journal has gone on to.
func (s *LogStore) own(seg *segment) {
	if n := len(s.segments); n == 0 || s.segments[n-1] != seg {
		if !slices.Contains(s.segments, seg) {
			s.segments = append(s.segments, seg)
			s.crammed = false
			s.tidy()
		}
	}
}

// setEnv notes where the latest envelope stands.
func (s *LogStore) setEnv(m *entry, at place) {
	old := m.env
	m.env = at
	if old != at {
		s.unuse(old, m)
	}
	at.seg.live += at.size()
}

// unuse gives up a frame, unless m needs its other half.
func (s *LogStore) unuse(at place, m *entry) {
	if at.seg != nil && at != m.body && at != m.env {
		at.seg.live -= at.size()
	}
}

// remember keeps an envelope in memory while the message is fresh or worked on.
func (s *LogStore) remember(m *entry, e *Envelope) {
	if m.cache == nil {
		s.cached++
	}
	m.cache = e
	s.trim(m)
}

// trim leaves m's envelope to the disk, unless it is the only place where it is or there is room.
func (s *LogStore) trim(m *entry) {
	if m.cache != nil && !m.behind && (s.cached > maxCached || m.env != m.body && !m.taken()) {
		s.forget(m)
	}
}

func (s *LogStore) forget(m *entry) {
	if m.cache != nil {
		m.cache = nil
		s.cached--
	}
}

// maxSmall is the largest body that stands in the journal, in bytes.
const maxSmall = 64 << 10

func newBodyBuffer() any {
	b := make([]byte, maxSmall+1)
	return &b
}

// readSmall reads a body into buf. rest is nil if small is all of it.
func readSmall(buf []byte, body io.Reader) (small []byte, rest io.Reader, err error) {
	switch n, err := io.ReadFull(body, buf); err {
	case io.EOF, io.ErrUnexpectedEOF:
		return buf[:n], nil, nil
	default:
		return buf[:n], body, err
	}
}

// writeLarge makes the file of a large body, durable under its name. sum is what the journal is to
// keep of it.
func (s *LogStore) writeLarge(id string, first []byte, rest io.Reader) (size int64, sum []byte, err error) {
	name := s.largePath(id)
	f, err := s.opt.FS.Create(name)
	if err != nil {
		return 0, nil, err
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			s.opt.FS.Remove(name)
		}
	}()
	h := crc32.New(castagnoli)
	w := io.MultiWriter(io.NewOffsetWriter(f, 0), h)
	n, err := io.CopyBuffer(struct{ io.Writer }{w}, io.MultiReader(bytes.NewReader(first), rest), make([]byte, 64<<10))
	if err != nil {
		return 0, nil, err
	}
	if err := f.Sync(); isFull(err) {
		return 0, nil, err
	} else if err != nil {
		return 0, nil, s.journal.fail(fmt.Errorf("a sync of a message to disk failed, no more mail is taken until the disk is well and relayd is started again: %w", err))
	}
	return n, h.Sum(nil), s.opt.FS.SyncDir(filepath.Dir(name))
}

// setHeld notes whether m has a held recipient.
func (s *LogStore) setHeld(m *entry, held bool) {
	if held != m.held {
		m.held = held
		if held {
			s.held++
		} else {
			s.held--
		}
	}
}

func hasHeld(e *Envelope) bool {
	return slices.ContainsFunc(e.Recipients, func(r Recipient) bool { return r.State == Held })
}
