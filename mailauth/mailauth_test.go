package mailauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	miekg "github.com/miekg/dns"
	"go.uber.org/goleak"

	"relayd/dkim"
	"relayd/dns"
	"relayd/internal/testnet"
	"relayd/message"
)

// The whole of it with the real resolver and a name server that fails in all its ways.
func TestWithARealResolver(t *testing.T) {
	key := keyOf(t, "example.org").Record()
	server := testnet.NewDNS(t, strings.ReplaceAll(fmt.Sprintf(`
		example.org. TXT "v=spf1 a:out.example.org " "include:more.example.org -all"
		more.example.org. TXT "v=spf1 mx ptr ip6:2001:db8::/32 -all"
		more.example.org. MX 10 mx.example.org.
		mx.example.org. A 192.0.2.7
		out.example.org. CNAME real.example.org.
		real.example.org. A %s
		%s. TXT "%s"
		_dmarc.example.org. TXT "v=DMARC1; p=reject"
		broken.example. TXT "v=spf1 a:broken2.example -all"
		_dmarc.broken.example. TXT "v=DMARC1; p=reject"
	`, client, key.Name, key.Value), "\t", ""))
	server.Fail("broken2.example", miekg.RcodeServerFailure)
	server.Fail("_dmarc.servfail.example", miekg.RcodeServerFailure)
	c := New(Options{Resolver: dns.New(dns.Options{Servers: []string{server.Addr()}}), Hostname: "mx.relay.example", Now: time.Now})
	for _, tt := range []struct{ ip, author, want string }{
		{client, "me@example.org", "spf=pass dkim=pass dmarc=pass 0"},
		{"192.0.2.7", "me@example.org", "spf=pass dkim=pass dmarc=pass 0"},
		{"2001:db8::1", "me@example.org", "spf=pass dkim=pass dmarc=pass 0"},
		{stranger, "me@example.org", "spf=fail dkim=pass dmarc=pass 0"},
		{stranger, "me@news.example.org", "spf=none dkim=pass dmarc=pass 0"},
		{client, "me@broken.example", "spf=temperror dkim=pass dmarc=temperror 451"},
		{client, "me@servfail.example", "spf=none dkim=pass dmarc=temperror 451"},
		{client, "me@nowhere.example", "spf=none dkim=pass dmarc=none 0"},
	} {
		text := signedBy(t, mailFrom(tt.author), "example.org")
		v, err := c.Check(t.Context(), Message{IP: netip.MustParseAddr(tt.ip), Helo: "[" + client + "]",
			Sender: parseAddress(t, tt.author), Header: parseHeader(t, text), Text: strings.NewReader(text)})
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprintf("spf=%s dkim=%s dmarc=%s %d", v.SPF.Result, v.DKIM[0].Kind, v.DMARC.Result, code(t, v, Reject))
		if got != tt.want {
			t.Errorf("%s from %s: %s, want %s", tt.author, tt.ip, got, tt.want)
		}
	}
}

// A silent is a DNS that never answers.
type silent struct{}

func (silent) wait(ctx context.Context, name string) error {
	<-ctx.Done()
	return &dns.Error{Name: name, Cause: context.Cause(ctx)}
}

func (s silent) TXT(ctx context.Context, name string) ([]string, error) {
	return nil, s.wait(ctx, name)
}

func (s silent) MX(ctx context.Context, domain string) (dns.Answer[dns.MX], error) {
	return dns.Answer[dns.MX]{}, s.wait(ctx, domain)
}

func (s silent) IP(ctx context.Context, host, _ string) (dns.Answer[netip.Addr], error) {
	return dns.Answer[netip.Addr]{}, s.wait(ctx, host)
}

func (s silent) PTR(ctx context.Context, ip netip.Addr) ([]string, error) {
	return nil, s.wait(ctx, ip.String())
}

func TestASilentDNSIsNotWaitedForLongerThanItsTime(t *testing.T) {
	text := signedBy(t, mailFrom("me@example.org"), "example.org", "else.example")
	synctest.Test(t, func(t *testing.T) {
		c := New(Options{Resolver: silent{}, Hostname: "mx.relay.example", Now: time.Now})
		begin := time.Now()
		v, err := c.Check(t.Context(), Message{IP: netip.MustParseAddr(client), Helo: "mail.client.example",
			Sender: parseAddress(t, "me@example.org"), Header: parseHeader(t, text), Text: strings.NewReader(text)})
		if err != nil || time.Since(begin) != dnsTime {
			t.Fatalf("%v after %v", err, time.Since(begin))
		}
		if v.SPF.Result != TempError || v.DKIM[0].Kind != dkim.TempError || v.DMARC.Result != TempError || code(t, v, Reject) != 451 {
			t.Errorf("%+v", v)
		}
	})
}

// One slow DNS must not use up the time of what others answer.
func TestASlowDomainTakesNoTimeFromOthers(t *testing.T) {
	text := signedBy(t, mailFrom("me@news.example.org"), "example.org")
	synctest.Test(t, func(t *testing.T) {
		z := slow{newZone(rejecting + keyLine(t, "example.org")), "client.example"}
		c := New(Options{Resolver: z, Hostname: "mx.relay.example", Now: time.Now})
		v, err := c.Check(t.Context(), Message{IP: netip.MustParseAddr(client), Helo: "mail.client.example",
			Sender: parseAddress(t, "me@news.example.org"), Header: parseHeader(t, text), Text: strings.NewReader(text)})
		if err != nil || v.HeloSPF.Result != TempError || v.SPF.Result != None || v.DMARC.Result != Pass {
			t.Errorf("%v, %+v", err, v)
		}
	})
}

// A slow is a zone of which a part never answers.
type slow struct {
	*zone
	below string
}

func (s slow) TXT(ctx context.Context, name string) ([]string, error) {
	if strings.HasSuffix(name, "."+s.below) {
		<-ctx.Done()
	}
	return s.zone.TXT(ctx, name)
}

func TestAReaderOrContextThatFailsEndsTheCheck(t *testing.T) {
	defer goleak.VerifyNone(t)
	text := signedBy(t, mailFrom("me@example.org")+strings.Repeat("Hello\r\n", 20_000), "example.org")
	broken := errors.New("broken")
	c := New(Options{Resolver: silent{}, Hostname: "mx.relay.example", Now: time.Now})
	m := Message{IP: netip.MustParseAddr(client), Sender: parseAddress(t, "me@example.org"), Header: parseHeader(t, text)}
	m.Text = io.MultiReader(strings.NewReader(text[:100]), iotest.ErrReader(broken))
	if v, err := c.Check(t.Context(), m); v != nil || !errors.Is(err, broken) {
		t.Errorf("%v, %v", v, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, text := range []string{text, mailFrom("me@example.org")} {
		m.Text = strings.NewReader(text)
		if v, err := c.Check(ctx, m); v != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("%v, %v", v, err)
		}
	}
	if n := len(c.outages.of); n != 0 {
		t.Errorf("%d outages are remembered", n)
	}
}

// The limits of RFC 7208 section 4.6.4, and those of the walk, hold against a DNS that goes on for ever.
func TestQuestionsAreBounded(t *testing.T) {
	endless := newZone("")
	for i := range 50 {
		name := fmt.Sprintf("n%d.example.org", i)
		endless.add(name, "TXT", fmt.Sprintf("v=spf1 mx ptr exists:%%{i}.x.example a:void%d.example include:n%d.example.org -all", i, i+1))
		for k := range 10 {
			endless.add(name, "MX", fmt.Sprintf("10 mx%d-%d.example", i, k))
		}
		endless.add(client, "PTR", name)
	}
	c := New(Options{Resolver: endless, Hostname: "mx.relay.example", Now: time.Now})
	text := mailFrom("me@" + strings.Repeat("a.", 60) + "example.org")
	v, err := c.Check(t.Context(), Message{IP: netip.MustParseAddr(client), Helo: "n0.example.org",
		Sender: parseAddress(t, "me@n0.example.org"), Header: parseHeader(t, text), Text: strings.NewReader(text)})
	if err != nil || v.SPF.Result != PermError {
		t.Errorf("%v %+v", err, v)
	}
	if n := len(endless.asked); n > 150 {
		t.Errorf("%d questions", n)
	}
	for _, q := range endless.asked {
		if len(q) > 260 {
			t.Errorf("asked for %q", q)
		}
	}
	walk := slices.DeleteFunc(slices.Clone(endless.asked), func(q string) bool { return !strings.HasPrefix(q, "TXT _dmarc.") })
	if len(walk) > 8 {
		t.Errorf("%d questions for the tree walk", len(walk))
	}
}

func FuzzCheck(f *testing.F) {
	signed := signedBy(f, mailFrom("me@example.org"), "example.org", "else.example")
	f.Add(signed, "me@example.org", "mail.client.example", "v=spf1 a mx ptr exists:%{l1r-}.%{d2} include:%{h}.example redirect=x.example", "v=DMARC1; p=reject; np=none; t=y")
	f.Add("From: a@b.example, c@d.example\r\nFrom: x\r\n\r\n", "", "[192.0.2.1]", "v=spf1 -all", "v=DMARC1; rua=mailto:x@y")
	f.Add("\r\n", `"a b"@example.org`, "h\r\nX: y", "v=spf1 +all", "v=DMARC1; psd=y; p=none")
	f.Add("From: <\"\r\n x\"@example.org>\r\nDKIM-Signature: d=a\x00b; s=\"; h=from; a=x;y\r\n", "x@y", "\xff", "v=spf1 \xff", "\xff")
	f.Fuzz(func(t *testing.T, text, sender, helo, policy, record string) {
		z := newZone(keyLine(t, "example.org"))
		for _, name := range []string{"example.org", "else.example", "mail.client.example", "b.example", "y"} {
			z.add(name, "TXT", policy)
			z.add("_dmarc."+name, "TXT", record)
			z.add(name, "A", client)
		}
		c := New(Options{Resolver: z, Hostname: "mx.relay.example", Now: testnet.NewClock().Now})
		h, err := message.ReadHeader(strings.NewReader(text))
		if err != nil {
			return
		}
		m := Message{IP: netip.MustParseAddr(client), Helo: helo, Header: h, Text: strings.NewReader(text)}
		if at := strings.LastIndexByte(sender, '@'); at >= 0 {
			m.Sender = senderOf(sender)
		}
		v, err := c.Check(t.Context(), m)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Trim(m.Sender.Domain, "abcdefghijklmnopqrstuvwxyz0123456789.-") == "" {
			checkField(t, v.AuthenticationResults())
		}
		if v.From.IsNull() && code(t, v, Reject) != 0 {
			t.Fatalf("refused without an author: %v", v.Disposition(Reject))
		}
		if v.DMARC.Result == Pass && !v.Aligned(v.From.Domain) || v.Aligned(v.From.Domain) && v.Undecided() {
			t.Fatalf("%+v", v)
		}
		if len(z.asked) > 300 {
			t.Fatalf("%d questions", len(z.asked))
		}
	})
}

// BenchmarkCheck is a signed message of 4 KiB, with DNS in memory.
func BenchmarkCheck(b *testing.B) {
	s := newSite(passes + rejecting + keyLine(b, "example.org"))
	text := signedBy(b, mailFrom("me@example.org")+strings.Repeat("Hello, this is a line of text\r\n", 128), "example.org")
	for b.Loop() {
		s.check(b, "me@example.org", text)
	}
}

// BenchmarkCheckDearest is a message and a DNS made to cost as much as they can: ten signatures
// over a thousand fields, and policies as long as they may be.
func BenchmarkCheckDearest(b *testing.B) {
	long := "v=spf1 " + strings.Repeat("ip6:2001:db8:1:2:3:4:5:6/127 ", (maxPolicy-100)/29)
	zone := newZone(keyLine(b, "example.org"))
	zone.add("_dmarc.example.org", "TXT", "v=DMARC1; p=reject;"+strings.Repeat("x=y;", (maxRecord-30)/4))
	for i := range 12 {
		zone.add(fmt.Sprintf("n%d.example.org", i), "TXT", fmt.Sprintf("%sinclude:n%d.example.org -all", long, i+1))
	}
	sig := "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed; d=example.org; s=sel; h=from" + strings.Repeat(":x", 100) +
		"; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA\r\n"
	text := strings.Repeat(sig, 10) + "From: me@example.org\r\n" + strings.Repeat("y: z\r\n", 900) + "\r\n"
	s := &site{New(Options{Resolver: zone, Hostname: "mx.relay.example", Now: time.Now}), zone, nil}
	for b.Loop() {
		s.check(b, "me@n0.example.org", text)
	}
}
