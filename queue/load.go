package queue

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// A loader rebuilds the index from the journal. It reads the newest segment first, so that the
// first frame that it meets of a message is the one that counts: of the others nothing is decoded.
// Segments are read ahead, and envelopes decoded, on all cores.
type loader struct {
	*LogStore
	now     time.Time
	over    map[string]bool // messages that are done
	large   []string        // the files of large bodies, by name
	overdue int
}

// A met frame is one that the loader has to look at.
type met struct {
	kind byte
	id   string
	head []byte // the envelope
	at   place
}

// readSegments enters all messages and their work. It returns how many are overdue.
func (s *LogStore) readSegments() (overdue int, err error) {
	l := &loader{LogStore: s, now: time.Now(), over: map[string]bool{}}
	if l.large, err = s.opt.FS.List(filepath.Join(s.opt.Dir, "large")); err != nil {
		return 0, err
	}
	read := l.readAhead()
	for _, seg := range slices.Backward(s.segments) {
		r := <-<-read
		if r.err != nil && err == nil {
			err = fmt.Errorf("%s: %w", seg.name, r.err)
		}
		l.enter(r.frames)
	}
	if err != nil {
		return 0, err
	}
	for _, m := range s.messages {
		if err := l.incomplete(m); err != nil {
			l.opt.Log.Error("a message in the queue cannot be read", "id", m.id, "error", err.Error())
			l.drop(m)
			continue
		}
		s.order = append(s.order, m)
		m.env.seg.live += m.env.size()
		if m.body != m.env {
			m.body.seg.live += m.body.size()
		}
	}
	slices.SortFunc(s.order, func(a, b *entry) int { return strings.Compare(a.id, b.id) })
	return l.overdue, nil
}

// A readResult is what a segment holds, in order.
type readResult struct {
	frames []met
	err    error
}

// readAhead reads the segments, newest first, as many at once as there are cores. Whoever
// receives gets the results in that order.
func (l *loader) readAhead() <-chan chan readResult {
	segments, firstOpen := slices.Clone(l.segments), l.firstOpen()
	queue := make(chan chan readResult, runtime.GOMAXPROCS(0))
	go func() {
		for i, seg := range slices.Backward(segments) {
			c := make(chan readResult, 1)
			queue <- c
			go func() {
				frames, err := l.readSegment(seg, i >= firstOpen)
				c <- readResult{frames, err}
			}()
		}
	}()
	return queue
}

// readSegment returns what one segment holds, but for what only a damaged store can hold. An open
// one may have a torn end.
func (l *loader) readSegment(seg *segment, open bool) (frames []met, err error) {
	scan := scanner{seg: seg, bodies: open}
	err = scan.scan(func(f found) error {
		if f.kind == kindDone {
			frames = append(frames, met{kind: f.kind, id: string(f.head), at: f.at})
		} else if id, ok := envelopeID(f.head); ok { // without an ID it is not ours, though its sum is right
			frames = append(frames, met{kind: f.kind, id: id, head: slices.Clone(f.head), at: f.at})
		}
		return nil
	})
	seg.end = max(scan.end, segmentHeader)
	switch {
	case errors.Is(err, ErrNewerStore):
		return nil, err
	case err != nil:
		seg.bad = err
	case scan.damage > 0 || scan.torn > 0 && !open:
		seg.bad = fmt.Errorf("%d places in it are damaged", scan.damage+scan.torn)
	case scan.torn > 0:
		l.opt.Log.Warn("the end of the queue was not wholly written when relayd or the machine went down; what was never answered 250 is dropped", "file", seg.name)
		return frames, seg.wipe()
	}
	if seg.bad != nil {
		l.opt.Log.Error("a part of the queue is damaged: its whole messages are kept, the file is set aside", "file", seg.name, "error", seg.bad.Error())
	}
	return frames, nil
}

// envelopeID reads the ID off an envelope without decoding it all.
func envelopeID(head []byte) (id string, ok bool) {
	rest, ok := bytes.CutPrefix(head[:min(len(head), 80)], []byte(`{"id":"`))
	digits, _, closed := bytes.Cut(rest, []byte(`"`))
	id = string(digits)
	return id, ok && closed && validID(id)
}

// enter enters the frames of a segment, the last first: all later segments were entered before.
func (l *loader) enter(frames []met) {
	var latest []met // of the messages that are met for the first time
	for _, f := range slices.Backward(frames) {
		m := l.messages[f.id]
		if l.over[f.id] || m != nil && m.body.seg != nil {
			continue
		}
		if f.kind == kindDone {
			l.over[f.id] = true
			if m != nil {
				l.drop(m)
			}
			continue
		}
		if m == nil {
			m = &entry{id: f.id, env: f.at}
			l.messages[f.id] = m
			latest = append(latest, f)
		}
		if f.kind != kindEnvelope {
			m.body, m.large = f.at, f.kind == kindLarge
		}
	}
	for i, e := range decodeAll(latest) {
		if m := l.messages[latest[i].id]; m != nil && e != nil {
			l.enterWork(m, e)
		}
	}
}

// enterWork enters the work of a message. That which is overdue is spread over up to a minute, so
// that a start after a long pause is no stampede.
func (l *loader) enterWork(m *entry, e *Envelope) {
	m.size = e.Size
	l.accounts.enter(m, e)
	l.setHeld(m, hasHeld(e))
	notBefore := time.Time{}
	e.resume(l.now)
	if isOverdue(e, l.now) {
		l.overdue++
		notBefore = l.now.Add(rand.N(min(time.Duration(l.overdue)*10*time.Millisecond, time.Minute)))
	}
	l.index.fill(m, e, notBefore)
}

// incomplete reports why a message cannot be served. The file of a large body is missing where the
// message was refused after all, its disk having failed. One whose first record is damaged and whose file
// is as long as a later one says is served; there is no sum for it any more.
func (l *loader) incomplete(m *entry) error {
	_, ok := slices.BinarySearch(l.large, m.id)
	if m.account != nil && m.body.seg == nil && ok && l.isWhole(m) {
		m.body, m.large = m.env, true
	}
	switch {
	case m.account == nil:
		return errors.New("its envelope is not one of ours")
	case m.body.seg == nil:
		return errors.New("its first record is damaged")
	case m.large && !ok:
		return errors.New("its body is not there")
	}
	return nil
}

// isWhole reports whether the file of a large body is as long as its envelope says.
func (l *loader) isWhole(m *entry) bool {
	f, err := l.opt.FS.Open(l.largePath(m.id))
	if err != nil {
		return false
	}
	defer f.Close()
	size, err := f.Size()
	return err == nil && size == m.size
}

// drop forgets a message.
func (l *loader) drop(m *entry) {
	delete(l.messages, m.id)
	l.index.forget(m)
	l.setHeld(m, false)
	if m.account != nil {
		l.accounts.leave(m)
	}
}

// decodeAll decodes envelopes on all cores. One that is not ours is nil.
func decodeAll(frames []met) []*Envelope {
	results := make([]*Envelope, len(frames))
	var wg sync.WaitGroup
	size := len(frames)/runtime.GOMAXPROCS(0) + 1
	for begin := 0; begin < len(frames); begin += size {
		wg.Go(func() {
			for i := begin; i < min(begin+size, len(frames)); i++ {
				e := new(Envelope)
				if json.Unmarshal(frames[i].head, e) == nil && e.check() == nil {
					results[i] = e
				}
			}
		})
	}
	wg.Wait()
	return results
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
	return slices.ContainsFunc(e.Recipients, func(r Recipient) bool { return r.Scheduled() && r.Next.Before(now) })
}
