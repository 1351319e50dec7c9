package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"relayd/internal/testnet"
)

const zones = `
example.com. SOA ns hostmaster 1 3600 600 86400 60
example.com. 120 MX 20 second.example.com.
example.com. 120 MX 10 First.Example.com.
example.com. 120 MX 20 third.example.com.
example.com. TXT "v=spf1 " "-all"
example.com. TXT "quote \" backslash \\ byte \200"
first.example.com. A 192.0.2.1
first.example.com. AAAA 2001:db8::1
four.example.com. A 192.0.2.4
six.example.com. AAAA 2001:db8::6
null.example.com. MX 0 .
mixed.example.com. MX 0 .
mixed.example.com. MX 5 first.example.com.
alias.example.com. CNAME example.com.
dangling.example.com. CNAME nothing.example.com.
bad.example.com. CNAME not\032a\032name.org.
brief.example.com. 1 A 192.0.2.9
long.example.com. 86400 A 192.0.2.9
2.0.192.in-addr.arpa. SOA ns hostmaster 1 3600 600 86400 86400
1.2.0.192.in-addr.arpa. PTR first.example.com.
`

// short is a timeout for servers that are meant not to answer. It is long enough for others to
// answer on a machine that is busy; tests that wait for it run beside one another.
const short = time.Second

func setup(t *testing.T) (*Resolver, *testnet.DNS, *testnet.Clock) {
	t.Helper()
	server, clock := testnet.NewDNS(t, zones), testnet.NewClock()
	return New(Options{Servers: []string{server.Addr()}, Now: clock.Now}), server, clock
}

// kindOf is the kind of err, -1 for none.
func kindOf(t *testing.T, err error) Kind {
	t.Helper()
	if err == nil {
		return -1
	}
	e, ok := err.(*Error) // by type, as the libraries do it
	if !ok {
		t.Fatalf("%T (%v) is no *Error", err, err)
	}
	return e.Kind
}

func TestMX(t *testing.T) {
	r, server, _ := setup(t)
	server.Fail("broken.example.com", dns.RcodeServerFailure)
	server.Fail("refused.example.com", dns.RcodeRefused)
	three := "[{first.example.com 10} {second.example.com 20} {third.example.com 20}]"
	for _, c := range []struct {
		domain string
		want   string
		kind   Kind
	}{
		{"example.com", three, -1},
		{"EXAMPLE.com.", three, -1},
		{"alias.example.com", three, -1},
		{"null.example.com", "[{ 0}]", -1},
		{"mixed.example.com", "[{first.example.com 5}]", -1},
		{"first.example.com", "[]", NoData},
		{"nothing.example.com", "[]", NotExist},
		{"dangling.example.com", "[]", NotExist},
		{"bad.example.com", "[]", NoData},
		{"broken.example.com", "[]", Temporary},
		{"refused.example.com", "[]", Temporary},
		{"elsewhere.org", "[]", Temporary},
	} {
		got, err := r.MX(t.Context(), c.domain)
		if fmt.Sprint(got.Records) != c.want || kindOf(t, err) != c.kind {
			t.Errorf("%s: %v, %v; want %s and kind %d", c.domain, got.Records, err, c.want, c.kind)
		}
		if errors.Is(err, ErrNotExist) != (c.kind == NotExist) || errors.Is(err, ErrNoData) != (c.kind == NoData) {
			t.Errorf("%s: errors.Is does not tell the kind of %v", c.domain, err)
		}
		if ne, ok := err.(interface{ Temporary() bool }); err != nil && (!ok || ne.Temporary() != (c.kind == Temporary)) {
			t.Errorf("%s: Temporary() of %v is wrong", c.domain, err)
		}
	}
}

func TestNamesThatAreNeverAsked(t *testing.T) {
	r, server, _ := setup(t)
	label := strings.Repeat("a", 63)
	for _, name := range []string{
		"", ".", "a..b", ".a", "a b.c", "a\x00.c", "é.fr", `a\.b.c`, "a@b.c", `"a".c`, label + "a.c",
		strings.Join([]string{label, label, label, label}, "."),
	} {
		if _, err := r.TXT(t.Context(), name); !errors.Is(err, ErrNotExist) {
			t.Errorf("%q: %v", name, err)
		}
		if n := server.Count(name, ""); n != 0 {
			t.Errorf("%q was asked for", name)
		}
	}
	for _, name := range []string{"s._domainkey.example.com", "a+b=c.example.com", "0/25.example.com"} {
		if _, err := r.TXT(t.Context(), name); !errors.Is(err, ErrNotExist) || server.Count(name, "TXT") != 1 {
			t.Errorf("%q: %v, asked %d times", name, err, server.Count(name, "TXT"))
		}
	}
}

func TestTXTAndPTR(t *testing.T) {
	r, _, _ := setup(t)
	txt, err := r.TXT(t.Context(), "example.com")
	if want := []string{"v=spf1 -all", "quote \" backslash \\ byte \xc8"}; err != nil || !slices.Equal(txt, want) {
		t.Errorf("TXT: %q, %v", txt, err)
	}
	for _, ip := range []string{"192.0.2.1", "::ffff:192.0.2.1"} {
		ptr, err := r.PTR(t.Context(), netip.MustParseAddr(ip))
		if err != nil || !slices.Equal(ptr, []string{"first.example.com"}) {
			t.Errorf("PTR of %s: %q, %v", ip, ptr, err)
		}
	}
	if _, err := r.PTR(t.Context(), netip.MustParseAddr("192.0.2.2")); !errors.Is(err, ErrNotExist) {
		t.Errorf("PTR of an address without: %v", err)
	}
	if _, err := r.PTR(t.Context(), netip.Addr{}); !errors.Is(err, ErrNotExist) {
		t.Errorf("PTR of no address: %v", err)
	}
}

func TestIP(t *testing.T) {
	r, server, _ := setup(t)
	server.Fail("broken.example.com", dns.RcodeServerFailure)
	for _, c := range []struct {
		host, network string
		want          string
		kind          Kind
	}{
		{"first.example.com", "ip", "[2001:db8::1 192.0.2.1]", -1},
		{"first.example.com", "ip4", "[192.0.2.1]", -1},
		{"first.example.com", "ip6", "[2001:db8::1]", -1},
		{"four.example.com", "ip", "[192.0.2.4]", -1},
		{"six.example.com", "ip", "[2001:db8::6]", -1},
		{"four.example.com", "ip6", "[]", NoData},
		{"example.com", "ip", "[]", NoData},
		{"nothing.example.com", "ip", "[]", NotExist},
		{"broken.example.com", "ip", "[]", Temporary},
		{"first.example.com", "tcp", "[]", Temporary},
		{"localhost", "ip", "[::1 127.0.0.1]", -1},
		{"Mail.Localhost.", "ip4", "[127.0.0.1]", -1},
		{"localhost", "ip6", "[::1]", -1},
		{"localhost", "tcp", "[]", Temporary},
	} {
		got, err := r.IP(t.Context(), c.host, c.network)
		if fmt.Sprint(got.Records) != c.want || kindOf(t, err) != c.kind || got.Partial != nil {
			t.Errorf("%s (%s): %v, %v, partial %v", c.host, c.network, got.Records, err, got.Partial)
		}
	}
	if server.Count("localhost", "") != 0 {
		t.Error("localhost was asked for")
	}
}

func TestIPv4IsThereWhileAAAAFails(t *testing.T) {
	t.Parallel()
	addr := stub(t, func(w dns.ResponseWriter, req *dns.Msg) {
		switch name := req.Question[0].Name; {
		case req.Question[0].Qtype == dns.TypeA:
			_ = w.WriteMsg(reply(req, name+" 60 IN A 192.0.2.1"))
		case name == "fails.test.":
			_ = w.WriteMsg(new(dns.Msg).SetRcode(req, dns.RcodeServerFailure))
		} // else AAAA of silent.test, which times out
	})
	r := New(Options{Servers: []string{addr}, Timeout: short})
	for _, host := range []string{"fails.test", "silent.test"} {
		got, err := r.IP(t.Context(), host, "ip")
		if err != nil || fmt.Sprint(got.Records) != "[192.0.2.1]" || kindOf(t, got.Partial) != Temporary {
			t.Errorf("%s: %v, %v, partial %v", host, got.Records, err, got.Partial)
		}
	}
}

func TestSecureIsTheServersWord(t *testing.T) {
	r, server, _ := setup(t)
	server.Secure("example.com")
	server.Secure("first.example.com")
	mx, err := r.MX(t.Context(), "example.com")
	ip, err2 := r.IP(t.Context(), "first.example.com", "ip")
	if err != nil || err2 != nil || !mx.Secure || !ip.Secure {
		t.Errorf("signed: %v %v, %v %v", mx, err, ip, err2)
	}
	if mx, err := r.MX(t.Context(), "alias.example.com"); err != nil || mx.Secure {
		t.Errorf("unsigned: %v, %v", mx, err)
	}
}

func TestConfirm(t *testing.T) {
	t.Parallel()
	empty := "example.com. SOA ns hostmaster 1 3600 600 86400 60"
	for name, c := range map[string]struct {
		zones  [2]string // "" leaves the server out, "silent" makes it so
		domain string
		first  Kind // what MX says
		want   Kind
	}{
		"one server, again":          {[2]string{empty, ""}, "first.example.com", NotExist, NotExist},
		"two servers agree":          {[2]string{empty, empty}, "first.example.com", NotExist, NotExist},
		"the first lied":             {[2]string{empty, zones}, "first.example.com", NotExist, -1},
		"the first lied, CNAME":      {[2]string{empty, zones}, "alias.example.com", NotExist, -1},
		"the other is silent":        {[2]string{empty, "silent"}, "first.example.com", NotExist, Temporary},
		"the first is silent, agree": {[2]string{"silent", empty}, "first.example.com", NotExist, Temporary},
		"not a name":                 {[2]string{zones, ""}, "a..b", NotExist, NotExist},
		"NODATA exists":              {[2]string{zones, ""}, "first.example.com", NoData, -1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var addrs []string
			for _, z := range c.zones {
				if z == "" {
					continue
				}
				s := testnet.NewDNS(t, strings.TrimPrefix(z, "silent"))
				if z == "silent" {
					s.Silence(testnet.Everything)
				}
				addrs = append(addrs, s.Addr())
			}
			r := New(Options{Servers: addrs, Timeout: short})
			if _, err := r.MX(t.Context(), c.domain); kindOf(t, err) != c.first {
				t.Fatalf("MX: %v", err)
			}
			if err := r.Confirm(t.Context(), strings.ToUpper(c.domain)); kindOf(t, err) != c.want {
				t.Fatalf("Confirm: %v", err)
			}
		})
	}
}

func TestConfirmAsksPastTheCacheAndMendsIt(t *testing.T) {
	r, server, _ := setup(t)
	if _, err := r.MX(t.Context(), "new.example.com"); !errors.Is(err, ErrNotExist) {
		t.Fatal(err)
	}
	server.Set(zones + "new.example.com. MX 10 first.example.com.")
	if err := r.Confirm(t.Context(), "new.example.com"); err != nil {
		t.Errorf("Confirm of a name that came to be: %v", err)
	}
	if _, err := r.MX(t.Context(), "new.example.com"); err != nil {
		t.Errorf("the cache still has the NXDOMAIN: %v", err)
	}
}

func TestEqualQuestionsAreAskedOnce(t *testing.T) {
	r, server, _ := setup(t)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := r.MX(t.Context(), "example.com"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := server.Count("example.com", "MX"); n != 1 {
		t.Errorf("asked %d times", n)
	}
}
