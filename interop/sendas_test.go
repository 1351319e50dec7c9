//go:build interop

package interop

import (
	"fmt"
	"strings"
	"testing"

	"relayd/internal/sink"
)

// TestSendMailAs: what Gmail's "Send mail as" does. It logs in as the user and writes as another
// address of the domain, one that only the catch-all has.
func TestSendMailAs(t *testing.T) {
	s, snk := newWorld(t, sink.Options{}, "")
	s.addDomain("example.test", "other: other@mailbox.test\n*: you@mailbox.test\n", "app", "other")
	d := s.start()
	messages := map[string][]byte{}
	for i, service := range []string{"submissions", "submission"} {
		c := s.submit(d, service, "app@example.test")
		c.play(`
			> MAIL FROM:<hello@example.test> SIZE=1000
			< 250 2.1.0
			> RCPT TO:<friend@elsewhere.test>
			< 250 2.1.5
		`)
		got := c.message([]byte("From: Hello <hello@example.test>\r\nTo: friend@elsewhere.test\r\nSubject: " + service + "\r\n\r\nHi\r\n"))
		if !strings.HasPrefix(got, "250 2.0.0 Ok: queued as ") {
			t.Fatalf("%s: %s", service, got)
		}
		m := arrived(t, snk, i+1)[i]
		if m.From != "hello@example.test" {
			t.Errorf("%s: it leaves under <%s>", service, m.From)
		}
		if strings.Contains(string(m.Data), "app@example.test") || strings.Contains(string(m.Data), "127.0.0.1") {
			t.Errorf("%s: the message tells who submitted it, or where from:\n%s", service, m.Data)
		}
		messages[service] = m.Data

		refusals(t, c)
		c.play("> QUIT\n< 221 2.0.0")
	}
	for service, list := range verifyAll(t, messages, s.dnsRecords()) {
		found := bySelector(list)
		if len(list) != 2 || !found["r1"].OK || !found["e1"].OK {
			t.Errorf("%s: signatures: %v", service, list)
		}
	}
	if snk.Count() != 2 {
		t.Errorf("%d messages arrived", snk.Count())
	}
}

// refusals: a foreign address and another user's are refused, in the envelope at MAIL and in From
// at the end of the message, with the address named.
func refusals(t *testing.T, c *dialog) {
	t.Helper()
	for _, foreign := range []string{"someone@elsewhere.test", "other@example.test", "other+tag@example.test", "Other@Example.Test"} {
		if got := c.say("MAIL FROM:<"+foreign+">", "550 5.7.1 "); !strings.Contains(strings.ToLower(got), "<"+strings.ToLower(foreign)+">") {
			t.Errorf("the refusal of %s as sender does not name it: %s", foreign, got)
		}
		c.play(`
			> MAIL FROM:<hello@example.test>
			< 250 2.1.0
			> RCPT TO:<friend@elsewhere.test>
			< 250 2.1.5
		`)
		got := c.message(fmt.Appendf(nil, "From: X <%s>\r\nSubject: x\r\n\r\nHi\r\n", foreign))
		if !strings.HasPrefix(got, "550 5.7.1 ") || !strings.Contains(strings.ToLower(got), "<"+strings.ToLower(foreign)+">") {
			t.Errorf("From %s: %s", foreign, got)
		}
	}
	c.play(`
		> MAIL FROM:<>
		< 250 2.1.0
		> RSET
		< 250
		> MAIL FROM:<app+news@example.test>
		< 250 2.1.0
		> RSET
		< 250
	`)
}
