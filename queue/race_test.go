package queue

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestEverythingAtOnce: what is told of a message is whole at every moment, and what is there at
// the end is what is there after a restart.
func TestEverythingAtOnce(t *testing.T) {
	m := newMemFS()
	s := open(t, m, "q")
	var wg sync.WaitGroup
	ok := func(err error) {
		if err != nil && !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
	}
	for n := range 8 {
		wg.Go(func() {
			for k := range 60 {
				id := fmt.Sprintf("RACE%02d%02d", n, k)
				e := newEnvelope(t, id, "a@one.test", "b@two.test")
				ok(s.Add(e, strings.NewReader("body of "+id)))
				if k%3 == 0 {
					ok(s.Remove(fmt.Sprintf("RACE%02d%02d", (n+1)%8, k)))
				}
			}
		})
		wg.Go(func() {
			for range 60 {
				work, _ := s.Claim(time.Now().Add(time.Hour), 5, always)
				for _, w := range work {
					changes := map[int]Recipient{}
					for _, i := range w.Indexes {
						r := w.Envelope.Recipients[i]
						r.Attempts++
						if r.Next = r.Next.Add(2 * time.Hour); n%2 == 0 {
							r.State = Delivered
						}
						changes[i] = r
					}
					ok(s.Update(w.Envelope.ID, changes, n%3 == 0))
					s.Done(w)
				}
			}
		})
		wg.Go(func() {
			for range 10 {
				s.List(func(e *Envelope) bool {
					if len(e.Recipients) != 2 {
						t.Errorf("listed: %s", text(e))
					}
					r, err := s.Body(e.ID)
					ok(err)
					if err == nil {
						if b, err := io.ReadAll(r); err != nil || string(b) != "body of "+e.ID {
							t.Errorf("body of %s: %q, %v", e.ID, b, err)
						}
						r.Close()
					}
					return true
				})
			}
		})
	}
	wg.Wait()
	again := open(t, m.crash(loseNothing, nil), "q")
	if a, b := listed(s), listed(again); fmt.Sprint(a) != fmt.Sprint(b) {
		t.Errorf("%d messages, after a restart %d", len(a), len(b))
	}
	s.List(func(e *Envelope) bool {
		if got, want := text(again.Get(e.ID)), text(e); got != want {
			t.Errorf("after a restart %s, before %s", got, want)
		}
		return true
	})
}

// TestSameIDAtOnce: of two messages of one ID one is refused, and the other is whole.
func TestSameIDAtOnce(t *testing.T) {
	s := open(t, newMemFS(), t.TempDir())
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for n := range errs {
		wg.Go(func() { errs[n] = s.Add(newEnvelope(t, idA, "a@one.test"), strings.NewReader(fmt.Sprint(n))) })
	}
	wg.Wait()
	for n, err := range errs {
		if err == nil && bodyOf(t, s, idA) != fmt.Sprint(n) {
			t.Errorf("%d was taken, and %s is there", n, bodyOf(t, s, idA))
		}
	}
}

func TestIDs(t *testing.T) {
	pattern := regexp.MustCompile(`^[A-Za-z0-9]{8,32}$`)
	seen, last := map[string]bool{}, ""
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for n := range 10000 {
		id := NewID(at.Add(time.Duration(n) * time.Millisecond))
		if !pattern.MatchString(id) || !validID(id) || seen[id] || id <= last {
			t.Fatalf("%s after %s", id, last)
		}
		seen[id], last = true, id
	}
	for _, at := range []time.Time{{}, time.Unix(0, 0), time.Unix(1<<40, 0)} {
		if id := NewID(at); !pattern.MatchString(id) {
			t.Errorf("at %v: %s", at, id)
		}
	}
	for _, bad := range []string{"", "AAAAAAA", strings.Repeat("A", 33), "AAAA/AAA", "..AAAAAA", "AAAAAAAÄ", "AAAAAAA\n"} {
		if validID(bad) {
			t.Errorf("%q is taken for an ID", bad)
		}
	}
}
