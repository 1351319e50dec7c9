package delivery

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"relayd/internal/sink"
)

// A wrong password is tried once, and not by every message: the provider would lock the account.
func TestRefusedLoginHoldsTheRoute(t *testing.T) {
	var logins, now atomic.Int64 // now in seconds
	_, _, c := smarthost(t, sink.Options{Reply: func(stage, _ string, _ int) string {
		if stage == "auth" {
			logins.Add(1)
		}
		return ""
	}}, "relay.example")
	begin := time.Now()
	c.opt.Now = func() time.Time { return begin.Add(time.Duration(now.Load()) * time.Second) }
	route := Route{Domain: "example.org", Hosts: []string{"relay.example"}, TLS: StartTLS, User: "me", Password: "open barley"}
	// send sends many at a time. It returns how many were held, and how many are to come again when.
	send := func(many int, insist bool) (held int, again []time.Duration) {
		results := make([]Result, many)
		var all sync.WaitGroup
		for i := range results {
			all.Go(func() {
				m := message(text, "a@example.org")
				m.Insist = insist
				results[i] = c.Deliver(t.Context(), route, m)[0]
			})
		}
		all.Wait()
		for _, r := range results {
			switch {
			case !r.Until.IsZero() && r.Reply.Temporary() && r.Fate() == Later && !r.Strained:
				again = append(again, r.Until.Sub(c.opt.Now()))
			case r.Fate() == Hold && r.Verdict.Class == ClassLogin:
				held++
			default:
				t.Errorf("%+v", r)
			}
		}
		slices.Sort(again)
		return held, again
	}
	expect := func(many int, insist bool, held int, tried int64) []time.Duration {
		t.Helper()
		before := logins.Load()
		got, again := send(many, insist)
		if n := logins.Load() - before; got != held || n != tried || got+len(again) != many {
			t.Errorf("%d held, %d to come again, %d logins", got, len(again), n)
		}
		return again
	}
	if again := expect(50, false, 1, 1); again[0] != 10*time.Minute || again[48] != 10*time.Minute {
		t.Error(again)
	}
	now.Add(590)
	if again := expect(3, false, 0, 0); again[2] != 10*time.Second {
		t.Error(again)
	}
	expect(20, true, 1, 1) // relay-util queue-retry --all
	expect(1, true, 0, 0)
	for _, minutes := range []int64{20, 40, 80} {
		now.Add(minutes*60 - 1)
		expect(2, false, 0, 0)
		now.Add(1)
		expect(5, false, 1, 1)
	}
	now.Add(160 * 60)
	expect(5, false, 5, 1) // from here on senders are to hear of it some day
	now.Add(4*3600 - 1)
	expect(5, false, 5, 0)
	now.Add(1)
	expect(5, false, 5, 1)

	now.Add(60)
	wrong := route
	route.Password = "open sesame"
	if r := c.Deliver(t.Context(), route, message(text, "a@example.org"))[0]; r.Fate() != Accepted {
		t.Errorf("another password waits too: %v", r.Reply)
	}
	route = wrong
	if _, err := c.Rehearse(t.Context(), route); answerOf(t, err).Enhanced != "4.7.8" {
		t.Error(err)
	}
	if logins.Load() != 9 {
		t.Errorf("%d logins: a rehearsal is one", logins.Load())
	}
}

// A login that is taken again ends what the refused one began.
func TestLoginIsTakenAgain(t *testing.T) {
	_, _, c := smarthost(t, sink.Options{Reply: func(stage, _ string, nth int) string {
		if stage == "auth" && nth == 1 {
			return "535 5.7.8 no"
		}
		return ""
	}}, "relay.example")
	route := Route{Domain: "example.org", Hosts: []string{"relay.example"}, TLS: StartTLS, User: "me", Password: "open sesame"}
	later := time.Duration(0)
	c.opt.Now = func() time.Time { return time.Now().Add(later) }
	for i, want := range []Fate{Hold, Later, Accepted, Accepted} {
		if i == 2 {
			later = time.Hour
		}
		if r := c.Deliver(t.Context(), route, message(text, "a@example.org"))[0]; r.Fate() != want {
			t.Errorf("%d: %v", i, r.Reply)
		}
	}
}
