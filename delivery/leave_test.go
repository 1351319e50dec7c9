package delivery

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"relayd/dns"
	"relayd/internal/sink"
)

// notOurs is of a network for documentation, which no machine has.
var notOurs = netip.MustParseAddr("192.0.2.77")

// Each family has its own source, whatever leads to the host; a mailbox server is connected to from
// where the system likes.
func TestSourceAddressByFamily(t *testing.T) {
	four, six := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8:1::1")
	mail := startSink(t, sink.Options{})
	boxes := startSink(t, sink.Options{LMTP: true})
	for name, c := range map[string]struct {
		route Route
		want  []netip.Addr
	}{
		"MX":                {example, []netip.Addr{four, six}},
		"smarthost":         {Route{Domain: "example.org", Hosts: []string{"mx.test"}}, []netip.Addr{four, six}},
		"address":           {Route{Domain: "[IPv6:2001:db8::25]"}, []netip.Addr{six}},
		"mailboxes":         {Route{Domain: "example.org", Hosts: []string{"box.test:25"}, LMTP: true}, []netip.Addr{{}}},
		"mailboxes by unix": {Route{Domain: "example.org", Hosts: []string{"unix:/run/lmtp"}, LMTP: true}, []netip.Addr{{}}},
	} {
		w := newWorld()
		w.mx["example.org"] = []dns.MX{{Host: "mx.test", Preference: 10}}
		w.ip["mx.test"] = []string{"192.0.2.25", "2001:db8::25"} // the first refuses
		w.at["[2001:db8::25]:25"] = mail.Addr()
		w.host("box.test", "192.0.2.24", boxes)
		w.at["/run/lmtp"] = "/nowhere"
		client := w.client(t, func(o *Options) { o.SourceIPv4, o.SourceIPv6 = four, six })
		client.Deliver(t.Context(), c.route, message(text, "a@example.org"))
		if !slices.Equal(w.from, c.want) {
			t.Errorf("%s: dialed %q from %v", name, w.dialed, w.from)
		}
	}
}

// The server sees the address.
func TestSourceAddressIsBound(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	from := make(chan string, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		host, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
		io.WriteString(conn, "554 no\r\n")
		from <- host
	}()
	c := New(Options{Hostname: "relay.test", SourceIPv4: netip.MustParseAddr("127.0.0.9")})
	defer c.Close()
	c.Deliver(t.Context(), Route{Domain: "example.org", Hosts: []string{l.Addr().String()}}, message(text, "a@example.org"))
	within(t, func() {
		if got := <-from; got != "127.0.0.9" {
			t.Error(got)
		}
	})
	if len(c.Warnings()) > 0 {
		t.Error(c.Warnings())
	}
}

// An address that this machine does not have is the admin's to mend: the message waits, even when
// that takes for ever, and no server is taken for one that cannot be reached.
func TestSourceAddressOfAnotherMachine(t *testing.T) {
	c := New(Options{Hostname: "relay.test", SourceIPv4: notOurs}) // the real network
	defer c.Close()
	route := Route{Domain: "example.org", Hosts: []string{"127.0.0.1:25"}}
	for range 2 {
		r := c.Deliver(t.Context(), route, message(text, "a@example.org"))[0]
		want := "451 4.3.5 No connection can come from 192.0.2.77, for it is not an address of this machine: " +
			"give it to the machine, or correct source_ipv4 under [outbound]"
		if r.Reply.String() != want || r.Fate() != Hold || r.Verdict.Class != ClassSetup || r.Strained {
			t.Errorf("%v (%v, %+v)", r.Reply.Error(), r.Fate(), r.Verdict)
		}
	}
	if w := c.Warnings(); len(w) != 1 || !strings.HasPrefix(w[0], "No connection can come from 192.0.2.77") {
		t.Errorf("%q", w)
	}
	if list := CheckSources(netip.Addr{}, netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("2001:db8::77")); len(list) != 1 || !strings.Contains(list[0], "source_ipv6") {
		t.Errorf("%q", list)
	}
}

// Where the other family's source is right, it decides.
func TestOneSourceOfTwoIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		answer string // "-": nobody listens
		fate   Fate
		code   int
	}{
		"taken":       {"", Accepted, 250},
		"later":       {"451 4.7.1 greylisted", Later, 451},
		"unreachable": {"-", Later, 451},
	} {
		for _, bad := range []string{"four", "six"} {
			s := startSink(t, sink.Options{Reply: script("rcpt", "", c.answer)})
			w := newWorld()
			w.mx["example.org"] = []dns.MX{{Host: "mx.test", Preference: 10}}
			w.ip["mx.test"] = []string{"192.0.2.25", "2001:db8::25"}
			if c.answer != "-" {
				w.at["192.0.2.25:25"], w.at["[2001:db8::25]:25"] = s.Addr(), s.Addr()
			}
			client := w.client(t, func(o *Options) {
				if w.foreign = []netip.Addr{notOurs}; bad == "four" {
					o.SourceIPv4 = notOurs
				} else {
					w.foreign[0] = netip.MustParseAddr("2001:db8::77")
					o.SourceIPv6 = w.foreign[0]
				}
			})
			r := client.Deliver(t.Context(), example, message(text, "a@example.org"))[0]
			if r.Fate() != c.fate || r.Reply.Code != c.code || r.Reply.Enhanced == "4.3.5" {
				t.Errorf("%s, %s is wrong: %v (%v)", name, bad, r.Reply.Error(), r.Fate())
			}
		}
	}
}

// Reverse DNS is that of the address that the settings name.
func TestReverseDNSOfTheSourceAddress(t *testing.T) {
	z := &zone{local: errors.New("not asked")}
	s := z.source()
	s.opt.Address = netip.MustParseAddr("127.0.0.1") // every machine has it
	z.names, z.forward = []string{"mx.example.org"}, map[string][]netip.Addr{"mx.example.org": {s.opt.Address}}
	if err := s.look(t.Context()); err != nil || s.String() != "used first: 127.0.0.1 is mx.example.org (checked just now)" {
		t.Errorf("%s, %v", s, err)
	}
	s.opt.Address = netip.MustParseAddr("2001:db8::77")
	if err := s.look(t.Context()); err != nil || s.isGood() || !strings.Contains(s.String(), "correct source_ipv6 under [outbound]") {
		t.Errorf("%s, %v", s, err)
	}
}
