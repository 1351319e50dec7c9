package queue

import (
	"slices"
	"strings"
	"testing"
)

// damage changes a bit in the envelope that stands at a place.
func damage(m *memFS, at place) { m.nodes[at.seg.name].data[int(at.off)+frameSize+10] ^= 1 }

// addVictim adds a message of which an attempt is recorded, in a segment that is full by then.
func addVictim(t *testing.T, s *LogStore, body string) *entry {
	t.Helper()
	e := newEnvelope(t, "0000000VICTIM", "a@one.test")
	add(t, s, e, body)
	r := e.Recipients[0]
	r.Attempts = 1
	if err := s.Update(e.ID, map[int]Recipient{0: r}, true); err != nil {
		t.Fatal(err)
	}
	fillSegments(t, s)
	return s.messages[e.ID]
}

// TestLargeBodyOutlivesItsFirstRecord: the first record of a large message was damaged. A later one told
// all of it and its body was whole, and both were thrown away.
func TestLargeBodyOutlivesItsFirstRecord(t *testing.T) {
	m := newMemFS()
	body := strings.Repeat("y", 100_000)
	s := open(t, m, "q")
	v := addVictim(t, s, body)
	damage(m, v.body)
	for range 3 { // it has to stand in the journal for good
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, m, "q")
		if got := bodyOf(t, s, v.id); got != body || s.Get(v.id).Recipients[0].Attempts != 1 {
			t.Fatalf("%d octets of %s are left", len(got), text(s.Get(v.id)))
		}
		fillSegments(t, s)
	}
}

// TestBodyBesideDamage: where nothing tells of a large body, and there is damage, it is kept for whoever
// looks into that.
func TestBodyBesideDamage(t *testing.T) {
	m := newMemFS()
	s := open(t, m, "q")
	v := addVictim(t, s, strings.Repeat("y", 100_000))
	damage(m, v.body)
	damage(m, v.env)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, m, "q")
	if names, _ := m.List("q/damaged"); !slices.Contains(names, v.id) || slices.Contains(listed(s), v.id) {
		t.Errorf("aside are %q", names)
	}
}

// TestCheckOfADamagedChange: one record of what became of a message was damaged, and the check of the
// queue that found it gave up the message, of which all else was whole.
func TestCheckOfADamagedChange(t *testing.T) {
	for what, size := range map[string]int{"small": 100, "large": 100_000} {
		for _, hit := range []string{"change", "first"} {
			if what == "small" && hit == "first" {
				continue // its body is gone
			}
			t.Run(what+" "+hit, func(t *testing.T) {
				m := newMemFS()
				s := open(t, m, "q")
				body := strings.Repeat("y", size)
				v := addVictim(t, s, body)
				at, attempts := v.env, 0
				if hit == "first" {
					at, attempts = v.body, 1
				}
				damage(m, at)
				if r := checkStore(t, s); len(r.Damage) == 0 || len(r.Aside) != 1 {
					t.Errorf("%+v", r)
				}
				work, _ := s.Claim(start.AddDate(100, 0, 0), 1, func(string, int) bool { return true })
				if len(work) != 1 || work[0].Envelope.ID != v.id || len(work[0].Indexes) != 1 {
					t.Fatalf("no work is left on it: %+v", work)
				}
				s.Done(work[0])
				for range 2 {
					if got := bodyOf(t, s, v.id); got != body || s.Get(v.id).Recipients[0].Attempts != attempts {
						t.Errorf("%d octets of %s are left", len(got), text(s.Get(v.id)))
					}
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
					s = open(t, m, "q")
				}
			})
		}
	}
}
