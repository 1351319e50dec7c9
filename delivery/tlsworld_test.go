package delivery

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"relayd/dns"
	"relayd/internal/sink"
	"relayd/internal/testnet"
	"relayd/mtasts"
	"relayd/tlsrpt"
)

// A guarded is a world with one server, mx.test, for the domains example.org and other.example, and
// with all that may protect the way to it.
type guarded struct {
	*world
	sink *sink.Sink

	unsigned map[string]bool   // names that DNSSEC does not vouch for; all others it does
	aliases  map[string]string // where the CNAMEs of a host or domain lead
	tlsa     map[string][]dns.TLSA
	tlsaErr  error
	policies map[string]mtasts.Policy
	stsErr   error
	demands  Demands
	roots    *x509.CertPool
	saved    []byte // of hosts with TLS
	disk     error  // of loading and saving

	mu     sync.Mutex // guards the rest
	asked  []string   // for TLSA
	told   []tlsrpt.Session
	offset time.Duration // of the clock
}

func newGuarded(t *testing.T, opt sink.Options) *guarded {
	g := &guarded{
		world: newWorld(), sink: startSink(t, opt), unsigned: map[string]bool{}, aliases: map[string]string{},
		tlsa: map[string][]dns.TLSA{}, policies: map[string]mtasts.Policy{}, demands: Demands{}, roots: x509.NewCertPool(),
	}
	g.mx["example.org"] = []dns.MX{{Host: "mx.test", Preference: 10}}
	g.mx["other.example"] = g.mx["example.org"]
	g.host("mx.test", "192.0.2.1", g.sink)
	return g
}

func (g *guarded) client(t testing.TB) *Client {
	return g.world.client(t, func(o *Options) {
		o.Resolver, o.RootCAs, o.Now = g, g.roots, g.now
		o.TLS = TLSOptions{
			Demands: g.demands, TLSA: g, Policies: g, Report: g.report,
			Load: func() ([]byte, error) { return g.saved, g.disk },
			Save: func(data []byte) error {
				g.saved = slices.Clone(data)
				return g.disk
			},
		}
	})
}

func (g *guarded) now() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return time.Now().Add(g.offset)
}

func (g *guarded) advance(d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.offset += d
}

func (g *guarded) MX(ctx context.Context, domain string) (dns.Answer[dns.MX], error) {
	a, err := g.world.MX(ctx, domain)
	a.Secure, a.Name = !g.unsigned[domain], g.end(domain)
	return a, err
}

func (g *guarded) IP(ctx context.Context, host, network string) (dns.Answer[netip.Addr], error) {
	a, err := g.world.IP(ctx, host, network)
	a.Secure, a.Name = !g.unsigned[host], g.end(host)
	return a, err
}

func (g *guarded) end(name string) string {
	if alias := g.aliases[name]; alias != "" {
		return alias
	}
	return name
}

func (g *guarded) TLSA(_ context.Context, host string, port int) (dns.Answer[dns.TLSA], error) {
	g.mu.Lock()
	g.asked = append(g.asked, host)
	g.mu.Unlock()
	switch records := g.tlsa[host]; {
	case g.tlsaErr != nil:
		return dns.Answer[dns.TLSA]{}, g.tlsaErr
	case port != 25 || records == nil:
		return dns.Answer[dns.TLSA]{}, &dns.Error{Name: host, Type: "TLSA", Kind: dns.NoData}
	default:
		return dns.Answer[dns.TLSA]{Records: records, Secure: true}, nil
	}
}

func (g *guarded) Policy(_ context.Context, domain string) (mtasts.Policy, error) {
	return g.policies[domain], g.stsErr
}

func (g *guarded) report(s tlsrpt.Session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.told = append(g.told, s)
}

// reports are what was reported since the last time, in short.
func (g *guarded) reports() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []string
	for _, s := range g.told {
		failure := s.Failure
		if failure == "" {
			failure = "ok"
		}
		all = append(all, string(s.Policy.Type)+" "+failure)
	}
	g.told = nil
	return all
}

// deliver sends one message and says in short what came of it.
func (g *guarded) deliver(t *testing.T, c *Client, domain string, change ...func(*Message)) (string, Result) {
	t.Helper()
	m := message(text, "a@"+domain)
	for _, f := range change {
		f(m)
	}
	r := c.Deliver(t.Context(), Route{Domain: domain}, m)[0]
	switch {
	case r.Reply.Code == 250 && r.TLS.String() == "none":
		return "clear", r
	case r.Reply.Code == 250:
		if r.TLS.String() != r.TLS.Version+" "+r.TLS.By {
			t.Errorf("in the log: %q", r.TLS.String())
		}
		return r.TLS.By, r
	case r.Reply.Code == 451 && r.Reply.Enhanced == "4.7.5":
		return "deferred", r
	}
	return r.Reply.Error(), r
}

// enforce is a policy that names hosts.
func enforce(hosts ...string) mtasts.Policy {
	return mtasts.Policy{Mode: mtasts.Enforce, MX: hosts, MaxAge: time.Hour}
}

// record is a TLSA record of the public key of the first certificate, or of the last for usage 2.
func record(usage uint8, cert testnet.Certificate) dns.TLSA {
	der := cert.TLS.Certificate[0]
	if usage == 2 {
		der = cert.TLS.Certificate[len(cert.TLS.Certificate)-1]
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	sum := sha256.Sum256(parsed.RawSubjectPublicKeyInfo)
	return dns.TLSA{Usage: usage, Selector: 1, Matching: 1, Data: sum[:]}
}

func serving(cert testnet.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert.TLS}}
}
