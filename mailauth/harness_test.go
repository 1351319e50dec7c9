package mailauth

import (
	"context"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"relayd/address"
	"relayd/dkim"
	"relayd/dns"
	"relayd/internal/testnet"
	"relayd/message"
)

// A zone is a DNS in memory. Its text has a record in each line, "name TYPE data"; the type FAIL
// makes questions of the type in its data go without an answer, of all types where there is none.
type zone struct {
	mu      sync.Mutex
	records map[string][]string // by type and name
	asked   []string
}

func newZone(text string) *zone {
	z := &zone{records: map[string][]string{}}
	for line := range strings.SplitSeq(text, "\n") {
		name, rest, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		typ, data, _ := strings.Cut(rest, " ")
		z.add(name, typ, data)
	}
	return z
}

func (z *zone) add(name, typ, data string) {
	key := typ + " " + strings.ToLower(name)
	z.records[key] = append(z.records[key], data)
}

// lookup follows CNAMEs and gives errors as the real resolver does.
func (z *zone) lookup(ctx context.Context, name, typ string) ([]string, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked = append(z.asked, typ+" "+name)
	fail := func(kind dns.Kind, cause error) ([]string, error) {
		return nil, &dns.Error{Name: name, Type: typ, Kind: kind, Cause: cause}
	}
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	if ctx.Err() != nil {
		return fail(dns.Temporary, context.Cause(ctx))
	}
	for hops := 0; ; hops++ {
		if !canStand(name) {
			return fail(dns.NotExist, nil)
		}
		list := z.records[typ+" "+name]
		failing := z.records["FAIL "+name]
		switch alias := z.records["CNAME "+name]; {
		case slices.Contains(failing, typ) || len(list) == 0 && slices.Contains(failing, ""), hops > 10:
			return fail(dns.Temporary, nil)
		case len(list) > 0:
			return list, nil
		case len(alias) > 0:
			name = strings.TrimSuffix(strings.ToLower(alias[0]), ".")
			continue
		}
		for key := range z.records {
			_, owner, _ := strings.Cut(key, " ")
			if owner == name || strings.HasSuffix(owner, "."+name) {
				return fail(dns.NoData, nil)
			}
		}
		return fail(dns.NotExist, nil)
	}
}

func canStand(name string) bool {
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
	}
	return len(name) <= 253 && !strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`'@;()"\`, r)
	})
}

func (z *zone) TXT(ctx context.Context, name string) ([]string, error) {
	return z.lookup(ctx, name, "TXT")
}

func (z *zone) MX(ctx context.Context, domain string) (dns.Answer[dns.MX], error) {
	list, err := z.lookup(ctx, domain, "MX")
	var ans dns.Answer[dns.MX]
	for _, data := range list {
		pref, host, _ := strings.Cut(data, " ")
		n, _ := strconv.ParseUint(pref, 10, 16)
		ans.Records = append(ans.Records, dns.MX{Host: strings.TrimSuffix(host, "."), Preference: uint16(n)})
	}
	return ans, err
}

func (z *zone) IP(ctx context.Context, host, network string) (dns.Answer[netip.Addr], error) {
	var ans dns.Answer[netip.Addr]
	var worst error
	for _, family := range [][2]string{{"ip6", "AAAA"}, {"ip4", "A"}} {
		if network != "ip" && network != family[0] {
			continue
		}
		list, err := z.lookup(ctx, host, family[1])
		for _, data := range list {
			ans.Records = append(ans.Records, netip.MustParseAddr(data))
		}
		if err != nil && (worst == nil || !absent(err)) {
			worst = err
		}
	}
	if len(ans.Records) > 0 {
		if worst != nil && !absent(worst) {
			ans.Partial = worst
		}
		worst = nil
	}
	return ans, worst
}

func (z *zone) PTR(ctx context.Context, ip netip.Addr) ([]string, error) {
	return z.lookup(ctx, ip.String(), "PTR")
}

func parseAddress(t testing.TB, s string) address.Address {
	t.Helper()
	if s == "" {
		return address.Address{}
	}
	a, err := address.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func parseHeader(t testing.TB, text string) message.Header {
	t.Helper()
	h, err := message.ReadHeader(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// A site is a Checker with its DNS and its clock.
type site struct {
	*Checker
	zone  *zone
	clock *testnet.Clock
}

func newSite(text string) *site {
	z, clock := newZone(text), testnet.NewClock()
	return &site{New(Options{Resolver: z, Hostname: "mx.relay.example", Now: clock.Now}), z, clock}
}

// client is who sends all mail of these tests, and stranger is not.
const (
	client   = "192.0.2.1"
	stranger = "198.51.100.9"
)

// check checks a message from the client.
func (s *site) check(t testing.TB, sender, text string) *Verdict {
	t.Helper()
	v, err := s.Check(t.Context(), Message{
		IP: netip.MustParseAddr(client), Helo: "mail.client.example", Sender: parseAddress(t, sender),
		Header: parseHeader(t, text), Text: strings.NewReader(text),
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// keys holds one key for every domain, since making RSA keys takes long.
var keyPEM = sync.OnceValue(func() []byte {
	pem, err := dkim.Generate("ed25519")
	if err != nil {
		panic(err)
	}
	return pem
})

const selector = "sel"

// keyOf is the signing key of a domain; its record belongs into a zone.
func keyOf(t testing.TB, domain string) *dkim.Key {
	t.Helper()
	k, err := dkim.ParseKey(domain, selector, keyPEM())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// keyLine is the key record of a domain as a line of a zone.
func keyLine(t testing.TB, domain string) string {
	r := keyOf(t, domain).Record()
	return r.Name + " TXT " + r.Value + "\n"
}

// signedBy signs a message for domains.
func signedBy(t testing.TB, text string, domains ...string) string {
	t.Helper()
	for _, d := range domains {
		sig, err := dkim.Sign(strings.NewReader(text), []*dkim.Key{keyOf(t, d)}, time.Unix(1_780_000_000, 0))
		if err != nil {
			t.Fatal(err)
		}
		text = sig + text
	}
	return text
}

// mailFrom is a message of an author.
func mailFrom(author string) string {
	return "From: " + author + "\r\nTo: you@hosted.example\r\nSubject: hello\r\nDate: Mon, 1 Jun 2026 12:00:00 +0000\r\n\r\nHello\r\n"
}
