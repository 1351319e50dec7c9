package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"relayd/follow"
)

// steps are those of a message for two recipients, of whom the last may get it or not.
func steps(last follow.Event) []follow.Event {
	return []follow.Event{
		{What: follow.Queued, ID: "AAAAAAAA", Signatures: []follow.Signature{{Domain: "example.org", Selector: "s1", Algorithm: "rsa-sha256"}}},
		{What: follow.Unreachable, Host: "a.mx [192.0.2.1]", Reply: "451 4.4.1 a.mx cannot be reached"},
		{What: follow.Connected, Host: "b.mx [2001:db8::1]", Family: "IPv6"},
		{What: follow.Ready, Host: "b.mx [2001:db8::1]", TLS: "TLS1.3", Verified: "DANE"},
		{What: follow.Delivered, Recipient: "you@x.example", Host: "b.mx [2001:db8::1]", Reply: "250 Ok\x1b[31m", Left: 1},
		{What: follow.Kept, Host: "c.mx [192.0.2.3]", Family: "IPv4", TLS: "TLS1.2"},
		{What: follow.Waits, Recipient: "me@x.example", Left: 1, Next: time.Now().Add(time.Minute)},
		last,
	}
}

func TestSend(t *testing.T) {
	s := newSite(t)
	const line = "send --from me@example.org --to you@x.example --to me@x.example --subject Hi --body text"
	s.sent = steps(follow.Event{What: follow.Delivered, Recipient: "me@x.example", Host: "c.mx [192.0.2.3]", Reply: "250 2.0.0 Ok"})
	out, _ := s.run(0, line)
	for _, want := range []string{
		"s  queued as AAAAAAAA\n", "s  signed for example.org with the key s1 (rsa-sha256)\n", "s  no mail goes to a.mx [192.0.2.1] now: 451 4.4.1 ",
		"s  connected to b.mx [2001:db8::1] over IPv6\n", "s  ready for mail, with TLS1.3 (its certificate was verified by DANE)\n",
		"s  you@x.example: delivered by b.mx [2001:db8::1]: 250 Ok\uFFFD[31m\n",
		"over IPv4 is still open from before, with TLS1.2 (its certificate was not asked for)\n", "s  me@x.example: waits for a limit of its destination, and is tried in ",
		"s  me@x.example: delivered by c.mx [192.0.2.3]: 250 2.0.0 Ok\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	const message = "From: <me@example.org>\r\nTo: <you@x.example>, <me@x.example>\r\nSubject: Hi\r\n\r\ntext\r\n"
	if want := "send me@example.org [you@x.example me@x.example]\n" + message; len(s.done) != 1 || s.done[0] != want {
		t.Errorf("the daemon was given %q", s.done)
	}

	s.sent = steps(follow.Event{What: follow.Failed, Recipient: "me@x.example", Reply: "550 5.1.1 No"})
	if out, _ := s.run(1, line); !strings.HasSuffix(out, "me@x.example: refused: 550 5.1.1 No\n") {
		t.Errorf("refused:\n%s", out)
	}
	s.sent = steps(follow.Event{What: follow.Deferred, Recipient: "me@x.example", Host: "c.mx", Reply: "451 later", Left: 1, Next: time.Now().Add(5*time.Minute + 5*time.Second)})
	out, _ = s.run(1, line+" --wait 200ms")
	if !strings.HasSuffix(out, "me@x.example: put off by c.mx: 451 later; the next attempt is in 5m\nrelayd goes on trying; `relay-util queue-show AAAAAAAA` shows how it fares\n") {
		t.Errorf("put off:\n%s", out)
	}
	out, _ = s.run(1, line+" --wait 200ms --json")
	var state sentState
	if err := json.Unmarshal([]byte(out), &state); err != nil || state.Finished || state.ID != "AAAAAAAA" || len(state.Recipients) != 2 || state.Recipients[1].What != follow.Deferred {
		t.Errorf("%v in %s", err, out)
	}
	s.sent = nil
	if _, errs := s.run(1, line); errs != "relay-util: 550 5.7.1 nothing is taken here\n" {
		t.Errorf("not taken: %q", errs)
	}
}

func TestSendTakesAFile(t *testing.T) {
	s := newSite(t)
	s.write("msg", "From: me@example.org\n\nhi\n")
	s.sent = []follow.Event{{What: follow.Queued, ID: "AAAAAAAA"}, {What: follow.Delivered, Recipient: "a@x"}}
	out, _ := s.run(0, "send --from me@example.org --to a@x.example "+s.dir+"/msg")
	if s.done[0] != "send me@example.org [a@x.example]\nFrom: me@example.org\r\n\r\nhi\r\n" || !strings.Contains(out, "not signed: the domain has no DKIM key") {
		t.Errorf("%q\n%s", s.done, out)
	}
	s.run(1, "send --from me@example.org --to a@x.example "+s.dir+"/none")
	s.run(1, "send --from me@example.org --to nobody")
	s.run(2, "send --from me@example.org")
	s.run(2, "send --to me@example.org")
}
