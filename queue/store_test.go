package queue

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"relayd/address"
)

func testOptions(dir string) StoreOptions {
	return StoreOptions{Dir: dir, Group: func(r *Recipient) string { return r.Address.Domain }, Log: quiet, segmentSize: 1 << 20}
}

func testEnvelope(rcpts ...string) *Envelope {
	now := time.Now()
	e := &Envelope{ID: NewID(now), Received: now, Sender: address.Address{Local: "a", Domain: "b.test"}}
	for _, r := range rcpts {
		a, err := address.Parse(r)
		if err != nil {
			panic(err)
		}
		e.Recipients = append(e.Recipients, Recipient{Address: a, Status: Status{State: Waiting, Next: now}})
	}
	return e
}

// TestManyOfAllSizes: what is taken, changed and removed is the same after a restart, and a store
// that is empty holds nothing.
func TestManyOfAllSizes(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenStore(testOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for i := range 500 {
		e := testEnvelope(fmt.Sprintf("x%d@d%d.test", i, i%7), "y@other.test")
		body := strings.Repeat(fmt.Sprintf("line %d\r\n", i), 1+i*20)
		if err := s.Add(e, strings.NewReader(body)); err != nil {
			t.Fatal(err)
		}
		want[e.ID] = body
		if i%3 == 0 {
			r := e.Recipients[0]
			r.State = Delivered
			if err := s.Update(e.ID, map[int]Recipient{0: r}, i%2 == 0); err != nil {
				t.Fatal(err)
			}
		}
		if i%5 == 0 {
			if err := s.Remove(e.ID); err != nil {
				t.Fatal(err)
			}
			delete(want, e.ID)
		}
	}
	check := func(s *LogStore) {
		t.Helper()
		n := 0
		last := ""
		s.List(func(e *Envelope) bool {
			n++
			if e.ID <= last {
				t.Errorf("order: %s after %s", e.ID, last)
			}
			last = e.ID
			b, err := s.Body(e.ID)
			if err != nil {
				t.Fatal(err)
			}
			text, _ := io.ReadAll(b)
			b.Close()
			if string(text) != want[e.ID] {
				t.Errorf("%s: %d bytes, want %d", e.ID, len(text), len(want[e.ID]))
			}
			return true
		})
		if n != len(want) {
			t.Errorf("%d messages, want %d", n, len(want))
		}
	}
	check(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err = OpenStore(testOptions(dir))
	if err != nil {
		t.Fatal(err)
	}
	check(s)
	work, _ := s.Claim(time.Now().Add(time.Hour), 10000, always)
	for _, w := range work {
		ch := map[int]Recipient{}
		for _, i := range w.Indexes {
			r := w.Envelope.Recipients[i]
			r.State = Delivered
			ch[i] = r
		}
		if err := s.Update(w.Envelope.ID, ch, false); err != nil {
			t.Fatal(err)
		}
		s.Done(w)
	}
	if len(s.messages) != 0 {
		t.Errorf("%d left", len(s.messages))
	}
	s.idle.Wait()
	var live int64
	for _, seg := range s.segments {
		live += seg.live
	}
	if live != 0 {
		t.Errorf("live %d", live)
	}
	s.Close()
}
