package delivery

import (
	"crypto/tls"
	"crypto/x509"
	"slices"
	"testing"
	"time"

	"relayd/dns"
	"relayd/internal/sink"
	"relayd/internal/testnet"
	"relayd/mtasts"
	"relayd/tlsrpt"
)

// TestPolicyByServer is every policy with every way in which a server does TLS.
func TestPolicyByServer(t *testing.T) {
	right, wrong := testnet.Cert(t, "mx.test"), testnet.Cert(t, "whoever.test")
	old := serving(right)
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	type server struct {
		name    string
		opt     sink.Options
		cert    testnet.Certificate
		foreign bool // nobody we trust vouches for it
		later   time.Duration
		failure string // under a policy that judges by name
	}
	servers := []server{
		{"no STARTTLS", sink.Options{}, right, false, 0, tlsrpt.NotSupported},
		{"refused", sink.Options{TLSConfig: serving(right), Reply: script("starttls", "", "454 4.7.0 no")}, right, false, 0, tlsrpt.NotSupported},
		{"handshake fails", sink.Options{TLSConfig: old}, right, false, 0, tlsrpt.ValidationFailed},
		{"self-signed", sink.Options{TLSConfig: serving(right)}, right, true, 0, tlsrpt.NotTrusted},
		{"wrong name", sink.Options{TLSConfig: serving(wrong)}, wrong, false, 0, tlsrpt.HostMismatch},
		{"expired", sink.Options{TLSConfig: serving(right)}, right, false, 48 * time.Hour, tlsrpt.Expired},
		{"right", sink.Options{TLSConfig: serving(right)}, right, false, 0, "ok"},
	}
	trial := mtasts.Policy{Mode: mtasts.Testing, MX: []string{"mx.test"}, MaxAge: time.Hour}
	for _, p := range []struct {
		name string
		set  func(*guarded, server)
		want string // for each server, a letter as in outcomes
		typ  string // of the report; "": none
	}{
		{"none", func(g *guarded, _ server) { g.demands["example.org"] = DemandNone }, "c c c c c c c", ""},
		{"may", func(g *guarded, _ server) { g.demands["example.org"] = DemandMay }, "c c c o o o o", ""},
		{"encrypt", func(g *guarded, _ server) { g.demands["mx.test"] = DemandEncrypt }, "- - - o o o o", ""},
		{"verify", func(g *guarded, _ server) { g.demands["example.org"] = DemandVerify }, "- - - - - - v", ""},
		{"nothing", func(*guarded, server) {}, "c c c o o o o", "no-policy-found"},
		{"verify as the rule", func(g *guarded, _ server) { g.demands["*"] = DemandVerify }, "- - - - - - v", "no-policy-found"},
		{"enforce", func(g *guarded, _ server) { g.policies["example.org"] = enforce("mx.test") }, "- - - - - - s", "sts"},
		{"testing", func(g *guarded, _ server) { g.policies["example.org"] = trial }, "c c c o o o o", "sts"},
		{"DANE-EE", func(g *guarded, s server) { g.tlsa["mx.test"] = []dns.TLSA{record(3, s.cert)} }, "- - - d d d d", "tlsa"},
		{"DANE-TA", func(g *guarded, s server) { g.tlsa["mx.test"] = []dns.TLSA{record(2, s.cert)} }, "- - - d - - d", "tlsa"},
		{"DANE-EE of another", func(g *guarded, _ server) {
			g.tlsa["mx.test"] = []dns.TLSA{record(3, testnet.Cert(t, "mx.test"))}
			g.policies["example.org"] = enforce("mx.test")
		}, "- - - - - - -", "tlsa"},
	} {
		outcomes := map[byte]string{'c': "clear", '-': "deferred", 'o': ByNothing, 'v': ByName, 's': BySTS, 'd': ByDANE}
		for i, s := range servers {
			t.Run(p.name+", "+s.name, func(t *testing.T) {
				g := newGuarded(t, s.opt)
				if !s.foreign {
					g.roots = s.cert.Pool
				}
				g.advance(s.later)
				p.set(g, s)
				want := outcomes[p.want[2*i]]
				got, r := g.deliver(t, g.client(t), "example.org")
				if got != want || r.Host != "mx.test [192.0.2.1]" || (g.sink.Count() == 1) != (want != "deferred") {
					t.Errorf("%s by %s: %v", got, r.Host, r.Reply.Error())
				}
				if carried := r.TLS.Version == "TLS1.3" && r.TLS.Cipher != ""; carried != (want != "clear" && want != "deferred") {
					t.Errorf("TLS %+v", r.TLS)
				}
				checkReport(t, g, p.typ, s.failure)
			})
		}
	}
}

// checkReport compares what was reported of one connection. failure is that under a policy that
// judges by name.
func checkReport(t *testing.T, g *guarded, typ, failure string) {
	t.Helper()
	g.mu.Lock()
	for _, s := range g.told {
		if s.Host != "mx.test" || s.To.String() != "192.0.2.1" || s.From.String() != "127.0.0.1" ||
			s.Policy.Domain != "example.org" || (s.Reason == "") != (s.Failure == "") {
			t.Errorf("reported: %+v", s)
		}
	}
	g.mu.Unlock()
	got := g.reports()
	judged := failure != tlsrpt.NotSupported && failure != "ok"
	switch {
	case typ == "":
		if got != nil {
			t.Errorf("reported: %q", got)
		}
	case judged && (typ == "tlsa" || typ == "no-policy-found"): // judged by something else, or not at all
		if len(got) != 1 {
			t.Errorf("reported: %q", got)
		}
	case typ == "tlsa" && failure == "ok":
	case !slices.Equal(got, []string{typ + " " + failure}):
		t.Errorf("reported: %q; want %s %s", got, typ, failure)
	}
}

func TestNamesOfDemands(t *testing.T) {
	all := Demands{
		"example.org": "encrypt", ".example.org": "verify", ".deep.example.org": "none", "mx.google.com": "may",
		"google.com": "verify", "*": "none", ".test": "may",
	}
	for _, c := range []struct{ domain, host, want string }{
		{"example.org", "mx.google.com", "encrypt"},
		{"a.example.org", "mx.google.com", "verify"},
		{"a.b.example.org", "", "verify"},
		{"deep.example.org", "", "verify"},
		{"a.deep.example.org", "", "none"},
		{"notexample.org", "", ""},
		{"x.example", "mx.google.com", "may"},
		{"x.example", "aspmx.l.google.com", "verify"},
		{"x.example", "google.com", "verify"},
		{"google.com", "mx.x.example", "verify"},
		{"x.test", "google.com", "may"},
		{"test", "com", ""},
		{"x.example", "", ""},
		{"[192.0.2.1]", "", ""},
	} {
		if got, ok := all.of(c.domain, c.host); string(got) != c.want || ok != (c.want != "") {
			t.Errorf("%s at %s: %q", c.domain, c.host, got)
		}
	}
}

// TestKeptConnectionsByDemand: a connection that was good enough for one domain is not for another
// that demands more.
func TestKeptConnectionsByDemand(t *testing.T) {
	cert := testnet.Cert(t, "mx.test")
	g := newGuarded(t, sink.Options{TLSConfig: serving(cert)})
	g.roots = cert.Pool
	g.policies["example.org"] = enforce("*.test")
	g.mx["third.example"] = g.mx["example.org"]
	g.policies["third.example"] = enforce("mx.test")
	c := g.client(t)
	for i, step := range []struct {
		domain, want string
		connections  int
	}{
		{"other.example", ByNothing, 1}, {"example.org", BySTS, 2}, {"other.example", ByNothing, 2},
		{"third.example", BySTS, 2}, {"example.org", BySTS, 2},
	} {
		if got, r := g.deliver(t, c, step.domain); got != step.want || g.sink.Connections() != step.connections {
			t.Errorf("step %d: %s, %d connections: %v", i, got, g.sink.Connections(), r.Reply.Error())
		}
	}
}

// TestResumedSessions: a TLS session that began when any certificate did is judged again when it is
// resumed for somebody who wants more.
func TestResumedSessions(t *testing.T) {
	g := newGuarded(t, sink.Options{TLSConfig: serving(testnet.Cert(t, "mx.test"))})
	g.policies["example.org"] = enforce("mx.test")
	c := g.client(t)
	for i, step := range []struct{ domain, want string }{{"other.example", ByNothing}, {"example.org", "deferred"}} {
		if got, r := g.deliver(t, c, step.domain); got != step.want {
			t.Errorf("step %d: %s: %v", i, got, r.Reply.Error())
		}
	}
}

func TestMXOutsideOfThePolicy(t *testing.T) {
	cert := testnet.Cert(t, "mx.test")
	for _, mode := range []mtasts.Mode{mtasts.Enforce, mtasts.Testing} {
		g := newGuarded(t, sink.Options{TLSConfig: serving(cert)})
		g.roots = cert.Pool
		g.host("odd.example", "192.0.2.2", g.sink)
		g.mx["example.org"] = []dns.MX{{Host: "odd.example", Preference: 1}, {Host: "mx.test", Preference: 2}}
		g.policies["example.org"] = mtasts.Policy{Mode: mode, MX: []string{"mx.test"}, MaxAge: time.Hour}
		got, r := g.deliver(t, g.client(t), "example.org")
		wantHost, want, reports := "mx.test [192.0.2.1]", BySTS, []string{"sts validation-failure", "sts ok"}
		if mode == mtasts.Testing {
			wantHost, want, reports = "odd.example [192.0.2.2]", ByNothing, []string{"sts validation-failure", "sts certificate-host-mismatch"}
		}
		if told := g.reports(); got != want || r.Host != wantHost || !slices.Equal(told, reports) {
			t.Errorf("%v: %s by %s, %q", mode, got, r.Host, told)
		}
	}
	g := newGuarded(t, sink.Options{TLSConfig: serving(cert)})
	g.policies["example.org"] = enforce("odd.example")
	if got, r := g.deliver(t, g.client(t), "example.org"); got != "deferred" || r.Host != "mx.test" || g.sink.Connections() != 0 {
		t.Errorf("%s by %s after %d connections", got, r.Host, g.sink.Connections())
	}
}

func TestPolicyThatCannotBeHad(t *testing.T) {
	g := newGuarded(t, sink.Options{})
	g.stsErr = &mtasts.Error{Domain: "example.org", Result: mtasts.WebPKIInvalid, Cause: x509.UnknownAuthorityError{}}
	got, _ := g.deliver(t, g.client(t), "example.org")
	if told := g.reports(); got != "clear" || !slices.Equal(told, []string{"sts sts-webpki-invalid", "no-policy-found starttls-not-supported"}) {
		t.Errorf("%s, %q", got, told)
	}
}
