package delivery

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"relayd/dns"
	"relayd/internal/sink"
	"relayd/internal/testnet"
)

func TestDANE(t *testing.T) {
	cert, domainCert := testnet.Cert(t, "mx.test", "host.test"), testnet.Cert(t, "example.org")
	unusable := dns.TLSA{Usage: 1, Selector: 1, Matching: 1, Data: make([]byte, 32)}
	for name, c := range map[string]struct {
		opt   sink.Options
		set   func(*guarded)
		want  string
		asked []string
		told  []string
	}{
		"signed": {sink.Options{TLSConfig: serving(cert)}, func(g *guarded) {}, ByDANE, []string{"mx.test"}, []string{"tlsa ok"}},
		"before a policy that would not do": {sink.Options{TLSConfig: serving(cert)},
			func(g *guarded) { g.policies["example.org"] = enforce("odd.example") }, ByDANE, []string{"mx.test"}, []string{"tlsa ok"}},
		"unsigned MX": {sink.Options{TLSConfig: serving(cert)},
			func(g *guarded) { g.unsigned["example.org"] = true }, ByNothing, nil, []string{"no-policy-found ok"}},
		"unsigned address": {sink.Options{TLSConfig: serving(cert)},
			func(g *guarded) { g.unsigned["mx.test"] = true }, ByNothing, nil, []string{"no-policy-found ok"}},
		"none": {sink.Options{TLSConfig: serving(cert)},
			func(g *guarded) { clear(g.tlsa) }, ByNothing, []string{"mx.test"}, []string{"no-policy-found ok"}},
		"unusable": {sink.Options{TLSConfig: serving(cert)},
			func(g *guarded) { g.tlsa["mx.test"] = []dns.TLSA{unusable} }, ByNothing, []string{"mx.test"}, []string{"tlsa tlsa-invalid", "no-policy-found ok"}},
		"unusable, and no TLS": {sink.Options{},
			func(g *guarded) { g.tlsa["mx.test"] = []dns.TLSA{unusable} }, "deferred", []string{"mx.test"},
			[]string{"tlsa tlsa-invalid", "no-policy-found starttls-not-supported"}},
		"unusable, and a policy": {sink.Options{TLSConfig: serving(cert)},
			func(g *guarded) {
				g.tlsa["mx.test"], g.policies["example.org"] = []dns.TLSA{unusable}, enforce("mx.test")
			}, BySTS, []string{"mx.test"}, []string{"tlsa tlsa-invalid", "sts ok"}},
		"lookup fails": {sink.Options{TLSConfig: serving(cert)},
			func(g *guarded) { g.tlsaErr = errors.New("SERVFAIL") }, "deferred", []string{"mx.test"}, []string{"tlsa dnssec-invalid"}},
		"at the end of CNAMEs": {sink.Options{TLSConfig: serving(cert)},
			func(g *guarded) {
				g.aliases["mx.test"], g.tlsa = "host.test", map[string][]dns.TLSA{"host.test": {record(2, cert)}}
			}, ByDANE, []string{"host.test"}, []string{"tlsa ok"}},
		"before the CNAMEs": {sink.Options{TLSConfig: serving(cert)},
			func(g *guarded) { g.aliases["mx.test"] = "elsewhere.test" }, ByDANE, []string{"elsewhere.test", "mx.test"}, []string{"tlsa ok"}},
		"anchor, and a certificate for the domain": {sink.Options{TLSConfig: serving(domainCert)},
			func(g *guarded) { g.tlsa["mx.test"] = []dns.TLSA{record(2, domainCert)} }, ByDANE, []string{"mx.test"}, []string{"tlsa ok"}},
		"the domain itself": {sink.Options{TLSConfig: serving(domainCert)},
			func(g *guarded) {
				delete(g.mx, "example.org")
				g.host("example.org", "192.0.2.1", nil)
				g.tlsa["example.org"] = []dns.TLSA{record(2, domainCert)}
			}, ByDANE, []string{"example.org"}, []string{"tlsa ok"}},
		"said otherwise": {sink.Options{TLSConfig: serving(cert)},
			func(g *guarded) { g.demands["example.org"] = DemandMay }, ByNothing, nil, nil},
		"wanted none as the rule": {sink.Options{TLSConfig: serving(cert)},
			func(g *guarded) { g.demands["*"] = DemandNone }, ByDANE, []string{"mx.test"}, []string{"tlsa ok"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuarded(t, c.opt)
			g.roots = cert.Pool
			g.tlsa["mx.test"] = []dns.TLSA{record(3, cert)}
			c.set(g)
			got, r := g.deliver(t, g.client(t), "example.org")
			if told := g.reports(); got != c.want || !slices.Equal(g.asked, c.asked) || !slices.Equal(told, c.told) {
				t.Errorf("%s (%v), asked for %q, reported %q", got, r.Reply.Error(), g.asked, told)
			}
		})
	}
}

// A host without the right certificate is no reason not to try the next.
func TestNextHostHasTheRightCertificate(t *testing.T) {
	cert, other := testnet.Cert(t, "mx.test"), testnet.Cert(t, "mx.test")
	g := newGuarded(t, sink.Options{TLSConfig: serving(cert)})
	second := startSink(t, sink.Options{TLSConfig: serving(other)})
	g.host("second.test", "192.0.2.2", second)
	g.mx["example.org"] = []dns.MX{{Host: "mx.test", Preference: 1}, {Host: "second.test", Preference: 2}}
	g.tlsa = map[string][]dns.TLSA{"mx.test": {record(3, other)}, "second.test": {record(3, other)}}
	if got, r := g.deliver(t, g.client(t), "example.org"); got != ByDANE || r.Host != "second.test [192.0.2.2]" || g.sink.Count() > 0 {
		t.Errorf("%s by %s", got, r.Host)
	}
}

// TestWhatTheMessageWants: REQUIRETLS and "TLS-Required: No" (RFC 8689).
func TestWhatTheMessageWants(t *testing.T) {
	cert := testnet.Cert(t, "mx.test")
	require := func(m *Message) { m.RequireTLS = true }
	optional := func(m *Message) { m.TLSOptional = true }
	offer := ehlo("250-STARTTLS\n250 REQUIRETLS")
	for name, c := range map[string]struct {
		set  func(*guarded)
		wish func(*Message)
		want string // "" when the message may not go
	}{
		"required, by DANE":             {func(g *guarded) { g.tlsa["mx.test"] = []dns.TLSA{record(3, cert)} }, require, ByDANE},
		"required, by name":             {func(g *guarded) { g.roots = cert.Pool }, require, ByName},
		"required, with none":           {func(g *guarded) {}, require, ""},
		"required, where none was told": {func(g *guarded) { g.roots, g.demands["example.org"] = cert.Pool, DemandNone }, require, ByName},
		"optional, past a policy":       {func(g *guarded) { g.policies["example.org"] = enforce("odd.example") }, optional, ByNothing},
		"optional, past DANE":           {func(g *guarded) { g.tlsa["mx.test"] = []dns.TLSA{record(3, testnet.Cert(t, "x.test"))} }, optional, ByNothing},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuarded(t, sink.Options{TLSConfig: serving(cert), Reply: offer})
			c.set(g)
			got, r := g.deliver(t, g.client(t), "example.org", c.wish)
			if r.TLS.By != c.want || c.want == "" && r.Reply.Positive() {
				t.Errorf("%s: %v", got, r.Reply.Error())
			}
		})
	}
}

func TestDemandsAreNotShared(t *testing.T) {
	seen := map[string]string{}
	for _, d := range []demand{
		{level: noTLS}, {level: mayTLS, by: ByNothing}, {level: mustTLS, by: ByNothing}, {level: mustVerify, by: ByName}, {level: mustVerify, by: BySTS},
		{level: mustVerify, by: ByDANE, names: []string{"a"}, records: []dns.TLSA{{Usage: 3}}},
		{level: mustVerify, by: ByDANE, names: []string{"b"}, records: []dns.TLSA{{Usage: 3}}},
		{level: mustVerify, by: ByDANE, names: []string{"a"}, records: []dns.TLSA{{Usage: 2}}},
		{level: mustVerify, by: ByDANE, names: []string{"a"}, records: []dns.TLSA{{Usage: 3, Data: []byte{1}}}},
	} {
		seen[d.String()] = d.by
	}
	if len(seen) != 9 {
		t.Errorf("%q", slices.Collect(maps.Keys(seen)))
	}
}

// TestWaysOtherThanMX: what stands in DNS about a domain says nothing about hosts that we choose.
func TestWaysOtherThanMX(t *testing.T) {
	cert := testnet.Cert(t, "mx.test")
	for name, c := range map[string]struct {
		set   func(*guarded)
		route Route
		tls   bool
		want  string
	}{
		"a policy":              {func(g *guarded) { g.policies["example.org"] = enforce("odd.example") }, Route{Hosts: []string{"mx.test"}}, true, ByNothing},
		"DANE":                  {func(g *guarded) { g.tlsa["mx.test"] = []dns.TLSA{record(3, cert)} }, Route{Hosts: []string{"mx.test"}}, true, ByDANE},
		"DANE, by its address":  {func(g *guarded) { g.tlsa["mx.test"] = []dns.TLSA{record(3, cert)} }, Route{Hosts: []string{"[192.0.2.1]"}}, true, ByNothing},
		"a demand of the host":  {func(g *guarded) { g.demands["mx.test"] = DemandVerify }, Route{Hosts: []string{"mx.test"}}, true, "deferred"},
		"a demand as the rule":  {func(g *guarded) { g.demands["*"] = DemandEncrypt }, Route{Hosts: []string{"mx.test"}}, false, "deferred"},
		"mailboxes":             {func(g *guarded) { g.demands["*"], g.demands["example.org"] = DemandEncrypt, DemandVerify }, Route{Hosts: []string{"mx.test"}, LMTP: true}, false, "clear"},
		"mailboxes, and DANE":   {func(g *guarded) { g.tlsa["mx.test"] = []dns.TLSA{record(3, testnet.Cert(t, "x"))} }, Route{Hosts: []string{"mx.test"}, LMTP: true}, true, ByNothing},
		"mailboxes, and a host": {func(g *guarded) { g.demands["mx.test"] = DemandEncrypt }, Route{Hosts: []string{"mx.test"}, LMTP: true}, false, "deferred"},
	} {
		t.Run(name, func(t *testing.T) {
			opt := sink.Options{LMTP: c.route.LMTP}
			if c.tls {
				opt.TLSConfig = serving(cert)
			}
			g := newGuarded(t, opt)
			c.set(g)
			c.route.Domain = "example.org"
			r := g.client(t).Deliver(t.Context(), c.route, message(text, "a@example.org"))[0]
			got := r.TLS.By
			switch {
			case r.Reply.Enhanced == "4.7.5":
				got = "deferred"
			case got == ByNone:
				got = "clear"
			}
			if told := g.reports(); got != c.want || told != nil {
				t.Errorf("%s: %v; reported %q", got, r.Reply.Error(), told)
			}
		})
	}
}

// TestDANEByDNS goes the whole way with our resolver: CNAMEs, AD bits and the port in the name.
func TestDANEByDNS(t *testing.T) {
	cert := testnet.Cert(t, "host.test")
	s := startSink(t, sink.Options{TLSConfig: serving(cert)})
	port := netip.MustParseAddrPort(s.Addr()).Port()
	right := record(2, cert)
	names := testnet.NewDNS(t, fmt.Sprintf("example.org. MX 10 mx.test.\nmx.test. CNAME host.test.\nhost.test. A 127.0.0.1\n"+
		"_%d._tcp.host.test. TLSA 2 1 1 %x\n", port, right.Data))
	for _, c := range []struct {
		secure []string
		want   string
	}{
		{nil, ByNothing},
		{[]string{"example.org", "mx.test"}, ByNothing},
		{[]string{fmt.Sprintf("_%d._tcp.host.test", port)}, ByDANE},
	} {
		for _, name := range c.secure {
			names.Secure(name)
		}
		r := dns.New(dns.Options{Servers: []string{names.Addr()}})
		client := New(Options{Hostname: "relay.test", Port: int(port), Family: "ipv4", Resolver: r, TLS: TLSOptions{TLSA: r}})
		result := client.Deliver(t.Context(), Route{Domain: "example.org"}, message(text, "a@example.org"))[0]
		if result.TLS.By != c.want || !result.Reply.Positive() {
			t.Errorf("with %q: %v: %v", c.secure, result.TLS, result.Reply.Error())
		}
		client.Close()
	}
}

// Who reads why a message waits learns who demands a certificate, and what is wrong with it.
func TestReasonOfAWrongCertificate(t *testing.T) {
	cert, wrong := testnet.Cert(t, "mx.test"), testnet.Cert(t, "whoever.test")
	g := newGuarded(t, sink.Options{TLSConfig: serving(wrong)})
	g.roots = wrong.Pool
	reason := func(want string) {
		t.Helper()
		if _, r := g.deliver(t, g.client(t), "example.org"); r.Reply.String() != "451 4.7.5 mx.test [192.0.2.1] does not prove by its certificate who it is"+want {
			t.Error(r.Reply)
		}
	}
	g.policies["example.org"] = enforce("mx.test")
	reason(" (which its domain demands by MTA-STS): it is for other names")
	g.roots = cert.Pool
	reason(" (which its domain demands by MTA-STS): no trusted authority stands for it")
	g.tlsa["mx.test"] = []dns.TLSA{record(3, cert)}
	reason(" (which its domain demands by DANE): it is not the one that is expected")
	clear(g.tlsa)
	clear(g.policies)
	g.demands["example.org"] = DemandVerify
	g.roots = wrong.Pool
	g.advance(48 * time.Hour)
	reason(": it has expired or is not valid yet")
}
