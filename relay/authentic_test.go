package relay

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	miekg "github.com/miekg/dns"

	"relayd/dkim"
	"relayd/message"
	"relayd/reply"
)

// strangersDNS has a domain for each policy, none of which lets the client of these tests send, and
// one that does.
const strangersDNS = `
reject.test. TXT "v=spf1 ip4:198.51.100.1 -all"
_dmarc.reject.test. TXT "v=DMARC1; p=reject"
quarantine.test. TXT "v=spf1 ip4:198.51.100.1 -all"
_dmarc.quarantine.test. TXT "v=DMARC1; p=quarantine"
none.test. TXT "v=spf1 ip4:198.51.100.1 -all"
_dmarc.none.test. TXT "v=DMARC1; p=none"
bare.test. TXT "v=spf1 ip4:198.51.100.1 -all"
elsewhere.test. TXT "v=spf1 ip4:192.0.2.7 -all"
_dmarc.elsewhere.test. TXT "v=DMARC1; p=reject"
_dmarc.google.com. TXT "v=DMARC1; p=reject"
google.com. TXT "v=spf1 -all"
`

// An author signs mail in the name of a domain.
type author struct {
	t   testing.TB
	key *dkim.Key
}

func newAuthor(t testing.TB, domain string) author {
	t.Helper()
	pem, err := dkim.Generate("ed25519")
	if err != nil {
		t.Fatal(err)
	}
	key, err := dkim.ParseKey(domain, "author", pem)
	if err != nil {
		t.Fatal(err)
	}
	return author{t, key}
}

func (a author) record() string { return a.key.Record().Zone() + "\n" }

func (a author) sign(text string) string {
	a.t.Helper()
	field, err := dkim.Sign(strings.NewReader(text), []*dkim.Key{a.key}, noon)
	if err != nil {
		a.t.Fatal(err)
	}
	return field + text
}

// from is a message of an author, who is also the sender.
func from(author string) string {
	return "From: <" + author + ">\r\nTo: shop@example.test\r\nSubject: hello\r\nDate: Sun, 22 Nov 2026 12:00:00 +0000\r\n\r\nHello.\r\n"
}

// byMode are hosted domains with the modes of `dmarc`.
var byMode = map[string]string{
	"domains/example.test/aliases":     exampleTest["domains/example.test/aliases"],
	"domains/second.test/aliases":      "*: me@mailbox.test\n",
	"domains/marking.test/aliases":     "*: you@mailbox.test\n",
	"domains/marking.test/domain.toml": "dmarc = \"mark\"\n",
	"domains/off.test/aliases":         "*: off@mailbox.test\n",
	"domains/off.test/domain.toml":     "dmarc = \"off\"\n",
}

func TestPolicyAndMode(t *testing.T) {
	h := build(t, "", byMode)
	authors := map[string]author{}
	zone := strangersDNS
	for _, domain := range []string{"reject.test", "quarantine.test", "none.test", "bare.test"} {
		authors[domain] = newAuthor(t, domain)
		zone += authors[domain].record()
	}
	h.names.Set(zone)
	const fails, spf = "550 5.7.1 The message fails DMARC", "550 5.7.1 SPF of bare.test does not let 192.0.2.7 send"
	for _, c := range []struct {
		domain, to string
		refused    string // unless it is signed
		results    string // of DMARC when taken; "" if there is no field of ours
	}{
		{"reject.test", "example.test", fails, ""},
		{"reject.test", "marking.test", "", "dmarc=fail (p=reject)"},
		{"reject.test", "off.test", "", ""},
		{"reject.test", "example.test second.test", fails, ""},
		{"quarantine.test", "example.test", "", "dmarc=fail (p=quarantine)"},
		{"none.test", "example.test", "", "dmarc=fail (p=none)"},
		{"none.test", "marking.test", "", "dmarc=fail (p=none)"},
		{"bare.test", "example.test", spf, ""},
		{"bare.test", "marking.test", "", "dmarc=none"},
		{"bare.test", "off.test", "", ""},
	} {
		var rcpts []string
		for name := range strings.FieldsSeq(c.to) {
			rcpts = append(rcpts, "me@"+name)
		}
		text := from("a@" + c.domain)
		_, body, err := h.deliver(stranger, "a@"+c.domain, rcpts, text)
		if got := reply.From(err); (err != nil) != (c.refused != "") || err != nil && !strings.HasPrefix(got.String(), c.refused) {
			t.Errorf("%s to %s: %v, want %q", c.domain, c.to, err, c.refused)
		}
		ours := strings.HasPrefix(body, "Authentication-Results: mx.example.test;")
		if err == nil && (ours != (c.results != "") || !strings.Contains(body, c.results)) {
			t.Errorf("%s to %s goes on as %q", c.domain, c.to, body)
		}
		if _, _, err := h.deliver(stranger, "a@"+c.domain, rcpts, authors[c.domain].sign(text)); err != nil {
			t.Errorf("%s to %s, signed: %v", c.domain, c.to, err)
		}
	}
	if log := h.log.String(); !strings.Contains(log, "auth=0s spf=fail dkim=pass dmarc=pass") {
		t.Errorf("the log does not say what was found: %s", log)
	}
}

// Whoever names a domain that takes everything must not get a forgery to one that does not, signed by us.
func TestDomainsThatCheckInOtherWaysGetMessagesOfTheirOwn(t *testing.T) {
	h := build(t, "", byMode)
	for _, to := range [][]string{{"me@example.test", "me@off.test"}, {"me@off.test", "me@example.test"}, {"me@example.test", "me@second.test", "me@marking.test"}} {
		_, _, err := h.deliver(stranger, "a@reject.test", to, from("a@reject.test"))
		if want := "452 4.5.3 Please send to <" + to[len(to)-1] + "> in a message of its own"; err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v", to, err)
		}
	}
	if _, _, err := h.deliver(stranger, "a@none.test", []string{"me@example.test", "me@second.test"}, from("a@none.test")); err != nil {
		t.Errorf("domains that check in the same way: %v", err)
	}
}

// Mail whose author cannot be known, and so has no policy, is the destination's to judge.
func TestMailWithoutAnAuthorIsForwarded(t *testing.T) {
	h := build(t, "", byMode)
	h.names.Set(strangersDNS)
	for _, text := range []string{"Subject: x\r\n\r\n", "From: a@reject.test\r\nFrom: app@none.test\r\n\r\n", "From: a@reject.test, b@reject.test\r\n\r\n", "From: nobody\r\n\r\n"} {
		e, body, err := h.deliver(stranger, "a@none.test", []string{"me@example.test"}, text)
		if err != nil || !strings.HasSuffix(body, "\r\n"+text) {
			t.Errorf("%q: %v, %q", text, err, body)
			continue
		}
		if strings.Contains(e.Recipients[0].Fields, "DKIM-Signature") {
			t.Errorf("%q is signed", text)
		}
	}
}

func TestSilentDNSPutsMailOff(t *testing.T) {
	h := build(t, "", byMode)
	h.names.Set(strangersDNS)
	h.names.Fail("_dmarc.reject.test", miekg.RcodeServerFailure)
	for to, want := range map[string]string{"me@example.test": "451 4.4.3", "me@marking.test": "", "me@off.test": ""} {
		_, _, err := h.deliver(stranger, "a@reject.test", []string{to}, from("a@reject.test"))
		if (err != nil) != (want != "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %q", to, err, want)
		}
	}
	if _, _, err := h.deliver(stranger, "a@none.test", []string{"me@example.test"}, from("a@none.test")); err != nil {
		t.Errorf("a domain that DNS knows: %v", err)
	}
}

// TestOwnFrom: what we sign and send on in the name of a domain must not be a forgery of it.
func TestOwnFrom(t *testing.T) {
	files := map[string]string{
		"domains/example.test/aliases":     exampleTest["domains/example.test/aliases"],
		"domains/allows.test/aliases":      "*: you@mailbox.test\n",
		"domains/allows.test/domain.toml":  "own_from = \"allow\"\n",
		"domains/off.test/aliases":         "*: off@mailbox.test\n",
		"domains/off.test/domain.toml":     "dmarc = \"off\"\n",
		"domains/bounces.test/aliases":     "*: x@mailbox.test\n",
		"domains/bounces.test/domain.toml": "srs_domain = \"bounce.brand.test\"\n",
	}
	h := build(t, "", files)
	authors, zone := map[string]author{}, ""
	for _, domain := range []string{"example.test", "allows.test", "elsewhere.test"} {
		authors[domain] = newAuthor(t, domain)
		zone += authors[domain].record()
	}
	h.names.Set(zone)
	const refused = "550 5.7.1 The message claims to be from <"
	for _, c := range []struct {
		author, to string
		signedBy   string
		want       string // of the refusal; "" if it is taken
		vouched    bool   // and signed by us
	}{
		{"app@example.test", "shop@example.test", "", refused, false},
		{"app@example.test", "shop@example.test", "elsewhere.test", refused, false},
		{"app@example.test", "shop@example.test", "example.test", "", true},
		{"app@example.test", "any@off.test", "", refused, false}, // whatever else its recipient asks for
		{"app@example.test", "any@allows.test", "", refused, false},
		{"app@allows.test", "any@allows.test", "", "", false},
		{"app@allows.test", "shop@example.test", "", "", false},
		{"app@allows.test", "shop@example.test", "allows.test", "", true},
		{"ceo@mail.example.test", "shop@example.test", "", refused, false},
		{"ceo@mail.example.test", "shop@example.test", "example.test", "", true},
		{"ceo@mail.allows.test", "any@allows.test", "", "", false},
		{"ceo@brand.test", "any@bounces.test", "", refused, false},
		{"ceo@brand.test", "shop@example.test", "", "", true}, // example.test has nothing to do with it
		{"app@elsewhere.test", "shop@example.test", "", "", true},
	} {
		text := from(c.author)
		if c.signedBy != "" {
			text = authors[c.signedBy].sign(text)
		}
		e, body, err := h.deliver(stranger, "x@unknown.test", []string{c.to}, text)
		if (err != nil) != (c.want != "") || err != nil && !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%+v: %v", c, err)
		}
		if err != nil {
			continue
		}
		vouched := slices.Contains(h.verified(e.Recipients[0].Fields+body), "example.test")
		if vouched != (c.vouched && strings.HasSuffix(c.to, "@example.test")) {
			t.Errorf("%+v: fields %q", c, e.Recipients[0].Fields)
		}
		if !strings.HasPrefix(e.Recipients[0].ReturnPath.Local, "SRS0=") {
			t.Errorf("%+v: leaves under %s", c, e.Recipients[0].ReturnPath)
		}
	}
}

func TestOwnFromThatDNSCannotDecide(t *testing.T) {
	h := build(t, "", exampleTest)
	a := newAuthor(t, "example.test")
	h.names.Set(a.record())
	h.names.Fail(a.key.Record().Name, miekg.RcodeServerFailure)
	if _, _, err := h.deliver(stranger, "x@unknown.test", []string{"shop@example.test"}, a.sign(from("app@example.test"))); err == nil || !strings.HasPrefix(err.Error(), "451 4.4.3") {
		t.Error(err)
	}
}

// confirmation is like the mail by which Gmail confirms an address for "Send mail as".
const confirmation = "MIME-Version: 1.0\r\n" +
	"Date: Sun, 22 Nov 2026 11:59:58 +0000\r\n" +
	"Message-ID: <CAJ0123456789+abcdefghij=klmnopqrstuvwxyz@mail.google.com>\r\n" +
	"Subject: =?UTF-8?Q?Gmail_Confirmation_=2D_Send_Mail_as_shop=40example=2Etest?=\r\n" +
	"From: Gmail Team <forwarding-noreply@google.com>\r\n" +
	"To: shop@example.test\r\n" +
	"Content-Type: text/plain; charset=\"UTF-8\"; format=flowed; \r\n\tdelsp=yes\r\n" +
	"Content-Transfer-Encoding: base64\r\n\r\n" +
	"WW91IGhhdmUgcmVxdWVzdGVkIHRvIGFkZCBzaG9wQGV4YW1wbGUudGVzdCB0byB5b3VyIEdtYWls\r\n" +
	"IGFjY291bnQuCg==\r\n\r\n"

// TestConfirmationOfGmailArrives: it is signed by a domain that has everything else refused, and so
// arrives only if not one byte of it changes.
func TestConfirmationOfGmailArrives(t *testing.T) {
	h := build(t, "", exampleTest)
	google := newAuthor(t, "google.com")
	h.names.Set(strangersDNS + google.record())
	text := google.sign(confirmation)
	e, body, err := h.deliver(stranger, "bounces+1@gmail.test", []string{"shop@example.test"}, text)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(body, "Authentication-Results: mx.example.test;\r\n") || !strings.HasSuffix(body, "+0000\r\n"+text) {
		t.Errorf("goes on as %q", body)
	}
	h.keys = append(h.keys, google.key)
	if got := h.verified(e.Recipients[0].Fields + body); !slices.Equal(got, []string{"example.test", "google.com"}) {
		t.Errorf("at the destination these signatures hold: %q", got)
	}
	header, err := message.ParseHeader([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	results := strings.Join(strings.Fields(header.Get("Authentication-Results")), " ")
	for _, want := range []string{"dkim=pass header.d=google.com", "dmarc=pass (p=reject) header.from=google.com"} {
		if !strings.Contains(results, want) {
			t.Errorf("no %q in %q", want, results)
		}
	}
}

// Nobody but us says what we have found.
func TestForgedResultsAreTakenOut(t *testing.T) {
	h := build(t, "", exampleTest)
	forged := "authentication-results : (x) MX.example.test;\r\n\tdmarc=pass header.from=bank.test\r\n"
	kept := "Authentication-Results: mx.elsewhere.test; spf=pass\r\nARC-Authentication-Results: i=1; mx.example.test; spf=pass\r\n"
	for _, body := range []string{"\r\nHello.\r\n", "\r\n" + strings.Repeat("Authentication-Results: mx.example.test; this is no header\r\n", 5000)} {
		rest := kept + "From: a@elsewhere.test\r\nSubject: x\r\n  folded  \r\n"
		_, got, err := h.deliver(stranger, "a@elsewhere.test", []string{"shop@example.test"}, forged+kept+forged+strings.TrimPrefix(rest, kept)+body)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(got, ";\r\n\tSun, 22 Nov 2026 12:00:00 +0000\r\n"+rest+body) {
			t.Errorf("goes on as %.1000q", got)
		}
	}
}

// A field of ours must not break a signature that is there to keep others from adding one.
func TestResultsAreLeftOutWhereASignatureCoversThem(t *testing.T) {
	h := build(t, "", exampleTest)
	text := "DKIM-Signature: v=1; h=From:Authentication-Results; b=\r\n" + hello
	_, body, err := h.deliver(stranger, "s@elsewhere.test", []string{"shop@example.test"}, text)
	if err != nil || !strings.HasPrefix(body, "Received: ") {
		t.Errorf("%v, %q", err, body)
	}
}

// TestTwoRelaysInACircle: each has an alias that leads to the other. What they put in front ends it, and
// where something between them takes some of that out again, the rest does, later.
func TestTwoRelaysInACircle(t *testing.T) {
	for takenOut, want := range map[string]int{"": 4, "Delivered-To": 12} {
		one := build(t, "", map[string]string{"domains/one.test/aliases": "*: *@two.test\n"})
		two := build(t, "", map[string]string{"domains/two.test/aliases": "*: *@one.test\n"})
		two.Config.Hostname = "mx.two.test"
		if hops := hopsInCircle(t, one, two, takenOut); hops != want {
			t.Errorf("without %q it ends after %d hops, not %d", takenOut, hops, want)
		}
	}
}

// hopsInCircle is how often a message is taken that one forwards to two and two to one.
func hopsInCircle(t *testing.T, one, two *house, takenOut string) int {
	t.Helper()
	sender, text := "s@elsewhere.test", from("s@elsewhere.test")
	for hop := range message.MaxReceived {
		at, to := one, "me@one.test"
		if hop%2 == 1 {
			at, to = two, "me@two.test"
		}
		e, body, err := at.deliver(stranger, sender, []string{to}, text)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "554 5.4.6") {
				t.Errorf("hop %d: %v", hop, err)
			}
			return hop
		}
		r := e.Recipients[0]
		header, rest, _ := strings.Cut(r.Fields+body, "\r\n\r\n")
		h, err := message.ParseHeader([]byte(header + "\r\n"))
		if err != nil {
			t.Fatal(err)
		}
		_, kept := h.Split(takenOut)
		sender, text = r.ReturnPath.String(), string(kept)+"\r\n"+rest
	}
	return message.MaxReceived
}

// The log says for how long DNS kept a message.
func TestChecksAreTimed(t *testing.T) {
	h := build(t, "", exampleTest)
	now := noon
	h.Now = func() time.Time { now = now.Add(time.Second); return now }
	if _, _, err := h.deliver(stranger, "s@elsewhere.test", []string{"shop@example.test"}, hello); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("auth=%s spf=none dkim=none dmarc=none", time.Second); !strings.Contains(h.log.String(), want) {
		t.Errorf("no %q in %s", want, h.log)
	}
}

// BenchmarkCheck is what the checks cost a message that its author signed, once DNS is known.
func BenchmarkCheck(b *testing.B) {
	h := build(b, "", exampleTest)
	a := newAuthor(b, "reject.test")
	h.names.Set(strangersDNS + a.record())
	m, err := message.Read(strings.NewReader(a.sign(from("a@reject.test"))), b.TempDir(), 1<<20)
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	for b.Loop() {
		tx := NewTransaction(stranger)
		tx.Sender, tx.world = mailbox(b, "a@reject.test"), h.Domains()
		if err := h.Recipient(b.Context(), tx, Recipient{Address: mailbox(b, "shop@example.test")}); err != nil {
			b.Fatal(err)
		}
		if err := h.check(b.Context(), tx, m); err != nil {
			b.Fatal(err)
		}
	}
}
