package queue

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
)

// setFull has a disk have room for another file, or not.
func setFull(m *memFS, full bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.free, m.before = 1<<40, nil
	if full {
		m.free = 0
		m.before = func(op, name string) error {
			if op == "create" {
				return syscall.ENOSPC
			}
			return nil
		}
	}
}

// TestStartOnAFullDisk: segments are smaller where there is little room, and the one that has room left
// was taken for full: relayd did not start, and what would have made room was not delivered.
func TestStartOnAFullDisk(t *testing.T) {
	m := newMemFS()
	opt := StoreOptions{Dir: "q", FS: m, Group: byDomain, Log: quiet}
	s, err := OpenStore(opt)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 20 {
		add(t, s, newEnvelope(t, fmt.Sprintf("MESSAGE%d", n), "a@one.test"), strings.Repeat("x", 20_000))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	setFull(m, true)
	if s, err = OpenStore(opt); err != nil {
		t.Fatal(err)
	}
	for _, id := range listed(s) {
		e := s.Get(id)
		e.Recipients[0].State = Delivered
		if err := s.Update(id, map[int]Recipient{0: e.Recipients[0]}, true); err != nil {
			t.Fatal(err)
		}
	}
	if s, err = OpenStore(opt); err != nil || len(listed(s)) > 0 {
		t.Errorf("%v, and %d messages are back", err, len(listed(s)))
	}
}

// TestTidyOnAFullDisk: messages could not be moved out of the oldest segment while the disk was full,
// and from then on nothing was given up until the next start, not even what was empty.
func TestTidyOnAFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemFS()
		s := open(t, m, "q")
		var ids []string
		for n := 0; ; n++ {
			if n == 30 {
				setFull(m, true)
			}
			id := fmt.Sprintf("MESSAGE%02d", n)
			if err := s.Add(newEnvelope(t, id, "a@one.test"), strings.NewReader(strings.Repeat("x", 20_000))); n >= 30 && err != nil {
				break // all that was made beforehand is used up
			} else if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, id)
		}
		before := s.Stats().Segments
		end := func(id string) {
			if err := s.Remove(id); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		for _, id := range ids[1:] { // the oldest segment stays in use
			end(id)
		}
		if n := s.Stats().Segments; n != before {
			t.Fatalf("%d of %d segments are left: the test does not bring about what it is for", n, before)
		}
		end(ids[0])
		if n := s.Stats().Segments; n > 2 {
			t.Errorf("%d of %d segments are left of an empty queue", n, before)
		}
		setFull(m, false)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestEndsOnAFullDisk: what was delivered while its end could not be written came back at the next
// start, though there had been room in between, and its file stayed till then.
func TestEndsOnAFullDisk(t *testing.T) {
	m := newMemFS()
	s := open(t, m, "q")
	add(t, s, newEnvelope(t, "LARGELARGE", "a@one.test"), strings.Repeat("x", 100_000))
	add(t, s, newEnvelope(t, "SMALLSMALL", "a@one.test"), strings.Repeat("x", 10_000))
	setFull(m, true)
	s.journal.current.size = s.journal.current.end // as if it were full
	deliver := func(id string) error {
		e := s.Get(id)
		e.Recipients[0].State = Delivered
		return s.Update(id, map[int]Recipient{0: e.Recipients[0]}, true)
	}
	for _, id := range []string{"LARGELARGE", "SMALLSMALL"} {
		if err := deliver(id); err == nil {
			t.Fatal("there is room for the end of a message: the test does not bring about what it is for")
		}
	}
	setFull(m, false)
	add(t, s, newEnvelope(t, "NEXTNEXT", "a@one.test"), "x")
	if err := deliver("NEXTNEXT"); err != nil {
		t.Fatal(err)
	}
	if files, _ := m.List("q/large"); len(files) > 0 {
		t.Errorf("files are left: %q", files)
	}
	if back := listed(open(t, m, "q")); len(back) > 0 {
		t.Errorf("after a start these are back: %q", back)
	}
}

// TestTidyOfLargerSegments: after a start with little room new segments are small, and the old ones, full
// of holes, were reckoned to be as small: they kept the room until their last message was over.
func TestTidyOfLargerSegments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemFS()
		s := open(t, m, "q")
		for n := range 30 {
			add(t, s, newEnvelope(t, fmt.Sprintf("MESSAGE%02d", n), "a@one.test"), strings.Repeat("x", 20_000))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s, err := OpenStore(StoreOptions{Dir: "q", FS: m, Group: byDomain, Log: quiet, segmentSize: 4 << 10})
		if err != nil {
			t.Fatal(err)
		}
		before := s.Stats().Segments
		for _, id := range listed(s)[1:] {
			if err := s.Remove(id); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if n := s.Stats().Segments; n > 3 || before < 10 {
			t.Errorf("%d of %d segments are left of one message", n, before)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
