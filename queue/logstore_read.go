package queue

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math"
	"slices"
	"strings"
	"time"
)

func compareEntry(e *entry, id string) int { return strings.Compare(e.id, id) }

// envelope returns the latest envelope of m. The caller holds mu or m.change.
func (s *LogStore) envelope(m *entry) (*Envelope, error) {
	if m.cache != nil {
		return m.cache.copy(), nil
	}
	head, err := readPlace(m.env, false)
	if err != nil {
		return nil, err
	}
	e := new(Envelope)
	if err := json.Unmarshal(head, e); err != nil {
		return nil, err
	}
	return e, nil
}

// Get implements Store.
func (s *LogStore) Get(id string) *Envelope {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.messages[id]
	if m == nil {
		return nil
	}
	e, err := s.envelope(m)
	if err != nil {
		s.opt.Log.Error("an envelope in the queue cannot be read", "id", id, "error", err.Error())
		return nil
	}
	return e
}

// Body implements Store.
func (s *LogStore) Body(id string) (io.ReadCloser, error) {
	for {
		s.mu.Lock()
		m := s.messages[id]
		if m == nil {
			s.mu.Unlock()
			return nil, ErrNotFound
		}
		at, large := m.body, m.large
		s.mu.Unlock()
		b, err := readPlace(at, true)
		if err == nil && large {
			return s.openLarge(id, b)
		}
		if err == nil {
			return io.NopCloser(bytes.NewReader(b)), nil
		}
		s.mu.Lock()
		moved := s.messages[id] == m && m.body != at
		s.mu.Unlock()
		if !moved { // it was not just on its way to another segment
			return nil, err
		}
	}
}

// openLarge opens the file of a large body. Its last Read fails if the sum, where there is one, is not
// right, so that nobody takes what is damaged for the whole.
func (s *LogStore) openLarge(id string, sum []byte) (io.ReadCloser, error) {
	f, err := s.opt.FS.Open(s.largePath(id))
	if err != nil {
		return nil, err
	}
	return &summed{Reader: io.NewSectionReader(f, 0, math.MaxInt64), Closer: f, name: s.largePath(id), hash: crc32.New(castagnoli), sum: sum}, nil
}

// summed reads a file and checks its sum at the end.
type summed struct {
	io.Reader
	io.Closer
	name string
	hash hash.Hash32
	sum  []byte
}

func (f *summed) Read(b []byte) (int, error) {
	n, err := f.Reader.Read(b)
	f.hash.Write(b[:n])
	if err == io.EOF && len(f.sum) > 0 && !bytes.Equal(f.hash.Sum(nil), f.sum) {
		err = fmt.Errorf("%s: %w", f.name, errBadFile)
	}
	return n, err
}

var errBadFile = errors.New("the file of a large message is damaged")

// List calls yield for each message, oldest first, until it returns false.
func (s *LogStore) List(yield func(*Envelope) bool) { s.Search("", yield) }

// Search implements Store. It holds no lock while it reads and yield works, and shows the queue as
// it is when each message has its turn.
func (s *LogStore) Search(text string, yield func(*Envelope) bool) {
	after := ""
	for {
		page := s.page(after, 200)
		if len(page) == 0 {
			return
		}
		for _, m := range page {
			if e := s.look(m, text); e != nil && !yield(e) {
				return
			}
		}
		after = page[len(page)-1].entry.id
	}
}

// A pageEntry is a message as it was when its page was made.
type pageEntry struct {
	entry *entry
	env   place
	cache *Envelope
}

// page returns up to n messages whose IDs come after one.
func (s *LogStore) page(after string, n int) (page []pageEntry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, found := slices.BinarySearchFunc(s.order, after, compareEntry)
	if found {
		i++
	}
	for ; i < len(s.order) && len(page) < n; i++ {
		if m := s.order[i]; s.messages[m.id] == m {
			page = append(page, pageEntry{m, m.env, m.cache})
		}
	}
	return page
}

// look reads the envelope of a listed message, nil if text is not in it or it is over.
func (s *LogStore) look(m pageEntry, text string) *Envelope {
	if m.cache != nil {
		return m.cache.copy()
	}
	head, err := readPlace(m.env, false)
	if err != nil { // it was just on its way to another segment, or is over
		return s.Get(m.entry.id)
	}
	if !bytes.Contains(head, []byte(text)) {
		return nil
	}
	e := new(Envelope)
	if json.Unmarshal(head, e) != nil {
		return nil
	}
	return e
}

// Claim implements Store.
func (s *LogStore) Claim(now time.Time, limit int, free func(group string, waiting int) bool) ([]*Work, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	claimed, next := s.index.claim(now, limit, free)
	work := make([]*Work, len(claimed))
	for n, c := range claimed {
		work[n] = s.work(c, now)
	}
	return work, next
}

// work makes the Work for a claim. That of a message whose envelope cannot be read is empty, and it
// comes up again after a while: what a disk does not read now it may read then.
func (s *LogStore) work(c claim, now time.Time) *Work {
	id := c.entry.id
	w := &Work{Group: c.group, Indexes: c.indexes, Body: func() (io.ReadCloser, error) { return s.Body(id) }}
	e, err := s.envelope(c.entry)
	if err != nil {
		s.opt.Log.Error("an envelope in the queue cannot be read: it is read again later, and `relay-util queue-check` looks for damage",
			"id", id, "error", err.Error())
		s.index.postpone(c, now.Add(firstRetry))
		w.Envelope, w.Indexes = &Envelope{ID: id}, nil
		return w
	}
	s.remember(c.entry, e.copy())
	w.Envelope = e
	return w
}

// Done implements Store.
func (s *LogStore) Done(w *Work) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.messages[w.Envelope.ID]; m != nil {
		s.index.giveBack(m, w)
		if !m.behind && !m.taken() {
			s.forget(m)
		}
	}
}
