package doctor

import (
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"relayd/dkim"
	"relayd/dns"
	"relayd/internal/testnet"
)

// A world has a resolver, and two servers for the zones of the site.
type world struct {
	resolver *testnet.DNS
	servers  [2]*testnet.DNS
	doctor   *Doctor
	site     Site
}

// testKey is an RSA key, made once: that takes its time.
var testKey = sync.OnceValue(func() *dkim.Key {
	text, err := dkim.Generate("rsa2048")
	if err != nil {
		panic(err)
	}
	k, err := dkim.ParseKey("example.org", "relay1", text)
	if err != nil {
		panic(err)
	}
	return k
})

// theZone is everything as it should be. Each record stands in a line of its own.
func theZone(s Site) string {
	return `
example.org. SOA ns1.example.org. hostmaster.example.org. 1 3600 600 86400 60
example.org. NS ns1.example.org.
example.org. NS ns2.example.org.
ns1.example.org. A 192.0.2.53
ns2.example.org. A 192.0.2.54
mx.example.org. A 192.0.2.1
mx.example.org. AAAA 2001:db8::1
mx.example.org. TXT "v=spf1 a -all"
example.org. MX 10 mx.example.org.
example.org. TXT "v=spf1 mx ~all"
` + s.Keys[0].Record().Zone() + `
_dmarc.example.org. TXT "v=DMARC1; p=none"
`
}

// elsewhere is the rest of the tree.
const elsewhere = `
org. SOA ns.org. hostmaster.org. 1 3600 600 86400 60
org. NS ns.org.
net. SOA ns.net. hostmaster.net. 1 3600 600 86400 60
arpa. SOA ns.arpa. hostmaster.arpa. 1 3600 600 86400 60
1.2.0.192.in-addr.arpa. PTR mx.example.org.
1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. PTR mx.example.org.
`

// patience is longer than any answer takes. A test in which none comes has less of it.
const (
	patience = 10 * time.Second
	hurry    = 300 * time.Millisecond
)

// hurry makes a world in which nobody waits long.
func (w *world) hurry() {
	w.doctor.opt.Patience = hurry
	w.doctor.opt.Resolver = dns.New(dns.Options{Servers: []string{w.resolver.Addr()}, Timeout: hurry})
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{site: Site{Hostname: "mx.example.org", Domain: "example.org", Keys: []*dkim.Key{testKey()}}}
	w.site.Addresses = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	w.resolver = testnet.NewDNS(t, theZone(w.site)+elsewhere)
	for i := range w.servers {
		w.servers[i] = testnet.NewDNS(t, theZone(w.site))
		w.servers[i].Authoritative()
	}
	at := map[string]string{"192.0.2.53": w.servers[0].Addr(), "192.0.2.54": w.servers[1].Addr()}
	w.doctor = New(Options{
		Resolver:  dns.New(dns.Options{Servers: []string{w.resolver.Addr()}, Timeout: patience}),
		Patience:  patience,
		Authority: func(ip netip.Addr) string { return at[ip.String()] },
		Addresses: func() ([]netip.Addr, error) { return w.site.Addresses, nil },
	})
	return w
}

// change puts something in the place of lines of the zone, everywhere.
func (w *world) change(t *testing.T, old, new string) {
	t.Helper()
	text := replaced(t, theZone(w.site), old, new)
	w.resolver.Set(text + elsewhere)
	for _, s := range w.servers {
		s.Set(text)
	}
}

// replaced replaces the line that begins with old; "" is the end.
func replaced(t *testing.T, text, old, new string) string {
	t.Helper()
	if old == "" {
		return text + new + "\n"
	}
	i := strings.Index(text, "\n"+old)
	if i < 0 {
		t.Fatalf("%q does not stand in the zone", old)
	}
	rest := text[i+1:]
	return text[:i+1] + new + rest[strings.IndexByte(rest, '\n'):]
}

// named is the finding about a subject that counts most.
func named(list []Finding, subject string) (worst Finding) {
	for _, f := range list {
		if f.Subject == subject && (worst.Subject == "" || rank(f.Status) > rank(worst.Status)) {
			worst = f
		}
	}
	return worst
}

func listing(list []Finding) string {
	var b strings.Builder
	for _, f := range list {
		b.WriteString(string(f.Status) + " " + f.Subject + ": " + f.Text + "\n   → " + f.Do + "\n")
	}
	return b.String()
}

// smallKey is a key whose record fits into one string.
func smallKey(t *testing.T) *dkim.Key {
	t.Helper()
	text, err := dkim.Generate("ed25519")
	if err != nil {
		t.Fatal(err)
	}
	k, err := dkim.ParseKey("example.org", "e1", text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
