package queue

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// OpenStore opens the queue in opt.Dir, creating it where there is none. Damage is no error: a
// damaged segment is set aside in damaged/, after its whole frames were written anew, and logged.
func OpenStore(opt StoreOptions) (*LogStore, error) {
	if opt.FS == nil {
		opt.FS = osFS{}
	}
	if err := opt.FS.MkdirAll(opt.Dir); err != nil {
		return nil, err
	}
	if opt.segmentSize == 0 {
		free, _, err := opt.FS.Free(opt.Dir)
		if err != nil {
			return nil, err
		}
		opt.segmentSize = fitSegment(free)
	}
	opt.ReserveBytes = min(opt.ReserveBytes, 2*uint64(opt.segmentSize))
	s := &LogStore{opt: opt, messages: map[string]*entry{}, adding: map[string]bool{}}
	s.index.init(opt.Group)
	s.journal = journal{fs: opt.FS, dir: filepath.Join(opt.Dir, "log"), size: opt.segmentSize, spare: make(chan *segment, 1)}
	for _, d := range []string{"log", "large", "tmp", "damaged"} {
		if err := opt.FS.MkdirAll(filepath.Join(opt.Dir, d)); err != nil {
			return nil, err
		}
	}
	if err := s.clear("tmp", func(string) bool { return true }); err != nil {
		return nil, err
	}
	if err := s.clear("log", func(name string) bool { return strings.HasSuffix(name, ".new") }); err != nil {
		return nil, err
	}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("opening the queue: %w", err)
	}
	return s, nil
}

// clear removes files from a folder of the store.
func (s *LogStore) clear(dir string, which func(name string) bool) error {
	dir = filepath.Join(s.opt.Dir, dir)
	names, err := s.opt.FS.List(dir)
	for _, name := range names {
		if which(name) {
			err = errors.Join(err, s.opt.FS.Remove(filepath.Join(dir, name)))
		}
	}
	return err
}

// load rebuilds the index from the segments and makes the journal ready to go on.
func (s *LogStore) load() error {
	names, err := s.opt.FS.List(s.journal.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := s.openSegment(name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	open := s.firstOpen()
	for i, seg := range s.segments {
		if err := s.loadSegment(seg, i >= open); err != nil {
			return fmt.Errorf("%s: %w", seg.name, err)
		}
	}
	if err := s.begin(); err != nil {
		return err
	}
	overdue, err := s.enter()
	if err != nil {
		return err
	}
	for _, seg := range slices.Clone(s.segments) {
		if seg.bad != nil {
			if err := s.retire(seg); err != nil {
				return err
			}
		}
	}
	left, err := s.opt.FS.List(filepath.Join(s.opt.Dir, "damaged"))
	s.damaged = len(left) > 0
	if len(s.messages) > 0 {
		s.opt.Log.Info("queue loaded", "messages", len(s.messages), "segments", len(s.segments), "overdue", overdue)
	}
	return errors.Join(err, s.clear("large", func(name string) bool { return s.messages[name] == nil }))
}

// openSegment opens a file of the journal.
func (s *LogStore) openSegment(name string) error {
	digits, ok := strings.CutSuffix(name, ".log")
	number, err := strconv.ParseUint(digits, 10, 32)
	if !ok || err != nil {
		return nil // not ours
	}
	seg := &segment{number: uint32(number), name: filepath.Join(s.journal.dir, name)}
	if seg.file, err = s.opt.FS.Open(seg.name); err != nil {
		return err
	}
	s.segments = append(s.segments, seg)
	return nil
}

// firstOpen is the index of the segment that was written last: those behind it were made
// beforehand. All before it were synced to their end.
func (s *LogStore) firstOpen() int {
	for i := len(s.segments) - 1; i > 0; i-- {
		var b [4]byte
		if n, _ := s.segments[i].file.ReadAt(b[:], segmentHeader); n > 0 && !allZero(b[:n]) {
			return i
		}
	}
	return 0
}

// loadSegment notes what is in one segment. An open one may have a torn end.
func (s *LogStore) loadSegment(seg *segment, open bool) error {
	scan := scanner{seg: seg, bodies: open}
	err := scan.scan(s.meet)
	switch {
	case errors.Is(err, ErrNewerStore):
		return err
	case err != nil:
		seg.bad = err
	case scan.damage > 0 || scan.torn > 0 && !open:
		seg.bad = fmt.Errorf("%d places in it are damaged", scan.damage+scan.torn)
	case scan.torn > 0:
		s.opt.Log.Warn("the end of the queue was not wholly written when relayd or the machine went down; what was never answered 250 is dropped", "file", seg.name)
		return seg.wipe()
	}
	if seg.bad != nil {
		s.opt.Log.Error("a part of the queue is damaged: its whole messages are kept, the file is set aside", "file", seg.name, "error", seg.bad.Error())
	}
	return nil
}

// meet notes one frame. Envelopes are decoded when all are known, for most are over by then.
func (s *LogStore) meet(f found) error {
	switch f.kind {
	case kindMessage, kindLarge:
		id, err := envelopeID(f.head)
		if err != nil {
			return nil // a frame of a whole sum without an ID: not ours
		}
		m := s.messages[id]
		if m == nil {
			m = &entry{id: id}
			s.messages[id] = m
		}
		m.env, m.body, m.large = f.at, f.at, f.kind == kindLarge
	case kindEnvelope:
		if id, err := envelopeID(f.head); err == nil && s.messages[id] != nil {
			s.messages[id].env = f.at
		}
	case kindDone:
		delete(s.messages, string(f.head))
	}
	return nil
}

// envelopeID reads the ID off an envelope without decoding it all.
func envelopeID(head []byte) (string, error) {
	const before = `{"id":"`
	rest, ok := strings.CutPrefix(string(head[:min(len(head), 80)]), before)
	id, _, ok2 := strings.Cut(rest, `"`)
	if !ok || !ok2 || !validID(id) {
		return "", errors.New("no ID")
	}
	return id, nil
}

// begin has the journal go on in the last segment, or in a new one if that is full or damaged.
func (s *LogStore) begin() error {
	number := uint32(1)
	if n := len(s.segments); n > 0 {
		last := s.segments[n-1]
		if last.bad == nil && last.end < s.journal.size {
			s.journal.current = last
			return nil
		}
		number = last.number + 1
	}
	seg, err := s.journal.create(number)
	if err != nil {
		return err
	}
	s.journal.current = seg
	s.segments = append(s.segments, seg)
	return nil
}

// enter decodes the envelopes of all messages and enters their work, that which is overdue spread
// over up to a minute, so that a start after a long pause is no stampede.
func (s *LogStore) enter() (overdue int, err error) {
	now := time.Now()
	files, err := s.opt.FS.List(filepath.Join(s.opt.Dir, "large"))
	if err != nil {
		return 0, err
	}
	for id, m := range s.messages {
		e, err := s.decode(m, files)
		if err != nil {
			s.opt.Log.Error("a message in the queue cannot be read", "id", id, "error", err.Error())
			delete(s.messages, id)
			continue
		}
		m.size, m.held = e.Size, hasHeld(e)
		m.env.seg.live += m.env.size()
		if m.body != m.env {
			m.body.seg.live += m.body.size()
		}
		s.order = append(s.order, m)
		notBefore := time.Time{}
		e.resume(now)
		if isOverdue(e, now) {
			overdue++
			notBefore = now.Add(rand.N(min(time.Duration(overdue)*10*time.Millisecond, time.Minute)))
		}
		s.index.fill(m, e, notBefore)
	}
	slices.SortFunc(s.order, func(a, b *entry) int { return strings.Compare(a.id, b.id) })
	return overdue, nil
}

// decode reads the envelope of m, and makes sure that a large body is there. It is missing where
// the message was refused after all, its disk having failed.
func (s *LogStore) decode(m *entry, files []string) (*Envelope, error) {
	if _, ok := slices.BinarySearch(files, m.id); m.large && !ok {
		return nil, errors.New("its body is not there")
	}
	head, err := readPlace(m.env, false)
	if err != nil {
		return nil, err
	}
	e := new(Envelope)
	if err := json.Unmarshal(head, e); err != nil {
		return nil, err
	}
	return e, e.check()
}

// crashes is how many attempts in a row may end with the process before the message is taken for
// the cause and waits its time.
const crashes = 2

// resume makes due what was being tried when the process ended: most likely it was not to blame.
func (e *Envelope) resume(now time.Time) {
	for i := range e.Recipients {
		if r := &e.Recipients[i]; r.Trying && r.Attempts <= crashes {
			r.Next = now.Add(-time.Second)
		}
	}
}

func isOverdue(e *Envelope, now time.Time) bool {
	return slices.ContainsFunc(e.Recipients, func(r Recipient) bool { return r.State == Waiting && r.Next.Before(now) })
}
