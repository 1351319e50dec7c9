package queue

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// fillSegments adds messages until the store has three segments. Every second one is over.
func fillSegments(t *testing.T, s *LogStore) (living []string) {
	t.Helper()
	body := strings.Repeat("x", 20_000)
	for n := 0; s.Stats().Segments < 3; n++ {
		e := newEnvelope(t, NewID(start.Add(1)), "a@one.test")
		add(t, s, e, body)
		if n%2 == 0 {
			living = append(living, e.ID)
		} else if err := s.Remove(e.ID); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(living)
	return living
}

func checkStore(t *testing.T, s *LogStore) *Report {
	t.Helper()
	var done, total int64
	r, err := s.Check(t.Context(), func(d, all int64) {
		if d < done {
			t.Errorf("progress goes back from %d to %d", done, d)
		}
		done, total = d, all
	})
	if err != nil {
		t.Fatal(err)
	}
	if done > total || done == 0 {
		t.Errorf("progress ends at %d of %d", done, total)
	}
	return r
}

func TestCheckOfAWholeQueue(t *testing.T) {
	s := open(t, newMemFS(), "q")
	living := fillSegments(t, s)
	add(t, s, newEnvelope(t, idA, "a@one.test"), strings.Repeat("large", 40_000))
	r := checkStore(t, s)
	if len(r.Damage)+len(r.Aside) > 0 || r.Messages != len(living)+1 || r.Large != 1 || r.Segments < 3 || r.Bytes < 200_000 {
		t.Errorf("%+v", r)
	}
	if h := s.Health(); h.Failure != nil || len(h.Damaged) > 0 {
		t.Errorf("%+v", h)
	}
}

// TestDamagedSegmentIsSetAside: what is whole in it is served, what was over stays over, also
// after the next start, and Health is red until somebody has looked.
func TestDamagedSegmentIsSetAside(t *testing.T) {
	for _, when := range []string{"while it runs", "before a start"} {
		t.Run(when, func(t *testing.T) {
			m := newMemFS()
			s := open(t, m, "q")
			living := fillSegments(t, s)
			hit := s.segments[1].name
			victim := s.messages[living[len(living)/2]]
			for _, id := range living {
				if e := s.messages[id]; e.body.seg.name == hit {
					victim = e
				}
			}
			m.nodes[hit].data[int(victim.body.off)+frameSize+100] ^= 1 // in the envelope
			if when == "before a start" {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = open(t, m, "q")
				if h := s.Health(); len(h.Damaged) != 1 {
					t.Errorf("after the start: %+v", h)
				}
			}
			r := checkStore(t, s)
			if when == "while it runs" && (len(r.Damage) == 0 || r.Damage[0].File != hit) || len(r.Aside) != 1 || !strings.HasSuffix(r.Aside[0], checked) {
				t.Errorf("%+v", r)
			}
			if h := s.Health(); len(h.Damaged) > 0 {
				t.Errorf("after the check: %+v", h)
			}
			want := slices.DeleteFunc(slices.Clone(living), func(id string) bool { return id == victim.id })
			for range 2 {
				got := listed(s)
				if when == "while it runs" && slices.Contains(got, victim.id) {
					got = slices.DeleteFunc(got, func(id string) bool { return id == victim.id }) // its envelope is in memory still
				}
				if !slices.Equal(got, want) {
					t.Fatalf("served: %d messages, want %d", len(got), len(want))
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = open(t, m, "q")
			}
			if r := checkStore(t, s); len(r.Damage) > 0 {
				t.Errorf("in the end: %+v", r)
			}
		})
	}
}

// TestDamagedFileIsNotSent: whoever reads a large body that is damaged never reaches its end.
func TestDamagedFileIsNotSent(t *testing.T) {
	m := newMemFS()
	s := open(t, m, "q")
	text := strings.Repeat("large", 40_000)
	add(t, s, newEnvelope(t, idA, "a@one.test"), text)
	file := m.nodes[s.largePath(idA)]
	read := func() ([]byte, error) {
		body, err := s.Body(idA)
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		return io.ReadAll(body)
	}
	if b, err := read(); err != nil || string(b) != text {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	for name, spoil := range map[string]func(b []byte) []byte{
		"flipped": func(b []byte) []byte { b[70_000] ^= 4; return b },
		"short":   func(b []byte) []byte { return b[:len(b)-1] },
		"long":    func(b []byte) []byte { return append(b, 'x') },
		"empty":   func([]byte) []byte { return nil },
	} {
		whole := bytes.Clone(file.data)
		file.data = spoil(file.data)
		if _, err := read(); !errors.Is(err, errBadFile) {
			t.Errorf("%s: %v", name, err)
		}
		r := checkStore(t, s)
		if len(r.Damage) != 1 || r.Damage[0].ID != idA || r.Damage[0].File != s.largePath(idA) {
			t.Errorf("%s: %+v", name, r)
		}
		file.data = whole
	}
}
