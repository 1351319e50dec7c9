package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
)

// A Report is what Check has found.
type Report struct {
	Segments int      `json:"segments"`
	Messages int      `json:"messages"`
	Large    int      `json:"large"` // messages in files of their own
	Bytes    int64    `json:"bytes"` // that were read
	Damage   []Damage `json:"damage"`
	// Aside are segments that were set aside because of damage, at the start or by this Check. All
	// that is whole in them was served before. Health does not name them any more.
	Aside []string `json:"aside"`
}

// Damage is something that is not as it was written.
type Damage struct {
	File string `json:"file"`
	ID   string `json:"id,omitempty"` // of the message that is hit, where that is known
	What string `json:"what"`
}

// Check reads everything that is in the queue, every octet, and compares it with its sums. Mail is
// taken and delivered meanwhile. A segment that is damaged is set aside after what is whole in it
// was written anew. progress, which may be nil, is told how much is done, in bytes. The error is
// that of ctx or of reading.
func (s *LogStore) Check(ctx context.Context, progress func(done, total int64)) (*Report, error) {
	c := &checker{store: s, report: &Report{Damage: []Damage{}, Aside: []string{}}, progress: progress}
	if c.progress == nil {
		c.progress = func(done, total int64) {}
	}
	segments := s.snapshot()
	for _, seg := range segments {
		c.total += seg.end
	}
	s.mu.Lock()
	for _, m := range s.messages {
		if m.large {
			c.total += m.size
		}
	}
	s.mu.Unlock()
	for _, seg := range segments {
		if err := c.segment(ctx, seg); err != nil {
			return nil, err
		}
	}
	if err := c.messages(ctx); err != nil {
		return nil, err
	}
	return c.report, c.acknowledge()
}

type checker struct {
	store       *LogStore
	report      *Report
	progress    func(done, total int64)
	done, total int64
}

// A view is a segment as far as it was written at one moment.
type view struct {
	*segment
	end int64
}

func (s *LogStore) snapshot() []view {
	s.journal.mu.Lock()
	defer s.journal.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []view
	for _, seg := range s.segments {
		list = append(list, view{seg, seg.end})
	}
	return list
}

// segment checks every frame of a segment, those that nobody needs any more as well.
func (c *checker) segment(ctx context.Context, seg view) error {
	scan := scanner{seg: &segment{name: seg.name, file: seg.file}, size: seg.end, bodies: true}
	before := c.done
	err := scan.scan(func(f found) error {
		c.done = before + int64(f.at.off) + f.at.size()
		c.progress(min(c.done, c.total), c.total)
		return ctx.Err()
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case c.store.isRetired(seg.segment):
		return nil
	case err != nil:
	case scan.damage+scan.torn > 0:
		err = fmt.Errorf("%d places in it are damaged", scan.damage+scan.torn)
	}
	c.report.Segments++
	c.report.Bytes += seg.end
	c.done = before + seg.end
	if err == nil {
		return nil
	}
	c.report.Damage = append(c.report.Damage, Damage{File: seg.name, What: err.Error()})
	return c.store.setAsideNow(seg.segment, err)
}

// setAsideNow sets a segment aside. That which is being written to stays where it is until the
// next start finds the damage.
func (s *LogStore) setAsideNow(seg *segment, why error) error {
	s.journal.mu.Lock()
	current := s.journal.current == seg
	s.journal.mu.Unlock()
	if current {
		return nil
	}
	s.tidyTurn.Lock()
	defer s.tidyTurn.Unlock()
	seg.bad = why
	return s.setAside(seg)
}

// messages checks that every message has its envelope and its body.
func (c *checker) messages(ctx context.Context) error {
	var err error
	c.store.List(func(e *Envelope) bool {
		if err = ctx.Err(); err != nil {
			return false
		}
		c.message(e)
		return true
	})
	return err
}

func (c *checker) message(e *Envelope) {
	c.report.Messages++
	body, err := c.store.Body(e.ID)
	if errors.Is(err, ErrNotFound) {
		return // over meanwhile
	}
	n := int64(0)
	if err == nil {
		defer body.Close()
		if n, err = io.Copy(io.Discard, body); err == nil && n != e.Size {
			err = fmt.Errorf("its body has %d bytes, not %d", n, e.Size)
		}
		if _, large := body.(*summed); large {
			c.report.Large++
			c.report.Bytes += n
			c.done += n
			c.progress(min(c.done, c.total), c.total)
		}
	}
	if err == nil {
		return
	}
	if _, gone := c.store.Body(e.ID); !errors.Is(gone, ErrNotFound) {
		c.report.Damage = append(c.report.Damage, Damage{File: c.store.fileOf(e.ID), ID: e.ID, What: err.Error()})
	}
}

// fileOf is where the body of a message is.
func (s *LogStore) fileOf(id string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch m := s.messages[id]; {
	case m == nil:
		return ""
	case m.large:
		return s.largePath(id)
	default:
		return m.body.seg.name
	}
}

// checked is what the name of a segment that was set aside ends in once a Check has named it.
const checked = ".checked"

// acknowledge lists what is set aside.
func (c *checker) acknowledge() error {
	dir := c.store.asideDir()
	names, err := c.store.opt.FS.List(dir)
	for _, name := range names {
		whole := filepath.Join(dir, name)
		if !strings.HasSuffix(name, checked) {
			err = errors.Join(err, c.store.opt.FS.Rename(whole, whole+checked))
			whole += checked
		}
		c.report.Aside = append(c.report.Aside, whole)
	}
	return errors.Join(err, c.store.opt.FS.SyncDir(dir))
}

func (s *LogStore) asideDir() string { return filepath.Join(s.opt.Dir, "damaged") }

// Health is what is wrong with the store; all is well when it is zero.
type Health struct {
	// Failure is why no mail is taken until relayd is started again: a write or a sync has failed.
	Failure error
	// Damaged are segments that were set aside, and no Check has been made since.
	Damaged []string
}

// Health reports what is wrong. It does not look for damage: Check does.
func (s *LogStore) Health() Health {
	h := Health{Failure: s.journal.failure()}
	names, err := s.opt.FS.List(s.asideDir())
	if h.Failure == nil {
		h.Failure = err
	}
	for _, name := range names {
		if !strings.HasSuffix(name, checked) {
			h.Damaged = append(h.Damaged, filepath.Join(s.asideDir(), name))
		}
	}
	return h
}
