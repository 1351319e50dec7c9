package relay

import (
	"bytes"
	"fmt"
	"testing"
	"time"
)

// TestRestartKeepsWhatWasLearned: a group that asked for less, a mailbox that is full and a provider
// that takes no IPv6 are as they were after a restart.
func TestRestartKeepsWhatWasLearned(t *testing.T) {
	w := newAnswering(t, map[string]string{"rcpt": "452 4.2.2 full"})
	w.send("full", "gmail.test")
	waitFor(t, func() bool { return w.queue.Counts().Deferred == 1 })
	w.say("dot", "421 4.7.28 too fast")
	w.send("other", "gmail.test")
	waitFor(t, func() bool { return w.queue.Counts().Deferred == 2 })
	data, err := w.out.State(w.queue)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"paused":{"google.com":"2026-06-01T12:10:00Z"},"ipv6":{},"mailboxes":{"full@gmail.test":{"per_minute":1,"until":"2026-06-01T13:00:00Z"}}}`; string(data) != want {
		t.Errorf("%s", data)
	}
	again := newAnswering(t, nil)
	data = bytes.Replace(data, []byte(`"ipv6":{}`), []byte(`"ipv6":{"":{"until":"2026-06-02T11:00:00Z"},"x.test":{"until":"2026-06-02T11:00:00Z","advice":"Do."},"old.test":{"until":"2026-06-01T11:00:00Z"}}`), 1)
	if err := again.out.Restore(again.queue, data); err != nil {
		t.Fatal(err)
	}
	again.send("full", "gmail.test")
	again.send("third", "gmail.test")
	if again.pass(9 * time.Minute); len(again.tried()) > 0 {
		t.Errorf("tried for %q", again.tried())
	}
	if got := again.out.client.IPv6Refusals(); len(got) != 1 || got["x.test"].Advice != "Do." {
		t.Errorf("%v", got)
	}
	again.pass(time.Minute)
	again.pass(time.Minute)
	again.pass(time.Minute)
	waitFor(t, func() bool { return len(again.tried()) == 2 })
	if data, err = again.out.State(again.queue); err != nil || bytes.Contains(data, []byte("google.com")) {
		t.Errorf("%s, %v", data, err)
	}
	if err := again.out.Restore(again.queue, []byte(`{"paused":`)); err == nil {
		t.Error("half a file is read")
	}
}

// A mailbox gets what its provider allows, and everybody who waits a time of his own.
func TestPace(t *testing.T) {
	now := noon
	s := paces{mailboxes: map[string]*pace{}}
	me := paced{"me@gmail.com", 40}
	for n := range 10 {
		if until := s.take(me, now); !until.IsZero() {
			t.Fatalf("message %d waits until %v", n, until)
		}
	}
	for n := range 5 {
		want := now.Add(time.Duration(n+1) * 1500 * time.Millisecond)
		if until := s.take(me, now); !until.Equal(want) {
			t.Errorf("message %d waits until %v, want %v", n, until, want)
		}
	}
	taken := 0
	for range 60 * 10 {
		now = now.Add(100 * time.Millisecond)
		if s.take(me, now).IsZero() {
			taken++
		}
	}
	if taken < 39 || taken > 40 {
		t.Errorf("%d in a minute", taken)
	}
	if until := s.take(paced{"me@other.test", 0}, now); !until.IsZero() {
		t.Error("a mailbox without bound waits")
	}
	s.slow("me@other.test", 10, now)
	s.slow("me@other.test", 1, now)
	s.slow("me@other.test", 10, now)
	if until := s.take(paced{"me@other.test", 0}, now); !until.Equal(now.Add(time.Minute)) {
		t.Errorf("a full mailbox waits until %v", until)
	}
	for range 1000 {
		if until := s.take(paced{"me@other.test", 0}, now); until.After(now.Add(longestPace)) {
			t.Fatalf("it waits until %v", until)
		}
	}
	if until := s.take(paced{"me@other.test", 0}, now.Add(slowFor)); !until.IsZero() {
		t.Error("it is slow after the hour")
	}
	if until := s.take(me, now.Add(-1000*time.Hour)); until.After(now.Add(-1000*time.Hour + longestPace)) {
		t.Errorf("after the clock was set back it waits until %v", until)
	}
}

func TestPacesAreBounded(t *testing.T) {
	s := paces{mailboxes: map[string]*pace{}}
	for n := range 3 * maxPaces {
		s.take(paced{fmt.Sprint(n), 40}, noon.Add(time.Duration(n)*time.Millisecond))
		if len(s.mailboxes) > maxPaces {
			t.Fatalf("%d mailboxes", len(s.mailboxes))
		}
	}
}

// The log tells once an hour, the status as long as nothing is taken.
func TestNotices(t *testing.T) {
	s := notices{list: map[subject]notice{}}
	about := subject{"google.com", "Do."}
	for _, step := range []struct {
		after time.Duration
		tell  bool
	}{{0, true}, {59 * time.Minute, false}, {time.Hour, true}, {-time.Hour, true}} {
		if got := s.note(about, "421 4.7.28 no", noon.Add(step.after)); got != step.tell {
			t.Errorf("after %v: %v", step.after, got)
		}
	}
	if got := s.warnings(noon); len(got) != 1 || got[0] != `google.com has said since 2026-11-22T12:00:00Z: "421 4.7.28 no". Do.` {
		t.Errorf("%q", got)
	}
	s.note(subject{"other.test", "Do."}, "x", noon)
	s.clear("google.com")
	if got := s.warnings(noon); len(got) != 1 || len(s.warnings(noon.Add(noticeAge))) > 0 {
		t.Errorf("%q", got)
	}
	for n := range maxNotices + 10 {
		s.note(subject{fmt.Sprint(n), "Do."}, "x", noon.Add(time.Duration(n)))
	}
	if len(s.list) != maxNotices || s.list[subject{"9", "Do."}] != (notice{}) {
		t.Errorf("%d notices", len(s.list))
	}
}
