//go:build interop

package interop

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"relayd/control"
)

// gmailAliases lead every name to the mailbox of that name, but for busy's, which is elsewhere.
const gmailAliases = "rate: rate@busy.test\nlater: later@busy.test\n*: *@gmail.test\n"

// TestGmail: mail that is forwarded arrives at a server that is as strict as Gmail, and what Gmail
// says has the consequences that it should have.
func TestGmail(t *testing.T) {
	t.Parallel()
	google, author := newAuthor(t, "google.com"), newAuthor(t, "author.test")
	other := newAuthor(t, "other.test") // for whose mail is called spam is put off
	txt := map[string]string{"spf.test": "v=spf1 ip4:" + gmailIP + " -all"}
	for _, domain := range []string{"google.com", "author.test", "other.test", "spf.test"} {
		txt["_dmarc."+domain] = "v=DMARC1; p=reject"
	}
	maps.Copy(txt, google.records())
	maps.Copy(txt, author.records())
	maps.Copy(txt, other.records())
	g := startGmail(t, gmailAliases, txt)
	d := g.site.start()
	t.Run("confirmation", func(t *testing.T) { g.confirmation(t, google) })
	t.Run("corpus", func(t *testing.T) { g.corpus(t, author) })
	t.Run("SPF alone", func(t *testing.T) { g.spfAlone(t) })
	t.Run("null sender", func(t *testing.T) { g.nullSender(t) })
	t.Run("final", func(t *testing.T) { g.final(t, author) })
	t.Run("waits", func(t *testing.T) { g.waits(t, other) })
	t.Run("rate", func(t *testing.T) { g.rate(t, other) })
	for _, v := range g.verdicts() {
		if !v.TLS || !v.PTR || v.IP != relayIP || v.Helo != hostname || v.SPF != "pass" {
			t.Errorf("%s from %s (%s), TLS %v, PTR %v", v, v.Helo, v.IP, v.TLS, v.PTR)
		}
	}
	if d.log.has(`"level":"ERROR"`) {
		t.Errorf("the log of relayd:\n%s", d.log.tail(40))
	}
}

// confirmation: what Gmail sends before it sends mail as one of our addresses. Only its signature
// speaks for it.
func (g *gmail) confirmation(t *testing.T, google *author) {
	signed, _ := google.sign(map[string][]byte{"x": crlf(readFile(t, "testdata/gmail-confirmation.eml"))})
	if got := g.courier(t).send("gmail-noreply@google.com", "hello@example.test", stuff(signed["x"])); !strings.HasPrefix(got, "250 2.0.0 Ok: forwarded") {
		t.Fatal(got)
	}
	v := g.only(t, "hello@gmail.test")
	front, found := bytes.CutSuffix(g.message(v), signed["x"])
	if !found || !wholeFields.Match(front) {
		t.Errorf("it arrives changed:\n%s", g.message(v))
	}
	if v.DMARC != "pass" || v.Author != "google.com" || !maps.Equal(v.signers(), map[string]int{"google.com": 1, "example.test": 2}) {
		t.Error(v)
	}
}

// only is the one verdict about a mailbox.
func (g *gmail) only(t *testing.T, mailbox string) verdict {
	t.Helper()
	list := g.about(mailbox)
	if len(list) != 1 {
		t.Fatalf("%s was sent to %d times: %v", mailbox, len(list), list)
	}
	return list[0]
}

// corpus: all mail that an author can sign passes his p=reject.
func (g *gmail) corpus(t *testing.T, a *author) {
	messages := readCorpus(t)
	for i, name := range sortedKeys(messages) {
		if i%3 > 0 && !full() {
			delete(messages, name) // in Python each signature takes its time
		}
	}
	for name, text := range messages {
		messages[name] = withFrom(crlf(text), "someone@author.test")
	}
	messages, signed := a.sign(messages)
	c, sent, looping, unsigned := g.courier(t), map[string]string{}, 0, 0
	for i, name := range sortedKeys(messages) {
		if !signed[name] {
			unsigned++
			continue
		}
		local := fmt.Sprintf("c%03d", i)
		switch got := c.send("bounces@list.test", local+"@example.test", stuff(messages[name])); {
		case strings.HasPrefix(got, "554 5.4.6 ") && hops(messages[name]) > 50:
			looping++
		case !strings.HasPrefix(got, "250 2.0.0 Ok: forwarded"):
			t.Errorf("%s: %s", name, got)
		default:
			sent[local+"@gmail.test"] = name
		}
	}
	passed := 0
	for _, v := range g.verdicts() {
		name, of := sent[strings.Join(v.Rcpts, " ")]
		switch {
		case !of:
			continue
		case v.DMARC != "pass" || v.signers()["author.test"] != 1 || v.signers()["example.test"] != 2:
			t.Errorf("%s: %s", name, v)
		case !bytes.HasSuffix(g.message(v), messages[name]):
			t.Errorf("%s arrives changed", name)
		default:
			passed++
		}
	}
	if passed != len(sent) || passed == 0 {
		t.Errorf("%d of %d pass DMARC", passed, len(sent))
	}
	t.Logf("of %d messages %d pass DMARC at Gmail by the author's signature, unchanged; python3-dkim cannot sign %d, and %d had too many hops",
		len(messages), passed, unsigned, looping)
}

// spfAlone: what only SPF spoke for is refused, and sent again with a From of ours; or not, where
// the domain's owner wants it so.
func (g *gmail) spfAlone(t *testing.T) {
	c := g.courier(t)
	text := plainText("Ann Author <ann@spf.test>", "spf")
	if got := c.send("ann@spf.test", "spf@example.test", stuff(text)); !strings.HasPrefix(got, "250 2.0.0 Ok: forwarded") {
		t.Fatal(got)
	}
	list := g.about("spf@gmail.test")
	if len(list) != 2 || !strings.HasPrefix(list[0].Reply, "550-5.7.26 ") || list[0].Author != "spf.test" || !bytes.HasSuffix(g.message(list[0]), text) {
		t.Fatalf("it is sent as %v", list)
	}
	v, arrived := list[1], string(g.message(list[1]))
	if v.DMARC != "pass" || v.Author != "example.test" || v.signers()["example.test"] != 2 {
		t.Error(v)
	}
	for _, field := range []string{"Reply-To: <ann@spf.test>\r\n", "X-Original-From: Ann Author <ann@spf.test>\r\n"} {
		if !strings.Contains(arrived, "\r\n"+field) {
			t.Errorf("no %q in\n%s", field, arrived)
		}
	}
	if got := c.send("ann@spf.test", "spf-strict@strict.test", stuff(text)); !strings.HasPrefix(got, "550 5.7.26 ") || !strings.Contains(got, "spf.test") || strings.Contains(got, "gmail.test") {
		t.Errorf("on_dmarc_refusal = reject: %s", got)
	}
	g.only(t, "spf-strict@gmail.test")
}

// nullSender: what has no sender, such as a bounce, has the name of our host for its SPF.
func (g *gmail) nullSender(t *testing.T) {
	if got := g.courier(t).send("", "null@example.test", stuff(plainText("mailer-daemon@plain.test", "null"))); !strings.HasPrefix(got, "250 2.0.0 Ok: forwarded") {
		t.Fatal(got)
	}
	if v := g.only(t, "null@gmail.test"); v.From != "" || v.SPF != "pass" || v.signers()["example.test"] != 2 {
		t.Error(v)
	}
}

func plainText(from, subject string) []byte {
	return []byte("From: " + from + "\r\nTo: any@example.test\r\nSubject: " + subject +
		"\r\nDate: Sun, 22 Nov 2026 12:00:00 +0000\r\nMessage-ID: <" + subject + "@plain.test>\r\n\r\nHello\r\n")
}

// signedFor are messages of the author's, one for each name.
func signedFor(a *author, names []string, body string) map[string][]byte {
	messages := map[string][]byte{}
	for _, name := range names {
		messages[name] = append(plainText("someone@"+a.domain, name), body...)
	}
	messages, _ = a.sign(messages)
	return messages
}

// final: what is refused for good the sender hears at once, and not which mailbox is behind the address.
func (g *gmail) final(t *testing.T, a *author) {
	codes := map[string]string{
		"nobody": "550 5.1.1", "inactive": "550 5.2.1", "invalid": "553 5.1.3", "virus": "552 5.7.0",
		"small": "552 5.3.4", "loop": "554 5.4.6", "header": "550 5.7.1", "spam": "550 5.7.1",
	}
	c := g.courier(t)
	for name, text := range signedFor(a, sortedKeys(codes), "unsolicited-bulk-mail\r\n") {
		got := c.send("bounces@list.test", name+"@example.test", stuff(text))
		if !strings.HasPrefix(got, codes[name]+" The destination refused the message: ") || strings.Contains(got, "gmail.test") {
			t.Errorf("%s: %s", name, got)
		}
		if name == "invalid" && !strings.Contains(got, "<invalid@example.test>") {
			t.Errorf("the alias does not stand for its mailbox: %s", got)
		}
	}
	if list := g.queue(t); len(list) > 0 {
		t.Errorf("in the queue: %v", list)
	}
	if !g.warned(t, "An alias leads to a mailbox that does not exist") {
		t.Error("the admin is not told of the alias")
	}
}

// queue is what waits, by mailbox.
func (g *gmail) queue(t *testing.T) map[string]control.Message {
	t.Helper()
	list := map[string]control.Message{}
	err := g.site.control().List(context.Background(), control.Filter{}, 0, func(m control.Message) bool {
		list[m.Recipients[0].Address] = m
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// warned reports whether the admin is told, by the beginning of what there is to be said.
func (g *gmail) warned(t *testing.T, text string) bool {
	t.Helper()
	status, err := g.site.control().Status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(fmt.Sprint(status.Warnings), text)
}

// waits: what is not the sender's fault, nor for good, is kept for him and tried again. What is a
// fault of ours is held until it is mended, and the admin hears of it.
func (g *gmail) waits(t *testing.T, a *author) {
	advice := map[string]string{ // of what is held
		"reverse": "needs a PTR record", "no-ptr": "needs a PTR record", "ipv6": "They do not take mail from the IPv6 address",
		"no-spf": "SPF did not pass", "no-tls": "They take mail over TLS only", "no-dkim": "DKIM did not pass",
		"unaligned": "neither that of the DKIM signature", "no-dmarc": "needs a DMARC record",
	}
	names := append(sortedKeys(advice), "busy", "full", "long-full", "dns", "doubtful")
	c := g.courier(t)
	messages, tried := signedFor(a, names, ""), map[string]int{}
	for name, text := range messages {
		if got := c.send("bounces@list.test", name+"@example.test", stuff(text)); !strings.HasPrefix(got, "250 2.0.0 Ok: queued as ") {
			t.Errorf("%s: %s", name, got)
		}
		tried[name] = len(g.about(name + "@gmail.test"))
	}
	list := g.queue(t)
	for _, name := range names {
		m := list[name+"@gmail.test"]
		state, in := "waiting", 5*time.Minute
		if advice[name] != "" {
			state, in = "held", 4*time.Hour
		}
		if next := time.Until(m.Next); m.State != state || next < in/2 || next > 2*in || m.Recipients[0].Attempts != 1 {
			t.Errorf("%s: %+v, next in %s", name, m, next)
		}
		if !g.warned(t, advice[name]) {
			t.Errorf("%s: no warning with %q", name, advice[name])
		}
	}
	g.mend(true)
	g.site.retryAll()
	waitFor(t, "everything to arrive", patience, func() bool { return len(g.queue(t)) == 0 })
	for _, name := range names {
		list := g.about(name + "@gmail.test")
		if len(list) != tried[name]+1 || !strings.HasPrefix(list[len(list)-1].Reply, "250 ") {
			t.Errorf("%s: %v", name, list)
		}
	}
	g.mend(false)
}

// rate: who takes less than there is gets nothing for ten minutes, and no sender waits for that.
func (g *gmail) rate(t *testing.T, a *author) {
	c, names := g.courier(t), []string{"rate", "later"}
	messages := signedFor(a, names, "")
	for _, name := range names {
		if got := c.send("bounces@list.test", name+"@example.test", stuff(messages[name])); !strings.HasPrefix(got, "250 2.0.0 Ok: queued as ") {
			t.Errorf("%s: %s", name, got)
		}
	}
	g.only(t, "rate@busy.test")
	if list := g.about("later@busy.test"); len(list) > 0 {
		t.Errorf("it goes on: %v", list)
	}
	destinations, err := g.site.control().Destinations(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(destinations, func(d control.Destination) bool { return d.Name == "googlemail.com" })
	if at < 0 {
		t.Fatalf("googlemail.com is not in %+v", destinations)
	}
	if d, left := destinations[at], time.Until(destinations[at].Paused); d.Waiting != 2 || left < 9*time.Minute || left > 11*time.Minute || !strings.Contains(d.LastReply, "4.7.28") {
		t.Errorf("%+v", d)
	}
	if !g.warned(t, "They take less mail from this server") {
		t.Error("no warning")
	}
}
