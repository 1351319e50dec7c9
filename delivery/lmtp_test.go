package delivery

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relayd/internal/sink"
)

var mailboxes = Route{Domain: "example.org", Hosts: []string{"unix:/run/lmtp"}, LMTP: true}

// mailboxServer is an LMTP server at /run/lmtp, and a client.
func mailboxServer(t *testing.T, opt sink.Options) (*sink.Sink, *Client) {
	opt.LMTP, opt.Addr = true, filepath.Join(t.TempDir(), "lmtp")
	s := startSink(t, opt)
	w := newWorld()
	w.at["/run/lmtp"] = s.Addr()
	return s, w.client(t, nil)
}

// Each recipient has an answer of its own after the message, in the order of those who were accepted.
func TestMailboxesAnswerForThemselves(t *testing.T) {
	both(t, func(t *testing.T, without []string) {
		s, c := mailboxServer(t, sink.Options{Without: without, Reply: func(stage, arg string, _ int) string {
			switch stage + " " + arg {
			case "rcpt b@example.org":
				return "550 5.1.1 nobody"
			case "dot c@example.org":
				return "452 4.2.2 full"
			case "dot d@example.org":
				return "554-5.6.0 no\n554 5.6.0 never"
			}
			return ""
		}})
		results := c.Deliver(t.Context(), mailboxes, message(text, "a@example.org", "b@example.org", "c@example.org", "d@example.org", "e@example.org"))
		if got := codes(results); got != "250 550 452 554 250" {
			t.Error(got)
		}
		if r := results[3]; r.Reply.String() != "554 5.6.0 no never" || r.Host != "/run/lmtp" {
			t.Errorf("%v by %s", r.Reply, r.Host)
		}
		if m := s.Messages(); len(m) != 1 || !slices.Equal(m[0].Rcpts, []string{"a@example.org", "e@example.org"}) || string(m[0].Data) != text {
			t.Errorf("%d messages", len(m))
		}
	})
}

func TestMailboxServerIsAskedOverOneConnection(t *testing.T) {
	s, c := mailboxServer(t, sink.Options{})
	for i := range 5 {
		m := message(text, fmt.Sprintf("u%d@example.org", i), "b@example.org")
		if got := codes(c.Deliver(t.Context(), mailboxes, m)); got != "250 250" {
			t.Fatal(got)
		}
	}
	if s.Count() != 5 || s.Connections() != 1 {
		t.Errorf("%d messages over %d connections", s.Count(), s.Connections())
	}
}

// Whoever was told is told; the others are tried again, for nobody knows whether they got it.
func TestMailboxServerBreaksOff(t *testing.T) {
	both(t, func(t *testing.T, without []string) {
		for action, want := range map[string]string{
			"<close>":              "250 451 451",
			"garbage":              "250 451 451",
			"334 more":             "250 451 451",
			"421 4.3.2 bye<close>": "250 421 421",
			"550 5.2.0 no<close>":  "250 550 451",
		} {
			_, c := mailboxServer(t, sink.Options{Without: without, Reply: script("dot", "b@example.org", action)})
			got := codes(c.Deliver(t.Context(), mailboxes, message(text, "a@example.org", "b@example.org", "c@example.org")))
			if got != want {
				t.Errorf("%s: %s, want %s", action, got, want)
			}
		}
	})
}

func TestEveryStageAndMisdeedOfAMailboxServer(t *testing.T) {
	for _, stage := range []string{"greeting", "ehlo", "mail", "rcpt", "data", "dot"} {
		for _, deed := range misdeeds {
			for _, without := range []string{"", "PIPELINING"} {
				s, c := mailboxServer(t, sink.Options{Without: []string{without}, Reply: script(stage, "", deed.script)})
				var results []Result
				within(t, func() { results = c.Deliver(t.Context(), mailboxes, message(text, "a@example.org", "b@example.org")) })
				for i, r := range results {
					final := deed.name == "5xx" && stage != "greeting" && stage != "ehlo"
					if r.Reply == nil || r.Reply.Positive() || r.Reply.Permanent() != final {
						t.Errorf("%s %s: recipient %d: %v", stage, deed.name, i, r.Reply)
					}
				}
				if s.Count() > 0 && deed.script[0] != '2' {
					t.Errorf("%s %s: delivered", stage, deed.name)
				}
			}
		}
	}
}

// After the dot of a message that is for nobody there is no answer to wait for.
func TestMailboxServerWantsAMessageForNobody(t *testing.T) {
	conn := &scripted{replies: "250 ok\r\n550 5.1.1 a\r\n354 go\r\n"}
	session := conn.session("PIPELINING")
	session.key.lmtp = true
	a := &attempt{message: message(text, "a@example.org"), results: make([]Result, 1)}
	if err := session.send(a); err != nil || codes(a.results) != "550" || session.reusable() {
		t.Fatal(err, codes(a.results))
	}
}

func TestMailboxServerOverTCP(t *testing.T) {
	s := startSink(t, sink.Options{LMTP: true})
	w := newWorld()
	w.ip["dovecot.test"] = []string{"192.0.2.1"}
	w.at["192.0.2.1:24"] = s.Addr()
	c := w.client(t, nil)
	route := Route{Domain: "example.org", Hosts: []string{"dovecot.test:24"}, LMTP: true}
	if r := c.Deliver(t.Context(), route, message(text, "a@example.org"))[0]; r.Reply.Code != 250 || r.Host != "dovecot.test [192.0.2.1]" {
		t.Errorf("%v by %s", r.Reply, r.Host)
	}
}

func TestAnSMTPServerIsNoMailboxServer(t *testing.T) {
	s := startSink(t, sink.Options{})
	w := newWorld()
	w.host("dovecot.test", "192.0.2.1", s)
	route := Route{Domain: "example.org", Hosts: []string{"dovecot.test:25"}, LMTP: true}
	r := w.client(t, nil).Deliver(t.Context(), route, message(text, "a@example.org"))[0]
	if want := "451 4.5.1 dovecot.test [192.0.2.1] refuses service (LHLO): 500 5.5.1 this server speaks another protocol"; r.Reply.String() != want {
		t.Error(r.Reply)
	}
}

// A mailbox server that is down is asked again after a while, and not for each message.
func TestMailboxServerIsDown(t *testing.T) {
	w := newWorld()
	c := w.client(t, nil)
	for range 3 {
		if r := c.Deliver(t.Context(), mailboxes, message(text, "a@example.org"))[0]; r.Reply.Code != 451 || r.Reply.Enhanced != "4.4.1" {
			t.Error(r.Reply)
		}
	}
	if len(w.dialed) != 1 || w.dialed[0] != "/run/lmtp" {
		t.Errorf("dialed %q", w.dialed)
	}
}

func TestSilentMailboxServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &pipeNet{silent: "lhlo"}
		client := n.client()
		defer client.Close()
		begin := time.Now()
		r := client.Deliver(t.Context(), mailboxes, message(text, "a@example.org"))[0]
		if took := time.Since(begin); took != 5*time.Minute || !strings.Contains(r.Reply.Text, "did not answer in time") {
			t.Errorf("%v after %v", r.Reply, took)
		}
	})
}

// FuzzMailboxServer: whatever a server says, everybody has an answer or the connection is given up,
// and nobody has a yes that was not said after the message.
func FuzzMailboxServer(f *testing.F) {
	f.Add("250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 a\r\n452 b\r\n550 c\r\n")
	f.Add("250 ok\r\n550 no\r\n250 ok\r\n452 4.5.3 many\r\n354 go\r\n250 b\r\n250 ok\r\n250 ok\r\n354 go\r\n250 c\r\n")
	f.Add("250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n421 bye\r\n")
	f.Add("550 no\r\n503 no\r\n503 no\r\n503 no\r\n354 go\r\n")
	f.Fuzz(func(t *testing.T, replies string) {
		session := (&scripted{replies: replies}).session("PIPELINING")
		session.key.lmtp = true
		a := &attempt{message: message(text, "a@example.org", "b@example.org", "c@example.org"), results: make([]Result, 3)}
		err := session.send(a)
		taken := 0
		for _, r := range a.results {
			if r.Reply == nil && err == nil {
				t.Errorf("%q: somebody has no answer", replies)
			}
			if r.Reply != nil && r.Reply.Positive() {
				taken++
			}
		}
		if _, after, _ := strings.Cut(replies, "354"); taken > strings.Count(after, "2") {
			t.Errorf("%q: %d were delivered to", replies, taken)
		}
	})
}
