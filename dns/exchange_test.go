package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"relayd/internal/testnet"
)

// stub is a server that answers each question as respond says, over UDP.
func stub(t *testing.T, respond func(w dns.ResponseWriter, req *dns.Msg)) string {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(respond)}
	started, stopped := make(chan struct{}), make(chan struct{})
	server.NotifyStartedFunc = func() { close(started) }
	go func() {
		defer close(stopped)
		_ = server.ActivateAndServe()
	}()
	<-started
	t.Cleanup(func() {
		_ = server.Shutdown()
		<-stopped
	})
	return pc.LocalAddr().String()
}

// reply makes a response to req with answers in zone-file format.
func reply(req *dns.Msg, answers ...string) *dns.Msg {
	res := new(dns.Msg).SetReply(req)
	res.RecursionAvailable = true
	for _, text := range answers {
		rr, err := dns.NewRR(text)
		if err != nil {
			panic(err)
		}
		res.Answer = append(res.Answer, rr)
	}
	return res
}

func TestASilentServerIsPassedOver(t *testing.T) {
	t.Parallel()
	silent, good := testnet.NewDNS(t, zones), testnet.NewDNS(t, zones)
	silent.Silence(testnet.Everything)
	clock := testnet.NewClock()
	r := New(Options{Servers: []string{silent.Addr(), good.Addr()}, Timeout: short, Now: clock.Now})
	mx := func(domain string) {
		t.Helper()
		if _, err := r.MX(t.Context(), domain); err != nil && !errors.Is(err, ErrNoData) {
			t.Errorf("MX of %s: %v", domain, err)
		}
	}
	for _, domain := range []string{"example.com", "alias.example.com", "null.example.com", "mixed.example.com"} {
		mx(domain)
	}
	if silent.Count("alias.example.com", "MX") != 1 || silent.Count("mixed.example.com", "MX") != 0 {
		t.Error("a server is not put last after two silences")
	}
	clock.Advance(sickTime)
	mx("four.example.com")
	if silent.Count("four.example.com", "MX") != 1 {
		t.Error("a server that was silent is never asked again")
	}
}

func TestAllServersSilent(t *testing.T) {
	t.Parallel()
	a, b := testnet.NewDNS(t, zones), testnet.NewDNS(t, zones)
	a.Silence(testnet.Everything)
	b.Silence(testnet.Everything)
	r := New(Options{Servers: []string{a.Addr(), b.Addr()}, Timeout: short})
	_, err := r.MX(t.Context(), "example.com")
	e, ok := err.(*Error)
	if !ok || e.Kind != Temporary || !e.Timeout() || e.Server != b.Addr() {
		t.Errorf("silence ends in %v", err)
	}
	if de := e.DNSError(); !de.Timeout() || !de.Temporary() || de.IsNotFound {
		t.Errorf("as an error of package net: %+v", de)
	}
	if a.Count("example.com", "MX") != rounds || b.Count("example.com", "MX") != rounds {
		t.Errorf("asked %d and %d times", a.Count("example.com", "MX"), b.Count("example.com", "MX"))
	}
}

func TestNobodyListens(t *testing.T) {
	r := New(Options{Servers: []string{fmt.Sprintf("127.0.0.1:%d", testnet.LocalPort(t))}, Timeout: short})
	if _, err := r.MX(t.Context(), "example.com"); kindOf(t, err) != Temporary {
		t.Errorf("without a server: %v", err)
	}
}

func TestServerFailureGoesToTheNextServer(t *testing.T) {
	bad, good := testnet.NewDNS(t, zones), testnet.NewDNS(t, zones)
	bad.Fail(testnet.Everything, dns.RcodeServerFailure)
	r := New(Options{Servers: []string{bad.Addr(), good.Addr()}})
	if _, err := r.MX(t.Context(), "example.com"); err != nil {
		t.Error(err)
	}
	if bad.Count("example.com", "MX") != 1 {
		t.Errorf("the failing server was asked %d times", bad.Count("example.com", "MX"))
	}
}

func TestTruncatedAnswerComesByTCP(t *testing.T) {
	r, server, _ := setup(t)
	server.Set("long.test. TXT " + strings.Repeat(`"0123456789" `, 200))
	txt, err := r.TXT(t.Context(), "long.test")
	if err != nil || len(txt) != 1 || len(txt[0]) != 2000 {
		t.Errorf("%d records, %v", len(txt), err)
	}
	if n := server.Count("long.test", "TXT"); n != 2 {
		t.Errorf("asked %d times, want once by each protocol", n)
	}
}

func TestRecordsAreBounded(t *testing.T) {
	r, server, _ := setup(t)
	var many strings.Builder
	for i := range 300 {
		fmt.Fprintf(&many, "many.test. MX %d mx%d.test.\n", i, i)
	}
	server.Set(many.String())
	got, err := r.MX(t.Context(), "many.test")
	if err != nil || len(got.Records) != maxRecords {
		t.Errorf("%d records, %v", len(got.Records), err)
	}
}

func TestCNAMEsAreFollowedByFurtherQuestions(t *testing.T) {
	addr := stub(t, func(w dns.ResponseWriter, req *dns.Msg) {
		var n int
		name := req.Question[0].Name
		if _, err := fmt.Sscanf(name, "c%d.", &n); err != nil || n == 0 {
			_ = w.WriteMsg(reply(req, name+" 60 IN MX 10 mx.test."))
			return
		}
		_ = w.WriteMsg(reply(req, fmt.Sprintf("%s 60 IN CNAME c%d.test.", name, n-1)))
	})
	r := New(Options{Servers: []string{addr}})
	if got, err := r.MX(t.Context(), "c10.test"); err != nil || len(got.Records) != 1 {
		t.Errorf("a chain of 10: %v, %v", got.Records, err)
	}
	if _, err := r.MX(t.Context(), "c11.test"); kindOf(t, err) != Temporary {
		t.Errorf("a chain of 11: %v", err)
	}
}

// Answers that an unlucky or hostile server gives; none may become a fact about the name.
func TestOddResponsesAreTemporary(t *testing.T) {
	for name, respond := range map[string]func(req *dns.Msg) []byte{
		"loop": func(req *dns.Msg) []byte {
			return pack(reply(req, "x.test. 60 IN CNAME y.test.", "y.test. 60 IN CNAME x.test."))
		},
		"referral of a server that does not resolve": func(req *dns.Msg) []byte {
			res := reply(req)
			res.RecursionAvailable = false
			return pack(res)
		},
		"cut off without TC": func(req *dns.Msg) []byte {
			whole := pack(reply(req, "x.test. 60 IN MX 10 mx.test."))
			return whole[:len(pack(reply(req)))]
		},
		"rubbish behind the question": func(req *dns.Msg) []byte {
			wire := pack(reply(req))
			wire[7] = 1 // one answer
			return append(wire, 0xff, 0xff, 0xff)
		},
		"NXDOMAIN with the record": func(req *dns.Msg) []byte {
			res := reply(req, "x.test. 60 IN MX 10 mx.test.")
			res.Rcode = dns.RcodeNameError
			return pack(res)
		},
		"MX without data": func(req *dns.Msg) []byte {
			res := reply(req)
			res.Answer = []dns.RR{&dns.ANY{Hdr: dns.RR_Header{Name: "x.test.", Rrtype: dns.TypeMX, Class: dns.ClassINET, Ttl: 60}}}
			return pack(res)
		},
	} {
		t.Run(name, func(t *testing.T) {
			addr := stub(t, func(w dns.ResponseWriter, req *dns.Msg) { _, _ = w.Write(respond(req)) })
			r := New(Options{Servers: []string{addr}, Timeout: 2 * time.Second})
			got, err := r.MX(t.Context(), "x.test")
			e, ok := err.(*Error)
			if !ok || e.Kind != Temporary || e.Timeout() {
				t.Errorf("%v, %v", got.Records, err)
			}
		})
	}
}

func pack(m *dns.Msg) []byte {
	wire, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return wire
}

func TestForgedResponsesAreIgnored(t *testing.T) {
	addr := stub(t, func(w dns.ResponseWriter, req *dns.Msg) {
		forged := reply(req, "x.test. 60 IN MX 10 evil.test.")
		forged.Id++
		_ = w.WriteMsg(forged)
		forged.Id--
		forged.Question[0].Name = "y.test."
		_ = w.WriteMsg(forged)
		_, _ = w.Write([]byte("?"))
		_, _ = w.Write(pack(req)) // a query is no response
		_ = w.WriteMsg(reply(req, "x.test. 60 IN MX 10 mx.test."))
	})
	r := New(Options{Servers: []string{addr}})
	if got, err := r.MX(t.Context(), "x.test"); err != nil || got.Records[0].Host != "mx.test" {
		t.Errorf("%v, %v", got.Records, err)
	}
}

func TestServerWithoutEDNS(t *testing.T) {
	addr := stub(t, func(w dns.ResponseWriter, req *dns.Msg) {
		if req.IsEdns0() != nil {
			res := new(dns.Msg).SetRcode(req, dns.RcodeFormatError)
			res.Question = nil
			_ = w.WriteMsg(res)
			return
		}
		_ = w.WriteMsg(reply(req, "x.test. 60 IN MX 10 mx.test."))
	})
	r := New(Options{Servers: []string{addr}})
	if _, err := r.MX(t.Context(), "x.test"); err != nil {
		t.Error(err)
	}
}

func TestAnImpatientCallerLeavesNothingBehind(t *testing.T) {
	asked := make(chan struct{}, 10)
	var once sync.Once
	addr := stub(t, func(w dns.ResponseWriter, req *dns.Msg) {
		silent := false
		once.Do(func() { silent = true })
		asked <- struct{}{}
		if !silent {
			_ = w.WriteMsg(reply(req, "x.test. 60 IN MX 10 mx.test."))
		}
	})
	r := New(Options{Servers: []string{addr}})
	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := r.MX(ctx, "x.test")
		first <- err
	}()
	<-asked
	go func() {
		_, err := r.MX(t.Context(), "x.test")
		second <- err
	}()
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) || kindOf(t, err) != Temporary {
		t.Errorf("the caller who gave up got %v", err)
	}
	if err := <-second; err != nil {
		t.Errorf("the caller who waited got %v", err)
	}
}

func TestResolvConfIsReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	clock := testnet.NewClock()
	s := newServers(nil, path)
	check := func(want ...string) {
		t.Helper()
		if got := s.order(clock.Now()); !slices.Equal(got, want) {
			t.Errorf("servers %q, want %q", got, want)
		}
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check("127.0.0.1:53")
	write("nameserver 192.0.2.53\nnameserver 2001:db8::53\n")
	check("127.0.0.1:53")
	clock.Advance(checkTime)
	check("192.0.2.53:53", "[2001:db8::53]:53")
	write("# being written\n")
	clock.Advance(checkTime)
	check("192.0.2.53:53", "[2001:db8::53]:53")
	write("nameserver 192.0.2.54\n")
	clock.Advance(checkTime)
	check("192.0.2.54:53")
}

func TestBareServerGetsThePort(t *testing.T) {
	s := newServers([]string{"192.0.2.1", "2001:db8::1", "192.0.2.2:5353"}, "")
	want := []string{"192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.2:5353"}
	if got := s.order(time.Time{}); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
