package relay

import (
	"context"
	"io"
	"slices"
	"strings"
	"testing"

	"relayd/internal/sink"
	"relayd/message"
	"relayd/queue"
)

// gmailRefuses is what Gmail answers to a copy of mail whose author's domain has SPF only.
const gmailRefuses = "550-5.7.26 Unauthenticated email from elsewhere.test is not accepted due to\n" +
	"550-5.7.26 domain's DMARC policy. Please contact the administrator of\n550 5.7.26 elsewhere.test domain if this was a legitimate mail."

// A rewriting is one message, accepted and then attempted once.
type rewriting struct {
	text    string // that arrives here, with "SIGNED" in front if its author signs it
	to      string
	answers []string // of the destination, to one final dot after the other
}

// try returns the house that did it, what is left to do, and what the destination has.
func (c rewriting) try(t *testing.T) (*house, queue.Outcome, []*sink.Message) {
	t.Helper()
	w := openWorld(t, "", sink.Options{Reply: func(stage, _ string, nth int) string {
		if stage == "dot" && nth <= len(c.answers) {
			return c.answers[nth-1]
		}
		return ""
	}})
	h := build(t, "", map[string]string{
		"domains/example.test/aliases":     "shop: me@mailbox.test\n",
		"domains/refuses.test/aliases":     "shop: me@mailbox.test\n",
		"domains/refuses.test/domain.toml": "on_dmarc_refusal = \"reject\"\n",
		"domains/keyless.test/aliases":     "shop: me@mailbox.test\n",
		"domains/keyless.test/domain.toml": "srs_domain = \"elsewhere.example\"\n",
	})
	a := newAuthor(t, "elsewhere.test")
	h.names.Set(strangersDNS + a.record())
	text, signed := strings.CutPrefix(c.text, "SIGNED")
	if signed {
		text = a.sign(text)
	}
	e, body, err := h.deliver(stranger, "s@elsewhere.test", []string{c.to}, text)
	if err != nil {
		t.Fatal(err)
	}
	out := NewOutbound(h.Options, w.out.client)
	outcomes := out.Deliver(context.Background(), &queue.Work{Envelope: e, Indexes: []int{0}, Body: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(body)), nil
	}})
	return h, outcomes[0], w.sink.Messages()
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
		h, outcome, got := rewriting{"X-First: x\r\n" + c.from + c.fields + rest, "shop@example.test", []string{gmailRefuses}}.try(t)
		if outcome.State != queue.Delivered || len(got) != 1 {
			t.Errorf("%s: %+v, %d arrived", c.from, outcome, len(got))
			continue
		}
		text := string(got[0].Data)
		front, back, found := strings.Cut(text, c.want+"Authentication-Results: ")
		if !found || !strings.HasSuffix(back, "+0000\r\nX-First: x\r\n"+c.fields+rest) {
			t.Errorf("%s: %q arrives", c.from, text)
		}
		if !strings.HasPrefix(front, "Delivered-To: shop@example.test\r\nX-Forwarded-To: me@mailbox.test\r\nDKIM-Signature: ") || strings.Count(front, "DKIM-Signature") != 1 {
			t.Errorf("%s: in front: %q", c.from, front)
		}
		if signed := h.verified(text); !slices.Equal(signed, []string{"example.test"}) {
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

func TestFromIsNeverRewrittenOtherwise(t *testing.T) {
	spam := "550 5.7.1 our system has found that this is unsolicited mail"
	text := from("s@elsewhere.test")
	for name, c := range map[string]struct {
		rewriting
		want    queue.State
		reply   string
		arrived int
	}{
		"nobody refuses it":              {rewriting{text, "shop@example.test", nil}, queue.Delivered, "250", 1},
		"refused for something else":     {rewriting{text, "shop@example.test", []string{spam}}, queue.Failed, "550 5.7.1", 0},
		"the domain's setting is reject": {rewriting{text, "shop@refuses.test", []string{gmailRefuses}}, queue.Failed, "550 5.7.26", 0},
		"its signature passes":           {rewriting{"SIGNED" + text, "shop@example.test", []string{gmailRefuses}}, queue.Failed, "550 5.7.26", 0},
		"SRS in a domain without a key":  {rewriting{text, "shop@keyless.test", []string{gmailRefuses}}, queue.Delivered, "250", 1},
		"refused again":                  {rewriting{text, "shop@example.test", []string{gmailRefuses, gmailRefuses}}, queue.Failed, "550 5.7.26", 0},
		"refused then for spam":          {rewriting{text, "shop@example.test", []string{gmailRefuses, spam}}, queue.Failed, "550 5.7.1", 0},
		"put off then":                   {rewriting{text, "shop@example.test", []string{gmailRefuses, "451 4.3.0 later"}}, queue.Waiting, "451 4.3.0", 0},
		"not by the author's domain":     {rewriting{from("a@unknown.test"), "shop@example.test", []string{gmailRefuses}}, queue.Failed, "550 5.7.26", 0},
	} {
		_, outcome, got := c.try(t)
		if outcome.State != c.want || !strings.HasPrefix(outcome.Reply.String(), c.reply) || len(got) != c.arrived {
			t.Errorf("%s: %+v, %d arrived", name, outcome, len(got))
		}
	}
}
