package queue

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
)

// fullDisk is a disk without room for another file.
func fullDisk(m *memFS) {
	m.free = 0
	m.before = func(op, name string) error {
		if op == "create" {
			return syscall.ENOSPC
		}
		return nil
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
	fullDisk(m)
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
		for n := range 30 {
			ids = append(ids, fmt.Sprintf("MESSAGE%02d", n))
			add(t, s, newEnvelope(t, ids[n], "a@one.test"), strings.Repeat("x", 20_000))
		}
		before := s.Stats().Segments
		fullDisk(m)
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
		m.before = nil
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
