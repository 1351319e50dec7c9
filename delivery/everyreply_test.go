package delivery

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"relayd/dns"
	"relayd/internal/sink"
	"relayd/internal/testnet"
	"relayd/reply"
)

// A saidReply is one that a server of that provider is known to have given.
type saidReply struct {
	provider string
	reply    *reply.Reply
}

// saidReplies are those of testdata, and of the corpus where it is there.
func saidReplies(t *testing.T) []saidReply {
	t.Helper()
	var list []saidReply
	for _, k := range knownReplies(t) {
		if k.reply.Code != 354 { // which is about the command and not about the message
			list = append(list, saidReply{k.provider, k.reply})
		}
	}
	if page, err := os.ReadFile("../../shared/corpus/google-smtp-replies.txt"); err == nil {
		for _, l := range googleReplies(t, string(page)) {
			list = append(list, saidReply{"google.com", l.reply})
		}
	}
	file, err := os.ReadFile("../../shared/corpus/real-smtp-replies.tsv")
	if err != nil {
		t.Logf("SKIP corpus: %v; testdata covers the same rules", err)
	}
	for line := range strings.Lines(string(file)) {
		host, said, _ := strings.Cut(strings.TrimSpace(line), "\t")
		list = append(list, saidReply{providerOf(host), parseReply(t, said)})
	}
	return list
}

// lines are a reply as a server sends it.
func (s saidReply) lines() string {
	texts := strings.Split(strings.TrimSpace(s.reply.Text), "\n")
	for i, text := range texts {
		sep := "-"
		if i == len(texts)-1 {
			sep = " "
		}
		texts[i] = fmt.Sprintf("%d%s%s", s.reply.Code, sep, strings.TrimSpace(s.reply.Enhanced+" "+strings.TrimSpace(text)))
	}
	return strings.Join(texts, "\n")
}

// TestEveryReplyAtEveryStage: whatever a server says and when, the message goes to one host at most,
// what follows is what its class says, nothing is given up before MAIL, and once the server is well
// the next attempt gets through.
func TestEveryReplyAtEveryStage(t *testing.T) {
	cert := testnet.Cert(t, "whoever.test")
	var replies []saidReply
	for i, said := range saidReplies(t) {
		if i%testnet.Stride(5) == 0 {
			replies = append(replies, said)
		}
	}
	cases := 0
	for at, stage := range map[Stage][]string{
		AtGreeting: {"greeting"}, AtEHLO: {"ehlo", "in TLS"}, AtSTARTTLS: {"starttls"}, AtMail: {"mail"}, AtRcpt: {"rcpt"}, AtData: {"data"}, AtDot: {"dot"},
	} {
		for _, stage := range stage {
			t.Run(stage, func(t *testing.T) {
				t.Parallel()
				p := newPair(t, stage, sink.Options{TLSConfig: serving(cert)})
				for _, said := range replies {
					p.hear(t, said, at)
				}
			})
			cases += len(replies)
		}
	}
	t.Logf("%d replies, %d dialogs", len(replies), cases)
}

// A pair are two mail exchangers of a domain. The first says what it is told to, at one stage.
type pair struct {
	stage     string
	says      atomic.Pointer[string]
	hellos    atomic.Int32 // since it was told
	bad, good *sink.Sink
}

func newPair(t *testing.T, stage string, opt sink.Options) *pair {
	p := &pair{stage: stage}
	opt.Reply = func(stage, _ string, _ int) string {
		says := p.says.Load()
		switch {
		case says == nil:
		case stage == "ehlo" && p.stage == "in TLS" && p.hellos.Add(1) == 2, stage == p.stage:
			return *says
		}
		return ""
	}
	p.bad, p.good = startSink(t, opt), startSink(t, sink.Options{})
	return p
}

// hear delivers one message that is answered so, and another one when the server is well again.
func (p *pair) hear(t *testing.T, said saidReply, at Stage) {
	t.Helper()
	name := "mx.unknown.test"
	if said.provider != "" {
		name = "mx." + said.provider
	}
	w := newWorld()
	w.mx["example.org"] = []dns.MX{{Host: name, Preference: 10}, {Host: "good.test", Preference: 20}}
	w.host(name, "192.0.2.1", p.bad)
	w.host("good.test", "192.0.2.2", p.good)
	var later atomic.Int64
	c := w.client(t, func(o *Options) { o.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) } })
	defer c.Close()
	bad, good, lines := p.bad.Count(), p.good.Count(), said.lines()
	p.hellos.Store(0)
	p.says.Store(&lines)
	r := c.Deliver(t.Context(), example, message(text, "a@example.org"))[0]
	tookBad, tookGood := p.bad.Count()-bad, p.good.Count()-good
	v := classify(said.reply, at, registrable(name))
	want := p.expect(said.reply, at, v)
	switch {
	case want == atBad && (r.Reply.Code/100 != 2 || tookBad != 1 || tookGood != 0),
		want == atNext && (r.Reply.Code != 250 || tookBad != 0 || tookGood != 1),
		want == "" && (r.Reply.Positive() || tookBad+tookGood != 0 || r.Verdict != v || r.Fate() != v.Fate),
		want == "" && at < AtMail && (r.Fate() == Final || r.Reply.Permanent()):
		t.Errorf("%q: %v from %s, %+v; %d taken by the first, %d by the next; want %q, %+v", lines, r.Reply, r.Host, r.Verdict, tookBad, tookGood, want, v)
	}

	p.says.Store(nil)
	later.Store(int64(48 * time.Hour))
	if r := c.Deliver(t.Context(), example, message(text, "a@example.org"))[0]; r.Reply.Code != 250 || p.bad.Count()-bad != tookBad+1 || p.good.Count()-good != tookGood {
		t.Errorf("%q, and then well again: %v from %s", lines, r.Reply, r.Host)
	}
	for _, list := range c.pool.kept {
		if len(list) > 1 {
			t.Errorf("%q: %d connections are kept", lines, len(list))
		}
	}
}

// expect says who gets the message; "" is for nobody.
func (p *pair) expect(r *reply.Reply, at Stage, v Verdict) string {
	wanted := map[Stage]int{AtGreeting: 220, AtEHLO: 250, AtSTARTTLS: 220}[at]
	switch {
	case at < AtMail && r.Code == wanted,
		at == AtEHLO && r.Code >= 500,                  // by HELO
		at == AtSTARTTLS && r.Code != 421,              // in the clear
		(at == AtMail || at == AtRcpt) && r.Positive(), // as it should be
		at == AtDot && r.Positive():
		return atBad
	case at < AtMail && (v.NextHost || r.Positive()), at == AtData && r.Positive():
		return atNext
	}
	return ""
}
