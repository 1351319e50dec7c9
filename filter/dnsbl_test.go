package filter

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	miekg "github.com/miekg/dns"

	"relayd/dns"
)

const listsDNS = `
7.2.0.192.zen.test. A 127.0.0.4
7.2.0.192.zen.test. TXT "https://zen.test/?ip=192.0.2.7" 
2.0.0.127.zen.test. A 127.0.0.2
1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.zen.test. A 127.0.0.4
7.2.0.192.quiet.test. A 127.0.0.2
1.2.0.192.wild.test. A 192.0.2.200
7.2.0.192.wild.test. A 198.51.100.1
*.open.test. A 127.255.255.254
7.2.0.192.open.test. A 127.255.255.254
7.2.0.192.quota.test. A 127.0.0.2
7.2.0.192.quota.test. A 127.255.255.255
7.2.0.192.typo.test. A 127.255.255.252
7.2.0.192.odd.test. A 127.255.255.1
7.2.0.192.dead.test. A 127.0.0.2
1.0.0.127.dead.test. A 127.0.0.2
7.2.0.192.sly.test. A 127.0.0.2
7.2.0.192.sly.test. TXT "a\013\010250 Ok \252 ` + "long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long long" + `"
7.2.0.192.secretkey.zen.dq.spamhaus.net. A 127.0.0.2
`

func TestLists(t *testing.T) {
	for _, c := range []struct {
		lists, ip string
		list      string // that has it, "" for none
		reason    string
		warning   string
	}{
		{"zen.test", "192.0.2.7", "zen.test", "https://zen.test/?ip=192.0.2.7", ""},
		{"zen.test", "::ffff:192.0.2.7", "zen.test", "https://zen.test/?ip=192.0.2.7", ""},
		{"zen.test", "2001:db8::1", "zen.test", "", ""},
		{"zen.test", "192.0.2.8", "", "", ""},
		{"zen.test", "2001:db8::2", "", "", ""},
		{"zen.test", "127.0.0.2", "", "", ""}, // asked by nobody
		{"zen.test", "10.2.0.192", "", "", ""},
		{"quiet.test", "192.0.2.7", "quiet.test", "", ""},
		{"nowhere.test zen.test", "192.0.2.7", "zen.test", "https://zen.test/?ip=192.0.2.7", ""},
		{"wild.test", "192.0.2.7", "", "", ""},
		{"open.test", "192.0.2.7", "", "", "not for public or open resolvers"},
		{"quota.test", "192.0.2.7", "", "", "we ask more than it allows"},
		{"typo.test", "192.0.2.7", "", "", "the name of the list is wrong"},
		{"odd.test", "192.0.2.7", "", "", "it answers 127.255.255.1, which is no listing"},
		{"dead.test", "192.0.2.7", "", "", "it lists 127.0.0.1"},
		{"sly.test", "192.0.2.7", "sly.test", "a 250 Ok ? long long long long", ""},
		{"secretkey.zen.dq.spamhaus.net", "192.0.2.7", "zen.dq.spamhaus.net", "", ""},
		{"", "192.0.2.7", "", "", ""},
	} {
		t.Run(c.lists+" "+c.ip, func(t *testing.T) {
			r := newRig(t, listsDNS, Options{DNSBL: strings.Fields(c.lists)})
			l := r.Listed(t.Context(), netip.MustParseAddr(c.ip))
			switch {
			case c.list == "" && l != nil:
				t.Errorf("%+v", l)
			case c.list != "" && (l == nil || l.List != c.list || !strings.HasPrefix(l.Reason, c.reason) || len(l.Reason) > maxReason):
				t.Errorf("%+v", l)
			}
			if refused := r.Counts().DNSBL == 1; refused != (c.list != "") {
				t.Errorf("%+v", r.Counts())
			}
			if c.warning == "" {
				r.warns("", 0)
				return
			}
			r.warns(c.warning, 1)
			r.names.Set("")
			r.clock.Advance(time.Hour) // past what the resolver remembers
			r.Listed(t.Context(), netip.MustParseAddr(c.ip))
			r.warns("", 1)
		})
	}
}

// A list without an answer lists nobody, and no key stands in what the admin reads.
func TestListWithoutAnswer(t *testing.T) {
	r := newRig(t, listsDNS, Options{DNSBL: []string{"secretkey.zen.dq.spamhaus.net", "zen.test"}})
	r.names.Fail("7.2.0.192.secretkey.zen.dq.spamhaus.net", miekg.RcodeServerFailure)
	r.names.Fail("7.2.0.192.zen.test", miekg.RcodeRefused)
	if l := r.Listed(t.Context(), client); l != nil {
		t.Errorf("%+v", l)
	}
	r.warns("filter zen.test, since 2026-06-01T12:00:00Z: nobody is refused because of it: DNS gives no answer", 2)
	if text := strings.Join(r.Warnings(), " ") + r.log.String(); strings.Contains(text, "secretkey") {
		t.Errorf("%s", text)
	}
}

// A list that lets us wait is left alone for a while, and one that answers is not kept waiting for.
func TestSilentList(t *testing.T) {
	r := newRig(t, listsDNS, Options{DNSBL: []string{"silent.test"}})
	r.names.Silence("7.2.0.192.silent.test")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if l := r.Listed(ctx, client); l != nil {
		t.Errorf("%+v", l)
	}
	asked := r.names.Count("7.2.0.192.silent.test", "A")
	r.Listed(t.Context(), client)
	if n := r.names.Count("7.2.0.192.silent.test", "A"); asked == 0 || n != asked {
		t.Errorf("asked %d times, then %d", asked, n)
	}
	r.warns("DNS gives no answer", 1)
	r.clock.Advance(silentTime)
	r.names.Fail("7.2.0.192.silent.test", miekg.RcodeSuccess)
	r.Listed(t.Context(), client)
	r.warns("", 1)

	both := newRig(t, listsDNS, Options{DNSBL: []string{"silent.test", "zen.test"}})
	both.names.Silence("7.2.0.192.silent.test")
	if l := both.Listed(t.Context(), client); l == nil || l.List != "zen.test" {
		t.Errorf("%+v", l)
	}
	both.warns("", 0)
}

func TestReversed(t *testing.T) { // the examples of RFC 5782 sections 2.1 and 2.4
	for ip, want := range map[string]string{
		"192.0.2.99":                "99.2.0.192",
		"2001:db8:1:2:3:4:567:89ab": "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.8.b.d.0.1.0.0.2",
	} {
		if got := reversed(netip.MustParseAddr(ip)); got != want {
			t.Errorf("%s: %s", ip, got)
		}
	}
}

type poisoned struct{ Resolver }

func (poisoned) IP(context.Context, string, string) (dns.Answer[netip.Addr], error) { panic("poison") }

// TestAPanicOfAListStaysWithItsSession: in a goroutine that nobody recovers it would end relayd.
func TestAPanicOfAListStaysWithItsSession(t *testing.T) {
	r := newRig(t, "", Options{DNSBL: []string{"one.test", "two.test"}})
	r.Filter.opt.Resolver = poisoned{}
	defer func() {
		if p := recover(); p == nil {
			t.Error("who asked does not hear of it")
		}
	}()
	r.Listed(context.Background(), client)
}
