package delivery

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"relayd/dns"
	"relayd/internal/sink"
	"relayd/internal/testnet"
)

// TestVerdictOfEveryStage: whoever gets a server's reply gets what follows from it, by the stage and
// by whose server it is; a reply of ours has no verdict.
func TestVerdictOfEveryStage(t *testing.T) {
	for _, c := range []struct {
		stage, script string
		class         Class
		fate          Fate
		strained      bool
	}{
		{"greeting", "554 5.7.1 blocked using zen.spamhaus.org", ClassListed, Hold, false},
		{"greeting", "550 go away", ClassUnknown, Later, false},
		{"greeting", "421 4.3.2 busy", ClassBusy, Later, true},
		{"greeting", "250 hm", ClassUnknown, Later, false},
		{"ehlo", "421 4.7.28 rate", ClassRate, Later, true},
		{"mail", "550 5.7.1 Our system has detected that this message is likely unsolicited mail", ClassContent, Final, false},
		{"mail", "421 4.7.0 Low reputation of the sending domain", ClassReputation, Later, false},
		{"rcpt", "550 5.1.1 no such user", ClassNoMailbox, Final, false},
		{"rcpt", "552 5.2.2 over quota", ClassMailboxFull, Later, false},
		{"data", "451 4.3.0 hm", ClassPassing, Later, false},
		{"dot", "550 5.7.30 DKIM", ClassSetup, Hold, false},
		{"dot", "<close>", ClassUnknown, Later, true},
		{"mail", "<close>", ClassUnknown, Later, true},
		{"dot", "250 2.0.0 Ok", ClassAccepted, Accepted, false},
	} {
		t.Run(c.stage+" "+c.script, func(t *testing.T) {
			s := startSink(t, sink.Options{Reply: script(c.stage, "", c.script)})
			w := newWorld()
			w.mx["example.org"] = []dns.MX{{Host: "alt1.GOOGLE.com", Preference: 10}}
			w.host("alt1.GOOGLE.com", "192.0.2.1", s)
			r := w.client(t, nil).Deliver(t.Context(), example, message(text, "a@example.org"))[0]
			if r.Verdict.Class != c.class || r.Fate() != c.fate || r.Strained != c.strained {
				t.Errorf("%v, %v, strained %v: %s", r.Verdict.Class, r.Fate(), r.Strained, r.Reply)
			}
		})
	}
}

// A rate reply is about us at all of the group's hosts: no further one is asked, not even anew over
// a connection that was kept.
func TestRateEndsTheAttempt(t *testing.T) {
	for stage, c := range map[string]struct{ says, results string }{
		"greeting": {"421 4.7.28 rate", "421 421"},
		"mail":     {"421 4.7.28 rate", "421 421"},
		"dot":      {"421 4.7.28 rate", "421 421"},
	} {
		t.Run(stage, func(t *testing.T) {
			first, second := startSink(t, sink.Options{Reply: script(stage, "", c.says)}), startSink(t, sink.Options{})
			w := newWorld()
			w.mx["example.org"] = []dns.MX{{Host: "a.test", Preference: 10}, {Host: "b.test", Preference: 20}}
			w.host("a.test", "192.0.2.1", first)
			w.host("b.test", "192.0.2.2", second)
			results := w.client(t, nil).Deliver(t.Context(), example, message(text, "a@example.org", "b@example.org"))
			if codes(results) != c.results || second.Connections() > 0 || first.Connections() != 1 {
				t.Errorf("%s over %d and %d connections", codes(results), first.Connections(), second.Connections())
			}
			for _, r := range results {
				if r.Verdict.Stop != rateStop || !r.Strained {
					t.Errorf("%+v", r)
				}
			}
		})
	}
	t.Run("kept connection", func(t *testing.T) {
		s, c := one(t, sink.Options{Reply: func(stage, _ string, nth int) string {
			if stage == "mail" && nth == 2 {
				return "421 4.7.28 rate"
			}
			return ""
		}})
		for _, want := range []string{"250", "421"} {
			if got := codes(c.Deliver(t.Context(), example, message(text, "a@example.org"))); got != want {
				t.Errorf("%s, want %s", got, want)
			}
		}
		if s.Connections() != 1 {
			t.Errorf("%d connections", s.Connections())
		}
	})
	t.Run("one recipient", func(t *testing.T) { // what others in other transactions get is nothing more
		s, c := one(t, sink.Options{Reply: script("rcpt", "a@example.org", "450 4.7.28 rate")})
		many := []string{"a@example.org"}
		for len(many) <= maxBatch {
			many = append(many, "b@example.org")
		}
		results := c.Deliver(t.Context(), example, message(text, many...))
		if codes(results[:2]) != "450 250" || codes(results[maxBatch:]) != "450" || s.Count() != 1 {
			t.Errorf("%s, %d arrived", codes(results), s.Count())
		}
	})
}

// sixWorld has one provider with both families, whose servers answer by script, and our IPv6 first.
type sixWorld struct {
	*world
	four, six *sink.Sink
	client    *Client
	clock     *testnet.Clock
}

func newSixWorld(t *testing.T, four, six func(string, string, int) string) *sixWorld {
	w := &sixWorld{world: newWorld(), clock: testnet.NewClock()}
	w.four, w.six = startSink(t, sink.Options{Reply: four}), startSink(t, sink.Options{Reply: six})
	w.mx["example.org"] = []dns.MX{{Host: "mx1.google.com", Preference: 10}, {Host: "mx2.google.com", Preference: 20}}
	for _, n := range []string{"1", "2"} {
		w.host("mx"+n+".google.com", "2001:db8::"+n, w.six)
		if four != nil {
			w.host("mx"+n+".google.com", "192.0.2."+n, w.four)
		}
	}
	w.client = w.world.client(t, func(o *Options) {
		o.Family, o.Now, o.Source = "auto", w.clock.Now, &Source{good: true}
		o.Times = DefaultTimes()
		o.Times.Messages = 1 // so that connections tell of attempts
	})
	return w
}

func (w *sixWorld) send(t *testing.T) Result {
	return w.client.Deliver(t.Context(), example, message(text, "a@example.org", "b@example.org"))[1]
}

func friendly(string, string, int) string { return "" }

const refusesSix = "550-5.7.1 [2001:db8::1] Our system has detected that this message does not meet IPv6 sending guidelines\n" +
	"550 5.7.1 regarding PTR records and authentication."

// TestIPv6RefusalGoesOnOverIPv4: in the same attempt, whenever it is said, and for a day no IPv6 is
// tried at that provider.
func TestIPv6RefusalGoesOnOverIPv4(t *testing.T) {
	for stage, says := range map[string]string{
		"dot": refusesSix, "mail": refusesSix, "rcpt": "550 5.7.25 The sending IP has no PTR record",
		"greeting": "421 4.7.0 [2001:db8::1] does not have a PTR record, closing",
	} {
		t.Run(stage, func(t *testing.T) {
			w := newSixWorld(t, friendly, script(stage, "", says))
			if r := w.send(t); r.Fate() != Accepted || r.Host != "mx1.google.com [192.0.2.1]" {
				t.Fatalf("%v from %s", r.Reply, r.Host)
			}
			if n := strings.Count(w.log.String(), "level=WARN"); n != 1 {
				t.Errorf("%d lines for the admin: %s", n, &w.log)
			}
			warnings := w.client.Warnings()
			if len(warnings) != 1 || !strings.HasPrefix(warnings[0], "google.com takes no mail from us over IPv6; until 20") || !strings.Contains(warnings[0], "PTR record") {
				t.Errorf("%q", warnings)
			}
			once := w.six.Connections()
			w.clock.Advance(23 * time.Hour)
			if w.send(t); w.six.Connections() != once {
				t.Error("IPv6 was tried within the day")
			}
			w.clock.Advance(2 * time.Hour)
			if len(w.client.Warnings()) > 0 {
				t.Error("the admin is told after the day")
			}
			if w.send(t); w.six.Connections() != once+1 || w.four.Count() != 3 {
				t.Errorf("%d connections over IPv6, %d messages over IPv4", w.six.Connections(), w.four.Count())
			}
		})
	}
}

// Without IPv4 the mail is held, and each attempt asks anew: the admin may have mended it.
func TestIPv6RefusalWithoutIPv4IsHeld(t *testing.T) {
	var mended atomic.Bool
	w := newSixWorld(t, nil, func(stage, _ string, _ int) string {
		if stage == "dot" && !mended.Load() {
			return refusesSix
		}
		return ""
	})
	for range 2 {
		if r := w.send(t); r.Fate() != Hold || r.Verdict.Advice != adviseIPv6 || !strings.HasPrefix(r.Host, "mx") {
			t.Fatalf("%v: %+v", r.Reply, r)
		}
	}
	mended.Store(true)
	if r := w.send(t); r.Fate() != Accepted || len(w.client.Warnings()) > 0 {
		t.Errorf("%v; %q", r.Reply, w.client.Warnings())
	}
}

// That IPv4 cannot be reached now is no reason to hold.
func TestIPv6RefusalWithIPv4ThatIsDown(t *testing.T) {
	w := newSixWorld(t, friendly, script("dot", "", refusesSix))
	delete(w.at, "192.0.2.1:25")
	delete(w.at, "192.0.2.2:25")
	if r := w.send(t); r.Fate() != Later || !strings.Contains(r.Reply.Text, "cannot be reached") {
		t.Errorf("%v: %v", r.Fate(), r.Reply)
	}
	if want := []string{"[2001:db8::1]:25", "192.0.2.1:25", "192.0.2.2:25"}; !slices.Equal(w.dialed, want) {
		t.Errorf("dialed %q", w.dialed)
	}
}

// A PTR reply over IPv4 has nowhere else to go.
func TestReverseDNSOverIPv4IsHeld(t *testing.T) {
	for _, says := range []string{"450 4.7.23 The sending IP has no PTR record", "550 5.7.25 no PTR", "421 4.7.0 no PTR record"} {
		s, c := one(t, sink.Options{Reply: script("mail", "", says)})
		r := c.Deliver(t.Context(), example, message(text, "a@example.org"))[0]
		if strings.HasPrefix(says, "450 4.7.23") { // which means SPF where it is not Google's
			if r.Fate() != Hold || r.Verdict.Advice != adviseSPF {
				t.Errorf("%s: %+v", says, r.Verdict)
			}
			continue
		}
		if r.Fate() != Hold || r.Verdict.Advice != adviseReverse || s.Connections() != 1 || len(c.Warnings()) > 0 {
			t.Errorf("%s: %v %+v, %d connections", says, r.Fate(), r.Verdict, s.Connections())
		}
	}
}

// The admin's wish tries IPv6 again.
func TestInsistTriesIPv6(t *testing.T) {
	w := newSixWorld(t, friendly, script("dot", "", refusesSix))
	w.send(t)
	m := message(text, "a@example.org")
	m.Insist = true
	before := w.six.Connections()
	if r := w.client.Deliver(t.Context(), example, m)[0]; r.Fate() != Accepted || w.six.Connections() != before+1 {
		t.Errorf("%v after %d connections", r.Reply, w.six.Connections())
	}
}

func TestSixesAreBounded(t *testing.T) {
	var m sixes
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	name := func(n int) target {
		return target{name: "mx.host" + strings.Repeat("x", n%50) + string(rune('a'+n/50)) + ".test"}
	}
	for n := range maxSixes + 10 {
		if !m.note(name(n), "x", now.Add(time.Duration(n)*time.Second)) {
			t.Fatalf("%v was known", name(n))
		}
	}
	later := now.Add(time.Hour)
	if len(m.until) != maxSixes || m.refuses(name(9), later) || !m.refuses(name(10), later) {
		t.Errorf("%d are remembered", len(m.until))
	}
	if m.refuses(name(500), now.Add(-48*time.Hour)) {
		t.Error("in force although the clock was set back by days")
	}
	if m.note(name(10), "x", later) || !m.note(target{}, "x", later) || m.refuses(target{}, later) {
		t.Error("news")
	}
}
