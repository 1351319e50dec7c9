package testnet

import (
	"crypto/tls"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const zones = `
example.com. SOA ns hostmaster 1 3600 600 86400 60
example.com. 120 MX 10 mx.example.com.
mx.example.com. A 192.0.2.1
www.example.com. CNAME mx.example.com.
gone.example.com. CNAME nothing.example.com.
out.example.com. CNAME host.elsewhere.org.
a.deep.example.com. A 192.0.2.2
`

func ask(t *testing.T, d *DNS, network, name string, typ uint16) *dns.Msg {
	t.Helper()
	q := new(dns.Msg).SetQuestion(name, typ)
	q.AuthenticatedData = true
	res, _, err := (&dns.Client{Net: network}).Exchange(q, d.Addr())
	if err != nil {
		t.Fatalf("asking for %s: %v", name, err)
	}
	return res
}

func TestDNSAnswers(t *testing.T) {
	d := NewDNS(t, zones)
	for _, c := range []struct {
		name    string
		typ     uint16
		rcode   int
		answers int
		soa     bool
	}{
		{"example.com.", dns.TypeMX, dns.RcodeSuccess, 1, false},
		{"EXAMPLE.com.", dns.TypeMX, dns.RcodeSuccess, 1, false},
		{"mx.example.com.", dns.TypeAAAA, dns.RcodeSuccess, 0, true},
		{"deep.example.com.", dns.TypeA, dns.RcodeSuccess, 0, true},
		{"nothing.example.com.", dns.TypeA, dns.RcodeNameError, 0, true},
		{"www.example.com.", dns.TypeA, dns.RcodeSuccess, 2, false},
		{"gone.example.com.", dns.TypeA, dns.RcodeNameError, 1, true},
		{"out.example.com.", dns.TypeA, dns.RcodeSuccess, 1, false},
		{"host.elsewhere.org.", dns.TypeA, dns.RcodeRefused, 0, false},
	} {
		for _, network := range []string{"udp", "tcp"} {
			res := ask(t, d, network, c.name, c.typ)
			if res.Rcode != c.rcode || len(res.Answer) != c.answers || (len(res.Ns) == 1) != c.soa {
				t.Errorf("%s by %s:\n%v", c.name, network, res)
			}
		}
	}
	if got := d.Count("example.com", "MX"); got != 4 {
		t.Errorf("%d questions for the MX of example.com, want 4", got)
	}
	if got := d.Count("mx.example.com", ""); got != 2 {
		t.Errorf("%d questions for mx.example.com, want 2", got)
	}
}

func TestDNSMisbehaves(t *testing.T) {
	d := NewDNS(t, "a.test. A 192.0.2.1\n")
	d.Fail("a.test", dns.RcodeServerFailure)
	if res := ask(t, d, "udp", "a.test.", dns.TypeA); res.Rcode != dns.RcodeServerFailure {
		t.Errorf("a failing name: %v", res)
	}
	d.Fail("a.test", dns.RcodeSuccess)
	d.Secure("a.test")
	if res := ask(t, d, "udp", "a.test.", dns.TypeA); len(res.Answer) != 1 || !res.AuthenticatedData {
		t.Errorf("a mended, secure name: %v", res)
	}
	d.Set("b.test. A 192.0.2.1\nlong.test. TXT " + strings.Repeat(`"0123456789" `, 100))
	if res := ask(t, d, "udp", "a.test.", dns.TypeA); res.Rcode != dns.RcodeNameError {
		t.Errorf("a name that was taken away, without any SOA: %v", res)
	}
	if res := ask(t, d, "udp", "long.test.", dns.TypeTXT); !res.Truncated {
		t.Error("a long answer is not truncated")
	}
	d.Authoritative()
	if res := ask(t, d, "udp", "b.test.", dns.TypeA); !res.Authoritative || res.RecursionAvailable {
		t.Errorf("a server of the zone: %v", res)
	}
	d.Silence(Everything)
	q := new(dns.Msg).SetQuestion("b.test.", dns.TypeA)
	if res, _, err := (&dns.Client{Timeout: 50 * time.Millisecond}).Exchange(q, d.Addr()); err == nil {
		t.Errorf("a silenced server answers %v", res)
	}
}

func TestCertIsTrustedByItsPool(t *testing.T) {
	cert := Cert(t, "mx.test", "127.0.0.1")
	for _, name := range []string{"mx.test", "127.0.0.1"} {
		a, b := net.Pipe()
		server := tls.Server(a, &tls.Config{Certificates: []tls.Certificate{cert.TLS}})
		done := make(chan error, 1)
		go func() { done <- server.Handshake() }()
		if err := tls.Client(b, &tls.Config{RootCAs: cert.Pool, ServerName: name}).Handshake(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := <-done; err != nil {
			t.Errorf("%s: server: %v", name, err)
		}
	}
	if _, err := tls.X509KeyPair(cert.Chain, cert.Key); err != nil {
		t.Errorf("PEM: %v", err)
	}
}

func TestLocalPortIsFree(t *testing.T) {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: LocalPort(t)})
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
}

func TestClock(t *testing.T) {
	c := NewClock()
	before := c.Now()
	c.Advance(time.Minute)
	if got := c.Now().Sub(before); got != time.Minute {
		t.Errorf("the clock went on by %s", got)
	}
}
