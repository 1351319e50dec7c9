package delivery

import (
	"testing"

	"relayd/address"
	"relayd/internal/sink"
)

// The server of the test refuses a parameter that it does not offer.
func TestParametersAreForThoseWhoOfferThem(t *testing.T) {
	m := message(text, "a@example.org")
	m.EightBit, m.Return, m.EnvelopeID = true, "HDRS", "id + 1"
	m.Recipients[0].Original, m.Recipients[0].Notify = "RFC822;x=y@example.org", []string{"SUCCESS", "DELAY"}
	for _, c := range []struct {
		without    string
		mail, rcpt string
		dsn        bool
	}{
		{"", "SIZE=36 BODY=8BITMIME RET=HDRS ENVID=id+20+2B+201", "NOTIFY=SUCCESS,DELAY ORCPT=RFC822;x+3Dy@example.org", true},
		{"DSN", "SIZE=36 BODY=8BITMIME", "", false},
		{"8BITMIME", "SIZE=36 RET=HDRS ENVID=id+20+2B+201", "NOTIFY=SUCCESS,DELAY ORCPT=RFC822;x+3Dy@example.org", true},
		{"SIZE", "BODY=8BITMIME RET=HDRS ENVID=id+20+2B+201", "NOTIFY=SUCCESS,DELAY ORCPT=RFC822;x+3Dy@example.org", true},
	} {
		s, client := one(t, sink.Options{Without: []string{c.without}})
		r := client.Deliver(t.Context(), example, m)[0]
		if r.Reply.Code != 250 || r.DSN != c.dsn {
			t.Fatalf("without %s: %v, DSN %v", c.without, r.Reply, r.DSN)
		}
		if got := s.Messages()[0]; got.FromArgs != c.mail || got.RcptArgs[0] != c.rcpt {
			t.Errorf("without %s: %q, %q", c.without, got.FromArgs, got.RcptArgs[0])
		}
	}
}

// Whatever stands in the envelope, it stays inside its parameter.
func TestParametersCannotBeInjected(t *testing.T) {
	for _, r := range []Recipient{
		{Original: "rfc822 NOTIFY=NEVER;x"}, {Original: "rfc822\r\nRSET;x"}, {Original: "nokind"}, {Original: ";x"}, {Original: "rfc822;"},
		{Notify: []string{"NEVER ORCPT=rfc822"}}, {Notify: []string{"NEVER\r\nDATA"}}, {Notify: []string{""}},
	} {
		s := &session{ext: map[string]string{"DSN": ""}}
		r.Address = address.Address{Local: "a", Domain: "example.org"}
		if got := s.rcptLine(r); got != "RCPT TO:<a@example.org>" {
			t.Errorf("%q", got)
		}
		m := &Message{Return: "FULL SMTPUTF8", EnvelopeID: "a\r\nb"}
		if got := s.mailLine(m); got != "MAIL FROM:<> ENVID=a+0D+0Ab" {
			t.Errorf("%q", got)
		}
	}
	s := &session{ext: map[string]string{"DSN": ""}}
	r := Recipient{Address: address.Address{Local: "a b", Domain: "example.org"}, Original: "utf-8;ü+\\@x.org"}
	if got := s.rcptLine(r); got != `RCPT TO:<"a b"@example.org> ORCPT=utf-8;\x{FC}\x{2B}\x{5C}@x.org` {
		t.Errorf("%q", got)
	}
}

func TestDSNIsOnlyTakenOverByWhoTakesTheMessage(t *testing.T) {
	_, c := one(t, sink.Options{Reply: script("dot", "", "554 5.6.0 no")})
	if r := c.Deliver(t.Context(), example, message(text, "a@example.org"))[0]; r.DSN {
		t.Error("a refused message's DSN is left to the server")
	}
}

func TestOldServers(t *testing.T) {
	for name, reply := range map[string]func(string, string, int) string{
		"HELO":                script("ehlo", "", "502 5.5.1 what"),
		"lower case keywords": ehlo("250-pipelining\n250-8bitmime\n250-size 1000\n250 dsn"),
		"bare EHLO":           script("ehlo", "", "250 sink.test"),
		"talkative HELO": func(stage, _ string, _ int) string {
			return map[string]string{"ehlo": "500 what", "helo": "250-sink.test\n250-STARTTLS\n250 LIMITS MAILMAX=0"}[stage]
		},
	} {
		s, c := one(t, sink.Options{Reply: reply})
		m := message(text, "a@example.org", "b@example.org")
		m.Return = "FULL"
		if got := codes(c.Deliver(t.Context(), example, m)); got != "250 250" || string(s.Messages()[0].Data) != text {
			t.Errorf("%s: %s", name, got)
		}
	}
}
