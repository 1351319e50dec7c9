package delivery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"relayd/dns"
	"relayd/internal/sink"
	"relayd/internal/testnet"
)

func dnsError(kind dns.Kind) error { return &dns.Error{Name: "x", Type: "MX", Kind: kind} }

func TestWhatDNSSays(t *testing.T) {
	mx := []dns.MX{{Host: "mx.test", Preference: 10}}
	for name, c := range map[string]struct {
		change func(*world)
		family string
		want   string
	}{
		"null MX":                  {func(w *world) { w.mx["example.org"] = []dns.MX{{}} }, "auto", "556 5.1.10"},
		"NXDOMAIN, confirmed":      {func(w *world) { w.errs["example.org"] = dnsError(dns.NotExist); w.conf = dnsError(dns.NotExist) }, "auto", "550 5.1.2"},
		"NXDOMAIN, denied":         {func(w *world) { w.errs["example.org"] = dnsError(dns.NotExist) }, "auto", "451 4.4.3"},
		"NXDOMAIN, nobody knows":   {func(w *world) { w.errs["example.org"] = dnsError(dns.NotExist); w.conf = dnsError(dns.Temporary) }, "auto", "451 4.4.3"},
		"SERVFAIL":                 {func(w *world) { w.errs["example.org"] = dnsError(dns.Temporary) }, "auto", "451 4.4.3"},
		"SERVFAIL of the host":     {func(w *world) { w.mx["example.org"] = mx; w.errs["mx.test"] = dnsError(dns.Temporary) }, "auto", "451 4.4.3"},
		"MX does not exist":        {func(w *world) { w.mx["example.org"] = mx; w.errs["mx.test"] = dnsError(dns.NotExist) }, "auto", "451 4.4.4"},
		"MX without address":       {func(w *world) { w.mx["example.org"] = mx }, "auto", "451 4.4.4"},
		"MX without IPv4":          {func(w *world) { w.mx["example.org"] = mx; w.host("mx.test", "2001:db8::1", nil) }, "ipv4", "451 4.4.4"},
		"neither MX nor address":   {func(*world) {}, "auto", "451 4.4.4"},
		"no MX, IPv6 only":         {func(w *world) { w.host("example.org", "2001:db8::1", nil) }, "ipv4", "451 4.4.4"},
		"no MX, address not known": {func(w *world) { w.errs["example.org"] = dnsError(dns.Temporary) }, "auto", "451 4.4.3"},
		"cannot be reached":        {func(w *world) { w.mx["example.org"] = mx; w.host("mx.test", "192.0.2.1", nil) }, "auto", "451 4.4.1"},
	} {
		w := newWorld()
		c.change(w)
		client := w.client(t, func(o *Options) { o.Family = c.family })
		r := client.Deliver(t.Context(), example, message(text, "a@example.org"))[0]
		if !strings.HasPrefix(r.Reply.String(), c.want) {
			t.Errorf("%s: %v", name, r.Reply.Error())
		}
	}
}

// The same with the real resolver, whose answers the stub above only imitates.
func TestWithRealDNS(t *testing.T) {
	s := startSink(t, sink.Options{})
	server := testnet.NewDNS(t, "mail.test. MX 10 mx.mail.test.\nmx.mail.test. A 192.0.2.1\nnull.test. MX 0 .\nbare.test. A 192.0.2.1\nbroken.test. A 192.0.2.1\n")
	server.Fail("broken.test", mdns.RcodeServerFailure)
	w := newWorld()
	w.at["192.0.2.1:25"] = s.Addr()
	client := w.client(t, func(o *Options) { o.Resolver = dns.New(dns.Options{Servers: []string{server.Addr()}}) })
	for domain, want := range map[string]string{
		"mail.test": "250 2.0.0", "bare.test": "250 2.0.0", "null.test": "556 5.1.10", "none.test": "550 5.1.2", "broken.test": "451 4.4.3",
		"[192.0.2.1]": "250 2.0.0",
	} {
		r := client.Deliver(t.Context(), Route{Domain: domain}, message(text, "a@"+domain))[0]
		if !strings.HasPrefix(r.Reply.String(), want) {
			t.Errorf("%s: %v", domain, r.Reply.Error())
		}
	}
}

// A name server that is silent about IPv6 alone costs its timeout, never the delivery.
func TestSilenceAboutIPv6DoesNotBlockIPv4(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	started, stopped := make(chan struct{}), make(chan struct{})
	server := &mdns.Server{PacketConn: pc, NotifyStartedFunc: func() { close(started) }}
	server.Handler = mdns.HandlerFunc(func(rw mdns.ResponseWriter, req *mdns.Msg) {
		res := new(mdns.Msg).SetReply(req)
		res.RecursionAvailable = true
		q := req.Question[0]
		record := map[uint16]string{mdns.TypeMX: "60 MX 10 mx.test.", mdns.TypeA: "60 A 192.0.2.1"}[q.Qtype]
		if record == "" {
			return
		}
		rr, err := mdns.NewRR(q.Name + " " + record)
		if err != nil {
			panic(err)
		}
		res.Answer = []mdns.RR{rr}
		_ = rw.WriteMsg(res)
	})
	go func() {
		defer close(stopped)
		_ = server.ActivateAndServe()
	}()
	<-started
	defer func() {
		_ = server.Shutdown()
		<-stopped
	}()
	s := startSink(t, sink.Options{})
	w := newWorld()
	w.at["192.0.2.1:25"] = s.Addr()
	client := w.client(t, func(o *Options) {
		o.Resolver = dns.New(dns.Options{Servers: []string{pc.LocalAddr().String()}, Timeout: 50 * time.Millisecond})
	})
	if r := client.Deliver(t.Context(), example, message(text, "a@example.org"))[0]; r.Reply.Code != 250 {
		t.Error(r.Reply.Error())
	}
}

func TestOrderOfHosts(t *testing.T) {
	w := newWorld()
	w.mx["example.org"] = []dns.MX{{Host: "d.test", Preference: 30}, {Host: "a.test", Preference: 10}, {Host: "b.test", Preference: 20}, {Host: "c.test", Preference: 20}}
	w.host("a.test", "2001:db8::a", nil) // IPv4 comes first, whatever DNS says
	w.host("a.test", "192.0.2.1", nil)
	w.host("a.test", "192.0.2.2", nil)
	w.host("b.test", "192.0.2.11", nil)
	w.host("c.test", "192.0.2.12", nil)
	w.host("d.test", "192.0.2.21", nil)
	client := w.client(t, nil)
	seen := map[string]bool{}
	for range 100 {
		w.dialed = nil
		m := message(text, "a@example.org")
		m.Insist = true
		client.Deliver(t.Context(), example, m)
		if got := w.dialed; len(got) != 6 || !slices.Equal(got[:3], []string{"192.0.2.1:25", "192.0.2.2:25", "[2001:db8::a]:25"}) || got[5] != "192.0.2.21:25" {
			t.Fatal(got)
		}
		seen[strings.Join(w.dialed[3:5], " ")] = true
	}
	if len(seen) != 2 {
		t.Errorf("hosts of equal preference always come in the order %v", seen)
	}
}

func TestFamilies(t *testing.T) {
	for _, c := range []struct {
		family string
		alive  string // the address that has a server
		want   string // dialed
	}{
		{"auto", "192.0.2.1", "192.0.2.1:25"},
		{"auto", "2001:db8::1", "192.0.2.1:25 [2001:db8::1]:25"},
		{"ipv4", "192.0.2.1", "192.0.2.1:25"},
		{"ipv6", "2001:db8::1", "[2001:db8::1]:25"},
	} {
		s := startSink(t, sink.Options{})
		w := newWorld()
		w.host("example.org", "2001:db8::1", nil)
		w.host("example.org", "192.0.2.1", nil)
		w.at[net.JoinHostPort(c.alive, "25")] = s.Addr()
		client := w.client(t, func(o *Options) { o.Family = c.family })
		r := client.Deliver(t.Context(), example, message(text, "a@example.org"))[0]
		if got := strings.Join(w.dialed, " "); r.Reply.Code != 250 || got != c.want {
			t.Errorf("%s with %s: %v after %s", c.family, c.alive, r.Reply, got)
		}
	}
}

func TestRealIPv6(t *testing.T) {
	s := startSink(t, sink.Options{Addr: "[::1]:0"})
	client := New(Options{Hostname: "relay.test", Family: "auto"})
	defer client.Close()
	dead := fmt.Sprintf("127.0.0.1:%d", testnet.LocalPort(t))
	r := client.Deliver(t.Context(), Route{Domain: "example.org", Hosts: []string{dead, s.Addr()}}, message(text, "a@example.org"))[0]
	if r.Reply.Code != 250 || r.Host != "[::1]" {
		t.Errorf("%v by %s", r.Reply.Error(), r.Host)
	}
}

func TestHostsOfARoute(t *testing.T) {
	w := newWorld()
	w.host("host.test", "192.0.2.1", nil)
	client := w.client(t, func(o *Options) {
		o.IsSelf = func(netip.AddrPort) bool { return true } // a via may lead to ourselves: the admin said so
	})
	for in, want := range map[string]string{
		"host.test": "192.0.2.1:25", "host.test:2525": "192.0.2.1:2525", "192.0.2.9": "192.0.2.9:25", "192.0.2.9:587": "192.0.2.9:587",
		"[192.0.2.9]": "192.0.2.9:25", "[192.0.2.9]:26": "192.0.2.9:26", "[::1]": "[::1]:25", "[::1]:26": "[::1]:26", "::1": "[::1]:25",
		"[IPv6:2001:db8::1]": "[2001:db8::1]:25", "[IPv6:2001:db8::1]:26": "[2001:db8::1]:26",
	} {
		w.dialed = nil
		m := message(text, "a@example.org")
		m.Insist = true
		r := client.Deliver(t.Context(), Route{Domain: "example.org", Hosts: []string{in}}, m)[0]
		if got := strings.Join(w.dialed, " "); got != want || r.Reply.Enhanced != "4.4.1" {
			t.Errorf("%s: dialed %s, %v", in, got, r.Reply)
		}
	}
	for _, in := range []string{"", "[", "[]", "host:", "host:x", "host:0", "host:70000", ":25", "[::1", "a:b:c", "[host]x:1"} {
		r := client.Deliver(t.Context(), Route{Domain: "example.org", Hosts: []string{in}}, message(text, "a@example.org"))[0]
		if r.Reply.Code != 451 || r.Reply.Enhanced != "4.3.0" {
			t.Errorf("%q: %v", in, r.Reply.Error())
		}
	}
}

// RFC 5321 section 5.1: a relay that finds itself among the mail exchangers drops itself and all
// of the same or a worse preference. If nothing is left, mail would go round in circles.
func TestWeAreAMailExchanger(t *testing.T) {
	const self = "192.0.2.99"
	for name, c := range map[string]struct {
		mx     string // host and preference
		ip     map[string]string
		dialed string
		want   string
	}{
		"the only one":        {"us.test 10", map[string]string{"us.test": self}, "", "554 5.4.6"},
		"the best":            {"us.test 10, b.test 20", map[string]string{"us.test": self, "b.test": "192.0.2.2"}, "", "554 5.4.6"},
		"the worse one":       {"a.test 10, us.test 20", map[string]string{"a.test": "192.0.2.1", "us.test": self}, "192.0.2.1:25", "451 4.4.1"},
		"in the middle":       {"a.test 10, us.test 20, b.test 20, c.test 30", map[string]string{"a.test": "192.0.2.1", "us.test": self, "b.test": "192.0.2.2", "c.test": "192.0.2.3"}, "192.0.2.1:25", "451 4.4.1"},
		"one among equals":    {"a.test 10, us.test 10", map[string]string{"a.test": "192.0.2.1", "us.test": self}, "", "554 5.4.6"},
		"better one unknown":  {"a.test 10, us.test 20", map[string]string{"us.test": self}, "", "451 4.4.4"},
		"by our name":         {"a.test 10, RELAY.test 20, c.test 30", map[string]string{"a.test": "192.0.2.1", "RELAY.test": "203.0.113.1", "c.test": "192.0.2.3"}, "192.0.2.1:25", "451 4.4.1"},
		"by our name, alone":  {"relay.test 10", map[string]string{"relay.test": "203.0.113.1"}, "", "554 5.4.6"},
		"our name unresolved": {"relay.test 10", nil, "", "554 5.4.6"},
		"no MX":               {"", map[string]string{"example.org": self}, "", "554 5.4.6"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			for entry := range strings.SplitSeq(c.mx, ", ") {
				var mx dns.MX
				if n, _ := fmt.Sscanf(entry, "%s %d", &mx.Host, &mx.Preference); n == 2 {
					w.mx["example.org"] = append(w.mx["example.org"], mx)
				}
			}
			for host, ip := range c.ip {
				w.host(host, ip, nil)
			}
			client := w.client(t, func(o *Options) {
				o.IsSelf = func(a netip.AddrPort) bool { return a == netip.MustParseAddrPort(self+":25") }
			})
			r := client.Deliver(t.Context(), example, message(text, "a@example.org"))[0]
			if got := strings.Join(w.dialed, " "); got != c.dialed || !strings.HasPrefix(r.Reply.String(), c.want) {
				t.Errorf("dialed %q, %v", got, r.Reply.Error())
			}
		})
	}
	w := newWorld()
	client := w.client(t, func(o *Options) { o.IsSelf = func(netip.AddrPort) bool { return true } })
	if r := client.Deliver(t.Context(), Route{Domain: "[" + self + "]"}, message(text, "a@["+self+"]"))[0]; r.Reply.Code != 554 {
		t.Errorf("literal: %v", r.Reply)
	}
}

func TestListensOn(t *testing.T) {
	tcp := func(s string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }
	for _, c := range []struct {
		listen, target string
		want           bool
	}{
		{"0.0.0.0:25", "127.0.0.1:25", true},
		{"0.0.0.0:25", "127.0.0.1:26", false},
		{"[::]:25", "[::1]:25", true},
		{"[::]:25", "0.0.0.0:25", true}, // to connect there is to connect to this machine
		{"[::]:25", "[::]:25", true},
		{"127.0.0.1:25", "0.0.0.0:25", true},
		{"[::]:25", "192.0.2.1:25", false},
		{"192.0.2.1:25", "192.0.2.1:25", true},
		{"192.0.2.1:25", "127.0.0.1:25", false},
		{"[::ffff:192.0.2.1]:25", "192.0.2.1:25", true},
	} {
		if got := ListensOn([]net.Addr{&net.UnixAddr{Name: "/run/x"}, tcp(c.listen)})(netip.MustParseAddrPort(c.target)); got != c.want {
			t.Errorf("on %s, %s: %v", c.listen, c.target, got)
		}
	}
	// An address of an interface is ours as well.
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		ip := netip.MustParsePrefix(a.String()).Addr()
		if !ListensOn([]net.Addr{tcp("[::]:25")})(netip.AddrPortFrom(ip, 25)) {
			t.Errorf("%s is not ours", ip)
		}
	}
}

func TestNobodyHasNoResults(t *testing.T) {
	_, c := one(t, sink.Options{})
	if got := c.Deliver(context.Background(), example, message(text)); len(got) != 0 {
		t.Error(got)
	}
}

func TestUnreachableIsFound(t *testing.T) {
	w := newWorld()
	w.host("example.org", "192.0.2.1", nil)
	r := w.client(t, nil).Deliver(t.Context(), example, message(text, "a@example.org"))[0]
	if !errors.Is(r.Reply, errRefused) || r.Host != "example.org [192.0.2.1]" {
		t.Errorf("%v by %s", r.Reply.Error(), r.Host)
	}
}
