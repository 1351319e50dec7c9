package delivery

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"relayd/address"
	"relayd/dns"
	"relayd/internal/sink"
)

// both runs a test with and without PIPELINING.
func both(t *testing.T, f func(t *testing.T, without []string)) {
	t.Run("pipelining", func(t *testing.T) { f(t, nil) })
	t.Run("one by one", func(t *testing.T) { f(t, []string{"PIPELINING"}) })
}

func TestSomeRecipientsAreRefused(t *testing.T) {
	both(t, func(t *testing.T, without []string) {
		s, c := one(t, sink.Options{Without: without, Reply: func(stage, arg string, _ int) string {
			if stage == "rcpt" {
				return map[string]string{"b@example.org": "550 5.1.1 nobody", "c@example.org": "450 4.2.1 busy"}[arg]
			}
			return ""
		}})
		results := c.Deliver(t.Context(), example, message(text, "a@example.org", "b@example.org", "c@example.org", "d@example.org"))
		if got := codes(results); got != "250 550 450 250" {
			t.Error(got)
		}
		if r := results[1]; r.Reply.Enhanced != "5.1.1" || r.Reply.Text != "nobody" || r.DSN {
			t.Errorf("%+v", r)
		}
		if m := s.Messages()[0]; !slices.Equal(m.Rcpts, []string{"a@example.org", "d@example.org"}) || string(m.Data) != text {
			t.Errorf("%q %q", m.Rcpts, m.Data)
		}
	})
}

func TestMailRefusedIsForAll(t *testing.T) {
	both(t, func(t *testing.T, without []string) {
		s, c := one(t, sink.Options{Without: without, Reply: script("mail", "", "550 5.7.1 no")})
		results := c.Deliver(t.Context(), example, message(text, "a@example.org", "b@example.org"))
		for _, r := range results {
			if r.Reply.String() != "550 5.7.1 no" {
				t.Error(r.Reply)
			}
		}
		if s.Count() != 0 {
			t.Error("delivered")
		}
	})
}

// A 550 for one recipient is never given to others, wherever the connection is lost.
func TestConnectionLostInsideOfAnEnvelope(t *testing.T) {
	both(t, func(t *testing.T, without []string) {
		for _, action := range []string{"<close>", "<reset>", "garbage<close>"} {
			reply := func(stage, arg string, _ int) string {
				switch {
				case stage == "rcpt" && arg == "a@example.org":
					return "550 5.1.1 nobody"
				case stage == "rcpt" && arg == "c@example.org":
					return action
				}
				return ""
			}
			bad, good := startSink(t, sink.Options{Without: without, Reply: reply}), startSink(t, sink.Options{})
			w := newWorld()
			w.mx["example.org"] = []dns.MX{{Host: "bad.test", Preference: 10}, {Host: "good.test", Preference: 20}}
			w.host("bad.test", "192.0.2.1", bad)
			w.host("good.test", "192.0.2.2", good)
			m := message(text, "a@example.org", "b@example.org", "c@example.org", "d@example.org")
			results := w.client(t, nil).Deliver(t.Context(), example, m)
			for i, r := range results[1:] {
				if r.Reply.Code != 250 || r.Host != "good.test [192.0.2.2]" {
					t.Errorf("%s: recipient %d: %v by %s", action, i+1, r.Reply, r.Host)
				}
			}
			// A reset may overtake the 550, and garbage makes it doubtful: then the next host decides.
			if r := results[0]; action == "<close>" && (r.Reply.Code != 550 || r.Host != "bad.test [192.0.2.1]") {
				t.Errorf("%s: %v by %s", action, r.Reply, r.Host)
			}
		}
	})
}

// A server that says 421 wants to be left alone: the next host is not bothered with the rest.
func TestGoodbyeInsideOfAnEnvelope(t *testing.T) {
	both(t, func(t *testing.T, without []string) {
		_, c := one(t, sink.Options{Without: without, Reply: func(stage, arg string, _ int) string {
			return map[string]string{"a@example.org": "550 5.1.1 nobody", "b@example.org": "421 4.7.28 rate<close>"}[arg]
		}})
		m := message(text, "a@example.org", "b@example.org", "c@example.org")
		if got := codes(c.Deliver(t.Context(), example, m)); got != "550 421 421" {
			t.Error(got)
		}
	})
}

// The server has one reply too many; taken in turn, the 550 would be for the wrong recipient.
func TestRepliesOutOfStep(t *testing.T) {
	_, c := one(t, sink.Options{Reply: func(stage, arg string, _ int) string {
		switch {
		case stage == "mail":
			return "250 2.1.0 ok\n250 2.1.0 again"
		case arg == "a@example.org":
			return "550 5.1.1 nobody"
		}
		return ""
	}})
	if got := codes(c.Deliver(t.Context(), example, message(text, "a@example.org", "b@example.org"))); got != "451 451" {
		t.Error(got)
	}
}

func addresses(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("u%d@example.org", i)
	}
	return list
}

// fewer is a server that takes at most n recipients in a transaction.
func fewer(n int, no string) func(string, string, int) string {
	count := 0 // there is one connection at a time
	return func(stage, _ string, _ int) string {
		switch stage {
		case "mail":
			count = 0
		case "rcpt":
			if count++; count > n {
				return no
			}
		}
		return ""
	}
}

func TestTooManyRecipientsGoInSeveralTransactions(t *testing.T) {
	both(t, func(t *testing.T, without []string) {
		for _, no := range []string{"452 4.5.3 too many", "452 too many", "552 5.5.3 too many"} {
			s, c := one(t, sink.Options{Without: without, Reply: fewer(3, no)})
			results := c.Deliver(t.Context(), example, message(text, addresses(8)...))
			if got := codes(results); got != strings.TrimSpace(strings.Repeat(" 250", 8)) {
				t.Errorf("%s: %s", no, got)
			}
			if s.Count() != 3 || s.Connections() != 1 {
				t.Errorf("%s: %d transactions over %d connections", no, s.Count(), s.Connections())
			}
		}
	})
}

func TestFullServerIsNotAskedForEver(t *testing.T) {
	mails := 0
	_, c := one(t, sink.Options{Reply: func(stage, _ string, _ int) string {
		switch stage {
		case "mail":
			mails++
		case "rcpt":
			return "452 4.5.3 none today"
		}
		return ""
	}})
	results := c.Deliver(t.Context(), example, message(text, addresses(150)...))
	if got := codes(results); strings.Count(got, "452") != 150 || mails != 1 {
		t.Errorf("%d transactions: %s", mails, got)
	}
}

func TestEveryTransactionHasAHundredRecipientsAtMost(t *testing.T) {
	s, c := one(t, sink.Options{})
	c.Deliver(t.Context(), example, message(text, addresses(250)...))
	var sizes []int
	for _, m := range s.Messages() {
		sizes = append(sizes, len(m.Rcpts))
	}
	if !slices.Equal(sizes, []int{100, 100, 50}) {
		t.Error(sizes)
	}
}

// ehlo is a server that offers what the normal one does not.
func ehlo(lines string) func(string, string, int) string {
	return script("ehlo", "", "250-sink.test\n"+lines)
}

func TestLimitsAreHonoured(t *testing.T) {
	for limits, want := range map[string]struct{ messages, connections int }{
		"LIMITS RCPTMAX=2":           {4, 1},
		"limits foo=1 rcptmax=3":     {3, 1},
		"LIMITS RCPTMAX=0":           {1, 1},
		"LIMITS RCPTMAX=x":           {1, 1},
		"LIMITS RCPTMAX=2 MAILMAX=2": {4, 2},
		"LIMITS RCPTMAX=2 MAILMAX=1": {4, 4},
	} {
		s, c := one(t, sink.Options{Reply: ehlo("250-PIPELINING\n250 " + limits)})
		if got := codes(c.Deliver(t.Context(), example, message(text, addresses(7)...))); strings.Count(got, "250") != 7 {
			t.Errorf("%s: %s", limits, got)
		}
		if s.Count() != want.messages || s.Connections() != want.connections {
			t.Errorf("%s: %d messages over %d connections", limits, s.Count(), s.Connections())
		}
	}
}

func TestServerThatCannotTakeIt(t *testing.T) {
	utf8Path := message(text, "a@example.org")
	utf8Path.Recipients[0].Address = address.Address{Local: "ü", Domain: "example.org"}
	utf8 := message(text, "a@example.org")
	utf8.UTF8 = true
	for name, c := range map[string]struct {
		opt  sink.Options
		m    *Message
		want string
	}{
		"too large":             {sink.Options{MaxSize: 20}, message(text, "a@example.org"), "552 5.3.4"},
		"SMTPUTF8":              {sink.Options{Without: []string{"SMTPUTF8"}}, utf8, "550 5.6.7"},
		"SMTPUTF8 by address":   {sink.Options{Without: []string{"SMTPUTF8"}}, utf8Path, "550 5.6.7"},
		"SMTPUTF8 is there":     {sink.Options{}, utf8Path, "250 2.0.0"},
		"no limit in SIZE":      {sink.Options{Reply: ehlo("250 SIZE 0")}, message(text, "a@example.org"), "250 2.0.0"},
		"SIZE without argument": {sink.Options{Reply: ehlo("250 SIZE")}, message(text, "a@example.org"), "250 2.0.0"},
		"no SIZE":               {sink.Options{Without: []string{"SIZE"}}, message(text, "a@example.org"), "250 2.0.0"},
	} {
		mails := 0
		reply := c.opt.Reply
		c.opt.Reply = func(stage, arg string, nth int) string {
			if stage == "mail" {
				mails++
			}
			if reply != nil {
				return reply(stage, arg, nth)
			}
			return ""
		}
		_, client := one(t, c.opt)
		got := client.Deliver(t.Context(), example, c.m)[0].Reply.String()
		if !strings.HasPrefix(got, c.want) || c.want[0] == '5' && mails > 0 {
			t.Errorf("%s: %s after %d MAIL", name, got, mails)
		}
	}
}

func TestServerWantsAMessageForNobody(t *testing.T) {
	conn := &scripted{replies: "250 ok\r\n550 5.1.1 a\r\n550 5.1.1 b\r\n354 go\r\n554 5.5.1 for whom\r\n250 reset\r\n250 ok\r\n250 ok\r\n354 go\r\n250 done\r\n"}
	session := conn.session("PIPELINING")
	a := &attempt{message: message(text, "a@example.org", "b@example.org"), results: make([]Result, 2)}
	if err := session.send(a); err != nil || codes(a.results) != "550 550" || !session.reusable() {
		t.Fatal(err, codes(a.results))
	}
	a = &attempt{message: message(text, "a@example.org"), results: make([]Result, 1)}
	if err := session.send(a); err != nil || codes(a.results) != "250" {
		t.Fatal(err, codes(a.results))
	}
	if got := conn.sent.String(); !strings.Contains(got, "DATA\r\n.\r\nRSET\r\nMAIL") {
		t.Errorf("%q", got)
	}
}

// A server that takes recipients after it refused MAIL would take an empty message for them.
func TestMailRefusedAndMessageWanted(t *testing.T) {
	conn := &scripted{replies: "550 5.7.1 no\r\n250 ok\r\n354 go\r\n"}
	session := conn.session("PIPELINING")
	a := &attempt{message: message(text, "a@example.org"), results: make([]Result, 1)}
	if err := session.send(a); err != nil || codes(a.results) != "550" || session.reusable() || strings.HasSuffix(conn.sent.String(), ".\r\n") {
		t.Errorf("%v %s %q", err, codes(a.results), conn.sent.String())
	}
}

// What only one side of the house can be blamed for: our own disk.
func TestBodyCannotBeRead(t *testing.T) {
	disk := errors.New("input/output error")
	for name, body := range map[string]func() (io.ReadCloser, error){
		"open": func() (io.ReadCloser, error) { return nil, disk },
		"read": func() (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(strings.NewReader(strings.Repeat("x", 100_000)), broken{disk})), nil
		},
	} {
		s, c := one(t, sink.Options{})
		m := message(text, "a@example.org")
		m.Body = body
		r := c.Deliver(t.Context(), example, m)[0]
		if r.Reply.Code != 451 || r.Reply.Enhanced != "4.3.0" || !errors.Is(r.Reply, disk) || s.Count() != 0 {
			t.Errorf("%s: %v, %d messages", name, r.Reply.Error(), s.Count())
		}
	}
}

type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }
