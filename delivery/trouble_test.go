package delivery

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"relayd/dns"
	"relayd/internal/sink"
)

// once makes one attempt and returns its result and how long it took.
func once(t *testing.T, c *Client) (Result, time.Duration) {
	t.Helper()
	begun := time.Now()
	return c.Deliver(t.Context(), example, message(text, "a@example.org"))[0], time.Since(begun)
}

// TestSilentServerIsLeftAlone: the first message waits for the time-out, the ten thousand behind it
// do not.
func TestSilentServerIsLeftAlone(t *testing.T) {
	for _, s := range silences {
		synctest.Test(t, func(t *testing.T) {
			n := &pipeNet{silent: s.stage}
			c := n.client()
			defer c.Close()
			if r, took := once(t, c); took != s.wait || !r.Reply.Temporary() || !r.Strained {
				t.Errorf("%s: %+v after %v", s.stage, r, took)
			}
			time.Sleep(42 * time.Second)
			messages := 100
			if s.stage == "ehlo" {
				messages = 10_000
			}
			for range messages {
				r, took := once(t, c)
				if took != 0 || !r.Reply.Temporary() || r.Strained || !strings.Contains(r.Reply.Text, "did not answer in time (42s ago") {
					t.Fatalf("%s: %+v after %v", s.stage, r, took)
				}
			}
			if n.dialed != 1 {
				t.Errorf("%s: %d connections", s.stage, n.dialed)
			}
		})
	}
}

// TestOneAttemptFindsOut: the others do not wait for it, and after each failure the pause is longer.
func TestOneAttemptFindsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &pipeNet{silent: "mail"}
		c := n.client()
		defer c.Close()
		once(t, c)
		for round, pause := range []time.Duration{1, 2, 4, 5, 5} {
			time.Sleep(pause*time.Minute - time.Second)
			if _, took := once(t, c); took != 0 || n.dialed != round+1 {
				t.Errorf("round %d: tried before %v", round, pause*time.Minute)
			}
			time.Sleep(time.Second)
			var all sync.WaitGroup
			var mu sync.Mutex
			waited := 0
			for range 10 {
				all.Go(func() {
					_, took := once(t, c)
					mu.Lock()
					defer mu.Unlock()
					if took > 0 {
						waited++
					}
				})
			}
			all.Wait()
			if waited != 1 || n.dialed != round+2 {
				t.Errorf("round %d: %d of 10 attempts waited, %d connections", round, waited, n.dialed)
			}
		}
	})
}

func TestSuccessClearsAnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &pipeNet{silent: "mail"}
		c := n.client()
		defer c.Close()
		once(t, c)
		time.Sleep(time.Minute)
		once(t, c) // now the pause is 2 minutes
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		n.silent = ""
		for range 3 {
			if r, _ := once(t, c); r.Reply.Code != 250 || r.Strained {
				t.Errorf("%+v", r)
			}
		}
		time.Sleep(time.Minute) // the kept connection is gone
		synctest.Wait()
		n.silent = "mail"
		once(t, c)
		time.Sleep(time.Minute)
		if _, took := once(t, c); took == 0 {
			t.Error("what was long ago still counts")
		}
	})
}

// TestInsisting: a person who asks for another attempt gets one.
func TestInsisting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &pipeNet{silent: "mail"}
		c := n.client()
		defer c.Close()
		once(t, c)
		synctest.Wait()
		n.silent = ""
		m := message(text, "a@example.org")
		m.Insist = true
		if r := c.Deliver(t.Context(), example, m)[0]; r.Reply.Code != 250 {
			t.Errorf("%v", r.Reply.Error())
		}
	})
}

// TestKeptConnectionIsUsed: what is remembered of an address says nothing against a connection that
// lives.
func TestKeptConnectionIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newPipeNet()
		c := n.client()
		defer c.Close()
		once(t, c)
		c.settle(testTarget, unreachable(testTarget, netip.Addr{}, errRefused), false)
		if r, took := once(t, c); r.Reply.Code != 250 || took != 0 || n.dialed != 1 {
			t.Errorf("%v after %v, %d connections", r.Reply.Error(), took, n.dialed)
		}
		if c.admit(testTarget) != nil {
			t.Error("it worked, and is still in trouble")
		}
	})
}

func TestClockSetBackFreesAnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &pipeNet{silent: "mail"}
		c := n.client()
		defer c.Close()
		once(t, c)
		c.opt.Now = func() time.Time { return time.Now().Add(-1000 * time.Hour) }
		if _, took := once(t, c); took == 0 {
			t.Error("it is left alone for a thousand hours")
		}
	})
}

// TestCancellingSaysNothing: we have cut it off, so who knows whether it would have answered.
func TestCancellingSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &pipeNet{silent: "mail"}
		c := n.client()
		defer c.Close()
		cut := func() {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			c.Deliver(ctx, example, message(text, "a@example.org"))
		}
		cut()
		if _, took := once(t, c); took == 0 {
			t.Error("an attempt that was cut off is held against the server")
		}
		time.Sleep(time.Minute)
		cut() // the one that was to find out
		if _, took := once(t, c); took == 0 {
			t.Error("after a cut nobody finds out any more")
		}
	})
}

// TestAnAttemptEndsWithinTheHour: ten addresses that fall silent after 5 minutes each.
func TestAnAttemptEndsWithinTheHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &pipeNet{silent: "ehlo", ips: 10}
		c := n.client()
		defer c.Close()
		if _, took := once(t, c); took > 15*time.Minute {
			t.Errorf("it took %v", took)
		}
	})
}

// TestFailedLookupIsRemembered: messages for a domain whose DNS is down do not each wait for it.
func TestFailedLookupIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &countingWorld{world: newWorld()}
		w.errs["example.org"] = &dns.Error{Name: "example.org", Type: "MX", Kind: dns.Temporary, Cause: context.DeadlineExceeded}
		c := w.client(t, func(o *Options) { o.Resolver = w })
		for range 1000 {
			c.Learn(t.Context(), "example.org")
			if r, _ := once(t, c); r.Reply.Enhanced != "4.4.3" || r.Strained {
				t.Fatalf("%+v", r)
			}
		}
		if w.lookups != 1 || c.Group("example.org") != "mx? example.org" {
			t.Errorf("%d lookups, group %s", w.lookups, c.Group("example.org"))
		}
		delete(w.errs, "example.org")
		w.mx["example.org"] = []dns.MX{{Host: "mx.google.com"}}
		m := message(text, "a@example.org")
		m.Insist = true
		if c.Deliver(t.Context(), example, m); w.lookups != 2 || c.Group("example.org") != "google.com" {
			t.Errorf("insisting: %d lookups, group %s", w.lookups, c.Group("example.org"))
		}
	})
}

// TestStrain: what says that a server has more of us than it bears, and what does not.
func TestStrain(t *testing.T) {
	for _, c := range []struct {
		stage, answer string
		want          bool
	}{
		{"greeting", "421 4.7.28 too many", true}, {"ehlo", "421 4.7.0 no", true}, {"mail", "421 4.7.28 slow down", true},
		{"rcpt", "421 4.7.0 later", true}, {"data", "421 4.7.0 later", true}, {"dot", "421 4.7.28 rate", true},
		{"greeting", "<close>", true}, {"mail", "<close>", true}, {"rcpt", "<reset>", true}, {"dot", "<close>", true},
		{"greeting", "554 5.7.1 go away", false}, {"mail", "451 4.3.0 later", false}, {"rcpt", "450 4.2.1 busy", false},
		{"rcpt", "550 5.1.1 nobody", false}, {"dot", "554 5.7.1 spam", false}, {"dot", "250 2.0.0 ok", false},
	} {
		_, client := one(t, sink.Options{Reply: script(c.stage, "", c.answer)})
		r := client.Deliver(t.Context(), example, message(text, "a@example.org"))[0]
		if r.Strained != c.want {
			t.Errorf("%s %q: %v, strained %v", c.stage, c.answer, r.Reply.Error(), r.Strained)
		}
	}
}

// TestStrainWithSeveralServers: who takes the message is what counts.
func TestStrainWithSeveralServers(t *testing.T) {
	s := startSink(t, sink.Options{})
	w := newWorld()
	w.mx["example.org"] = []dns.MX{{Host: "dead.test", Preference: 10}, {Host: "mx.test", Preference: 20}}
	w.host("dead.test", "192.0.2.9", nil)
	w.host("mx.test", "192.0.2.1", s)
	w.mx["dead.org"] = w.mx["example.org"][:1]
	c := w.client(t, nil)
	if r := c.Deliver(t.Context(), Route{Domain: "dead.org"}, message(text, "a@dead.org"))[0]; !r.Strained {
		t.Errorf("refused: %+v", r)
	}
	for range 2 {
		if r, _ := once(t, c); r.Reply.Code != 250 || r.Strained {
			t.Errorf("%+v", r)
		}
	}
	if got := fmt.Sprint(w.dialed); got != "[192.0.2.9:25 192.0.2.1:25]" {
		t.Errorf("dialed %s", got)
	}
}

func TestOurOwnLackIsNotRemembered(t *testing.T) {
	for err, want := range map[error]bool{
		syscall.ECONNREFUSED: true, syscall.ETIMEDOUT: true, syscall.EHOSTUNREACH: true, syscall.EMFILE: false, syscall.ENFILE: false,
	} {
		if got := isSilence(unreachable(testTarget, netip.Addr{}, err)); got != want {
			t.Errorf("%v: %v", err, got)
		}
	}
	if isSilence(errors.New("x")) || isStrain(nil) {
		t.Error("anything is taken for silence")
	}
}
