package relay

import (
	"cmp"
	"slices"
	"strings"
	"testing"

	"relayd/internal/sink"
	"relayd/message"
	"relayd/reply"
)

// gmailRefuses is what Gmail answers to a copy of mail whose author's domain has SPF only.
const gmailRefuses = "550-5.7.26 Unauthenticated email from elsewhere.test is not accepted due to\n" +
	"550-5.7.26 domain's DMARC policy. Please contact the administrator of\n550 5.7.26 elsewhere.test domain if this was a legitimate mail."

// A rewriting is one message from a stranger to a hosted address.
type rewriting struct {
	text    string // "SIGNED" in front of it has its author sign it
	to      string
	answers []string // of the destination, to one final dot after the other
	stage   string   // where they are given instead
}

// offer returns the house, what the stranger is answered, and what the destination has.
func (c rewriting) offer(t *testing.T) (*world, string, []*sink.Message) {
	t.Helper()
	w := openWorldOf(t, "", sink.Options{Reply: func(stage, _ string, nth int) string {
		if stage == cmp.Or(c.stage, "dot") && nth <= len(c.answers) {
			return c.answers[nth-1]
		}
		return ""
	}}, map[string]string{
		"domains/example.test/aliases":     "shop: me@mailbox.test\n",
		"domains/refuses.test/aliases":     "shop: me@mailbox.test\n",
		"domains/refuses.test/domain.toml": "on_dmarc_refusal = \"reject\"\n",
		"domains/keyless.test/aliases":     "shop: me@mailbox.test\n",
		"domains/keyless.test/domain.toml": "srs_domain = \"elsewhere.example\"\n",
	})
	a := newAuthor(t, "elsewhere.test")
	w.names.Set(strangersDNS + a.record())
	text, signed := strings.CutPrefix(c.text, "SIGNED")
	if signed {
		text = a.sign(text)
	}
	_, answer, err := w.house.offer(stranger, "s@elsewhere.test", []string{c.to}, text)
	if err != nil {
		answer = reply.From(err)
	}
	return w, answer.String(), w.sink.Messages()
}

func TestFromIsRewrittenWhenTheAuthorsDomainForbidsForwarding(t *testing.T) {
	const rest = "To: shop@example.test\r\nSubject: x\r\n  folded \r\n\r\nHello.\r\nFrom: in the body\r\n"
	for _, c := range []struct{ from, fields, want string }{
		{"From: \"Ann\" <s@elsewhere.test>\r\n", "", "From: \"s@elsewhere.test\"\r\n <noreply@example.test>\r\n" +
			"X-Original-From: \"Ann\" <s@elsewhere.test>\r\nReply-To: <s@elsewhere.test>\r\n"},
		{"from :\r\n\ts@elsewhere.test\r\n", "Reply-To: other@elsewhere.test\r\n", "From: \"s@elsewhere.test\"\r\n <noreply@example.test>\r\n" +
			"X-Original-From:\r\n\ts@elsewhere.test\r\n"},
		{"From: <\"odd \\\"one\\\"\"@elsewhere.test>\r\n", "Reply-To: other@elsewhere.test\r\n", "From: \"\\\"odd \\\\\\\"one\\\\\\\"\\\"@elsewhere.test\"\r\n <noreply@example.test>\r\n" +
			"X-Original-From: <\"odd \\\"one\\\"\"@elsewhere.test>\r\n"},
	} {
		w, answer, got := rewriting{"X-First: x\r\n" + c.from + c.fields + rest, "shop@example.test", []string{gmailRefuses}, ""}.offer(t)
		if !strings.HasPrefix(answer, "250 2.0.0 Ok: forwarded") || len(got) != 1 {
			t.Errorf("%s: %s, %d arrived", c.from, answer, len(got))
			continue
		}
		text := string(got[0].Data)
		front, back, found := strings.Cut(text, c.want+"Authentication-Results: ")
		if !found || !strings.HasSuffix(back, "\r\nX-First: x\r\n"+c.fields+rest) {
			t.Errorf("%s: %q arrives", c.from, text)
		}
		if !strings.HasPrefix(front, "Delivered-To: shop@example.test\r\nX-Forwarded-To: me@mailbox.test\r\nDKIM-Signature: ") || strings.Count(front, "DKIM-Signature") != 1 {
			t.Errorf("%s: in front: %q", c.from, front)
		}
		if signed := w.verified(text); !slices.Equal(signed, []string{"example.test"}) {
			t.Errorf("%s: signed by %q", c.from, signed)
		}
		header, err := message.ReadHeader(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if author, err := header.From(); err != nil || author.String() != "noreply@example.test" {
			t.Errorf("%s: it is from %s, %v", c.from, author, err)
		}
		if got[0].ConnID != 1 {
			t.Errorf("%s: it takes connection %d", c.from, got[0].ConnID)
		}
		if !strings.HasPrefix(got[0].From, "SRS0=") {
			t.Errorf("%s: leaves under %s", c.from, got[0].From)
		}
	}
}

// Servers that know the policy refuse at any stage.
func TestFromIsRewrittenWhereverItIsRefused(t *testing.T) {
	for _, stage := range []string{"mail", "rcpt", "data", "dot"} {
		c := rewriting{text: from("s@elsewhere.test"), to: "shop@example.test", answers: []string{gmailRefuses}, stage: stage}
		_, answer, got := c.offer(t)
		if !strings.HasPrefix(answer, "250 2.0.0 Ok: forwarded") || len(got) != 1 || !strings.Contains(string(got[0].Data), "<noreply@example.test>") {
			t.Errorf("%s: %s, %d arrived", stage, answer, len(got))
		}
		c.answers = append(c.answers, gmailRefuses)
		if _, answer, got := c.offer(t); !strings.HasPrefix(answer, "550 5.7.26 The destination refused the message: ") || len(got) > 0 {
			t.Errorf("%s, twice: %s, %d arrived", stage, answer, len(got))
		}
	}
}

// What is to be done about a refusal is still known when the message has waited in the queue.
func TestFromIsRewrittenFromTheQueue(t *testing.T) {
	w, answer, _ := rewriting{from("s@elsewhere.test"), "shop@example.test", []string{"451 4.3.0 later", gmailRefuses}, ""}.offer(t)
	id, queued := strings.CutPrefix(answer, "250 2.0.0 Ok: queued as ")
	if !queued {
		t.Fatal(answer)
	}
	if err := w.work.Retry(id); err != nil {
		t.Fatal(err)
	}
	if got := string(w.wait(1)[0].Data); !strings.Contains(got, "<noreply@example.test>") {
		t.Errorf("%q arrives", got)
	}
}

func TestFromIsNeverRewrittenOtherwise(t *testing.T) {
	const refused = "The destination refused the message: "
	spam := "550 5.7.1 our system has found that this is unsolicited mail"
	text := from("s@elsewhere.test")
	for name, c := range map[string]struct {
		rewriting
		want    string
		arrived int
	}{
		"nobody refuses it":              {rewriting{text, "shop@example.test", nil, ""}, "250 2.0.0 Ok: forwarded", 1},
		"refused for something else":     {rewriting{text, "shop@example.test", []string{spam}, ""}, "550 5.7.1 " + refused, 0},
		"the domain's setting is reject": {rewriting{text, "shop@refuses.test", []string{gmailRefuses}, ""}, "550 5.7.26 " + refused, 0},
		"its signature passes":           {rewriting{"SIGNED" + text, "shop@example.test", []string{gmailRefuses}, ""}, "550 5.7.26 " + refused, 0},
		"SRS in a domain without a key":  {rewriting{text, "shop@keyless.test", []string{gmailRefuses}, ""}, "250 2.0.0 Ok: forwarded", 1},
		"refused again":                  {rewriting{text, "shop@example.test", []string{gmailRefuses, gmailRefuses}, ""}, "550 5.7.26 " + refused, 0},
		"refused then for spam":          {rewriting{text, "shop@example.test", []string{gmailRefuses, spam}, ""}, "550 5.7.1 " + refused, 0},
		"put off then":                   {rewriting{text, "shop@example.test", []string{gmailRefuses, "451 4.3.0 later"}, ""}, "250 2.0.0 Ok: queued", 0},
		"not by the author's domain":     {rewriting{from("a@unknown.test"), "shop@example.test", []string{gmailRefuses}, ""}, "550 5.7.26 " + refused, 0},
	} {
		if _, answer, got := c.offer(t); !strings.HasPrefix(answer, c.want) || len(got) != c.arrived {
			t.Errorf("%s: %s, %d arrived", name, answer, len(got))
		}
	}
}
