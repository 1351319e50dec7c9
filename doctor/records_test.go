package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
)

func TestAllIsRight(t *testing.T) {
	w := newWorld(t)
	for _, f := range w.doctor.CheckRecords(t.Context(), w.site) {
		if f.Status != OK || f.Do != "" {
			t.Errorf("%s", listing([]Finding{f}))
		}
	}
}

// What can be wrong with each record, and what is said of it.
func TestWrongRecords(t *testing.T) {
	value := testKey().Record().Value
	half := len(value) / 2
	name := "relay1._domainkey.example.org."
	dkimLine := func(strs ...string) string {
		line := name + " TXT"
		for _, s := range strs {
			for len(s) > 255 {
				line += fmt.Sprintf(" %q", s[:255])
				s = s[255:]
			}
			line += ` "` + strings.ReplaceAll(s, `"`, `\"`) + `"`
		}
		return line
	}
	a, b := value[:half], value[half:]
	ten := "example.org. TXT \"v=spf1 mx"
	for i := range 11 {
		ten += fmt.Sprintf(" a:mx.example.org include:i%d.example.org", i)
	}
	ten += " ~all\""
	for name, c := range map[string]struct {
		old, new string
		subject  string
		status   Status
		text, do string
	}{
		"no A":            {"mx.example.org. A ", "", "A mx.example.org", Fail, "there is none", "publish mx.example.org A 192.0.2.1"},
		"no AAAA":         {"mx.example.org. AAAA", "", "AAAA mx.example.org", Fail, "there is none", "2001:db8::1"},
		"wrong A":         {"mx.example.org. A ", "mx.example.org. A 192.0.2.9", "A mx.example.org", Fail, "192.0.2.9 is not an address of this server", "change it"},
		"one A too many":  {"", "mx.example.org. A 192.0.2.9", "A mx.example.org", Fail, "192.0.2.9 is not", "change it"},
		"no MX":           {"example.org. MX", "", "MX example.org", Fail, "there is none", "example.org MX 10 mx.example.org."},
		"MX elsewhere":    {"example.org. MX", "example.org. MX 5 ns1.example.org.", "MX example.org", Fail, "mail goes elsewhere: ns1.example.org", "change it"},
		"null MX":         {"example.org. MX", "example.org. MX 0 .", "MX example.org", Fail, "takes no mail at all", "change it"},
		"second MX":       {"", "example.org. MX 20 ns1.example.org.", "MX example.org", Warn, "some mail goes to ns1.example.org", "the only one"},
		"better MX":       {"", "example.org. MX 1 ns1.example.org.", "MX example.org", Fail, "mail goes to ns1.example.org first", "lowest preference"},
		"MX without host": {"example.org. MX", "example.org. MX 5 nothing.example.org.", "MX example.org", Fail, "nothing.example.org, which has no address", "change it"},
		"MX is a CNAME": {"example.org. MX", "example.org. MX 5 alias.example.org.\nalias.example.org. CNAME mx.example.org.",
			"MX example.org", Fail, "alias.example.org, which is a CNAME", "change it"},
		"host is a CNAME": {"mx.example.org. A ", "mx.example.org. CNAME ns1.example.org.", "A mx.example.org", Fail, "it is a CNAME, to ns1.example.org", "in its place"},
		"our other name": {"example.org. MX", "example.org. MX 5 mail.example.org.\nmail.example.org. A 192.0.2.1",
			"MX example.org", OK, "mail.example.org, which is this server too", ""},

		"no SPF":        {`example.org. TXT "v=spf1`, "", "SPF example.org", Fail, "there is none", "example.org TXT v=spf1 mx ~all"},
		"no HELO SPF":   {`mx.example.org. TXT`, "", "SPF mx.example.org", Fail, "there is none", "mx.example.org TXT v=spf1 a -all"},
		"other TXT":     {"", `example.org. TXT "google-site-verification=1"`, "SPF example.org", OK, "v=spf1 mx ~all", ""},
		"two SPF":       {"", `example.org. TXT "v=spf1 include:spf.example.net -all"`, "SPF example.org", Fail, "there are 2 SPF records", "v=spf1 mx include:spf.example.net ~all"},
		"SPF of others": {`example.org. TXT "v=spf1`, `example.org. TXT "v=spf1 ip4:198.51.100.1 -all"`, "SPF example.org", Fail, "does not let this server", "v=spf1 mx ip4:198.51.100.1 -all"},
		"SPF for all":   {`example.org. TXT "v=spf1`, `example.org. TXT "v=spf1 mx +all"`, "SPF example.org", Fail, "lets everybody send", "v=spf1 mx ~all"},
		"SPF is wrong":  {`example.org. TXT "v=spf1`, `example.org. TXT "v=spf1 mxinclude:x.org ~all"`, "SPF example.org", Fail, "cannot be evaluated", "mend it"},
		"SPF by IP":     {`example.org. TXT "v=spf1`, `example.org. TXT "v=spf1 ip4:192.0.2.1 ip6:2001:db8::1 -all"`, "SPF example.org", OK, "v=spf1 ip4", ""},
		"SPF only IPv4": {`example.org. TXT "v=spf1`, `example.org. TXT "v=spf1 ip4:192.0.2.1 -all"`, "SPF example.org", Fail, "(2001:db8::1)", "v=spf1 mx ip4:192.0.2.1 -all"},
		"SPF too many lookups": {`example.org. TXT "v=spf1`, ten + spfIncludes(11),
			"SPF lookups of example.org", Fail, "more than 10 lookups", "take out"},
		"SPF circle": {`example.org. TXT "v=spf1`, "example.org. TXT \"v=spf1 mx include:c.example.org ~all\"\nc.example.org. TXT \"v=spf1 include:example.org ~all\"",
			"SPF lookups of example.org", Fail, "example.org → c.example.org → example.org", "take it out"},
		"SPF include of nothing": {`example.org. TXT "v=spf1`, `example.org. TXT "v=spf1 mx include:none.example.org ~all"`,
			"SPF lookups of example.org", Fail, "includes none.example.org, which has 0 SPF records", "take it out"},
		"SPF void": {`example.org. TXT "v=spf1`, `example.org. TXT "v=spf1 mx a:n1.example.org a:n2.example.org a:n3.example.org ~all"`,
			"SPF lookups of example.org", Fail, "more than 2 of the names in it do not exist: n1.example.org", "take them out"},

		"no DKIM":                  {name, "", "DKIM relay1._domainkey.example.org", Fail, "there is none", "p=MII"},
		"another DKIM key":         {name, dkimLine(smallKey(t).Record().Value), "DKIM relay1._domainkey.example.org", Fail, "another key", "p=MII"},
		"two DKIM keys":            {"", dkimLine(smallKey(t).Record().Value), "DKIM relay1._domainkey.example.org", Fail, "there are 2 records", "leave this one"},
		"DKIM withdrawn":           {name, dkimLine("v=DKIM1; p="), "DKIM relay1._domainkey.example.org", Fail, "withdrawn", "publish it"},
		"DKIM cut off":             {name, dkimLine(value[:255]), "DKIM relay1._domainkey.example.org", Fail, "cut off after", "publish it as one record, whole"},
		"DKIM in blanks":           {name, dkimLine(a+" ", b), "DKIM relay1._domainkey.example.org", Fail, "split wrong: the pieces of p= are joined with blanks", "publish it"},
		"DKIM in quotes":           {name, dkimLine(a+`" "`, b), "DKIM relay1._domainkey.example.org", Fail, "split wrong: quotes stand within", "publish it"},
		"DKIM in two records":      {name, dkimLine(a) + "\n" + dkimLine(b), "DKIM relay1._domainkey.example.org", Fail, "split wrong: its 2 pieces stand in a record each", "one record"},
		"DKIM split right":         {name, dkimLine(value[:100], value[100:]), "DKIM relay1._domainkey.example.org", OK, "our key", ""},
		"DKIM as a test":           {name, dkimLine(strings.Replace(value, ";", "; t=y;", 1)), "DKIM relay1._domainkey.example.org", Warn, "marked as a test", "publish it"},
		"no key at all":            {name, dkimLine("hello"), "DKIM relay1._domainkey.example.org", Fail, "no DKIM key", "publish it"},
		"DKIM by CNAME to nothing": {name, name + " CNAME k.example.net.", "DKIM relay1._domainkey.example.org", Fail, "there is none", "publish"},
		"DKIM by CNAME": {name, name + " CNAME k.example.net.\n" + strings.Replace(dkimLine(value), name, "k.example.net.", 1),
			"DKIM relay1._domainkey.example.org", OK, "our key", ""},

		"no DMARC":     {"_dmarc", "", "DMARC _dmarc.example.org", Fail, "there is none", "_dmarc.example.org TXT v=DMARC1; p=none"},
		"two DMARC":    {"", `_dmarc.example.org. TXT "v=DMARC1; p=reject"`, "DMARC _dmarc.example.org", Fail, "there are 2 records", "leave one"},
		"wrong DMARC":  {"_dmarc", `_dmarc.example.org. TXT "v=DMARC1; p=nothing"`, "DMARC _dmarc.example.org", Fail, "cannot be read", "change it"},
		"no DMARC tag": {"_dmarc", `_dmarc.example.org. TXT "p=reject"`, "DMARC _dmarc.example.org", Fail, "no DMARC record", "publish"},
		"strict DMARC": {"_dmarc", `_dmarc.example.org. TXT "v=DMARC1; p=reject"`, "DMARC _dmarc.example.org", OK, "p=reject", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.change(t, c.old, c.new)
			list := w.doctor.CheckRecords(t.Context(), w.site)
			f := named(list, c.subject)
			if f.Status != c.status || !strings.Contains(f.Text, c.text) || !strings.Contains(f.Do, c.do) {
				t.Errorf("want %s %q → %q, got\n%s", c.status, c.text, c.do, listing(list))
			}
		})
	}
}

func spfIncludes(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "\ni%d.example.org. TXT \"v=spf1 ip4:198.51.100.%d -all\"", i, i)
	}
	return b.String()
}

func TestNameServers(t *testing.T) {
	for name, c := range map[string]struct {
		spoil   func(w *world)
		subject string
		status  Status
		text    string
	}{
		"refuses": {func(w *world) { w.servers[1].Fail("example.org", mdns.RcodeRefused) }, "name servers of example.org", Fail, "ns2.example.org (192.0.2.54) is lame: it answers REFUSED"},
		"all refuse": {func(w *world) {
			w.servers[0].Fail("example.org", mdns.RcodeRefused)
			w.servers[1].Fail("example.org", mdns.RcodeRefused)
		}, "name servers of example.org", Fail, "ns1.example.org (192.0.2.53) is lame: it answers REFUSED"},
		"have no address": {func(w *world) {
			w.resolver.Set(strings.Replace(theZone(w.site)+elsewhere, "ns2.example.org. A", "ns3.example.org. A", 1))
		}, "name servers of example.org", Fail, "ns2.example.org is lame: it has no address"},
		"is silent": {func(w *world) { w.servers[1].Silence("*") }, "name servers of example.org", Fail, "ns2.example.org (192.0.2.54) is lame: it does not answer"},
		"disagree": {func(w *world) {
			w.servers[1].Set(strings.Replace(theZone(w.site), "MX 10 mx.", "MX 10 ns1.", 1))
		}, "MX example.org", Fail, "the name servers disagree: "},
		"all silent": {func(w *world) {
			w.servers[0].Silence("*")
			w.servers[1].Silence("*")
		}, "name servers of example.org", Warn, "port 53 outwards seems to be closed"},
		"resolver fails": {func(w *world) { w.resolver.Fail("*", mdns.RcodeServerFailure) }, "name servers of example.org", Fail, "nobody can say which records there are: no resolver knows its name servers"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.hurry()
			c.spoil(w)
			list := w.doctor.CheckRecords(t.Context(), w.site)
			if f := named(list, c.subject); f.Status != c.status || !strings.Contains(f.Text, c.text) || f.Do == "" {
				t.Errorf("want %s %q, got\n%s", c.status, c.text, listing(list))
			}
		})
	}
}

// With port 53 closed the resolver's word is good enough.
func TestBehindAClosedPort(t *testing.T) {
	w := newWorld(t)
	w.hurry()
	w.servers[0].Silence("*")
	w.servers[1].Silence("*")
	if list := w.doctor.CheckRecords(t.Context(), w.site); !OKAll(list) {
		t.Errorf("%s", listing(list))
	}
}

// So it is in a network with names of its own, where nobody is asked for a zone.
func TestNamesWithoutAZone(t *testing.T) {
	w := newWorld(t)
	var rest []string
	for line := range strings.Lines(theZone(w.site) + elsewhere) {
		if !strings.Contains(line, " NS ") && !strings.Contains(line, "SOA") {
			rest = append(rest, line)
		}
	}
	w.resolver.Set(strings.Join(rest, ""))
	list := w.doctor.CheckRecords(t.Context(), w.site)
	if f := named(list, "name servers of example.org"); !OKAll(list) || f.Status != Warn || !strings.Contains(f.Text, "no NS records") {
		t.Errorf("%s", listing(list))
	}
}

// A server that does not say that it is authoritative is one that others ask in vain.
func TestServerWithoutAuthority(t *testing.T) {
	w := newWorld(t)
	at := w.resolver.Addr()
	w.doctor.opt.Authority = func(ip netip.Addr) string {
		if ip.String() == "192.0.2.54" {
			return at
		}
		return w.servers[0].Addr()
	}
	f := named(w.doctor.CheckRecords(t.Context(), w.site), "name servers of example.org")
	if f.Status != Fail || !strings.Contains(f.Text, "not authoritative") {
		t.Errorf("%+v", f)
	}
}

func TestReverseDNS(t *testing.T) {
	for name, c := range map[string]struct {
		arpa   string
		status Status
		text   string
	}{
		"none":                 {"", Fail, "there is none"},
		"leads elsewhere":      {"1.2.0.192.in-addr.arpa. PTR ns1.example.org.", Fail, "does not lead back"},
		"leads nowhere":        {"1.2.0.192.in-addr.arpa. PTR gone.example.org.", Fail, "does not lead back"},
		"another name of ours": {"1.2.0.192.in-addr.arpa. PTR static.example.org.\nstatic.example.org. A 192.0.2.1", Warn, "static.example.org, which leads back"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.resolver.Set(theZone(w.site) + "arpa. SOA ns.arpa. hostmaster.arpa. 1 3600 600 86400 60\n" + c.arpa + "\n")
			list := w.doctor.CheckReverse(t.Context(), "mx.example.org", w.site.Addresses)
			f := named(list, "reverse DNS of 192.0.2.1")
			if f.Status != c.status || !strings.Contains(f.Text, c.text) || !strings.Contains(f.Do, "192.0.2.1 to mx.example.org") {
				t.Errorf("%s", listing(list))
			}
			if f := named(list, "reverse DNS of 2001:db8::1"); f.Status != Warn {
				t.Errorf("IPv6 beside IPv4: %+v", f)
			}
		})
	}
}

// A name of IPv6 in DNS without such an address here takes mail nowhere.
func TestStrayIPv6(t *testing.T) {
	w := newWorld(t)
	w.site.Addresses = w.site.Addresses[:1]
	list := w.doctor.CheckRecords(t.Context(), w.site)
	if f := named(list, "AAAA mx.example.org"); f.Status != Fail || !strings.Contains(f.Text, "has none of IPv6") {
		t.Errorf("%s", listing(list))
	}
}

func TestUnsigned(t *testing.T) {
	w := newWorld(t)
	w.site.Keys = nil
	if f := named(w.doctor.CheckRecords(t.Context(), w.site), "DKIM example.org"); f.Status != Warn || f.Do != "relay-util dkim-keygen example.org" {
		t.Errorf("%+v", f)
	}
}

// Behind a translation of addresses DNS says which one is ours.
func TestAddressesBehindNAT(t *testing.T) {
	w := newWorld(t)
	all := w.site.Addresses
	w.site.Addresses = nil
	if got := w.doctor.Addresses(t.Context(), "mx.example.org"); fmt.Sprint(got) != fmt.Sprint(all) {
		t.Errorf("%v", got)
	}
	w.site.Addresses = all[1:]
	if got := w.doctor.Addresses(t.Context(), "mx.example.org"); fmt.Sprint(got) != fmt.Sprint(all) {
		t.Errorf("with IPv6 of our own: %v", got)
	}
}

func TestDMARCAdvice(t *testing.T) {
	for policy, want := range map[string]string{"none": "p=quarantine", "quarantine": "p=reject", "reject": ""} {
		w := newWorld(t)
		w.change(t, "_dmarc", `_dmarc.example.org. TXT "v=DMARC1; p=`+policy+`"`)
		list := w.doctor.CheckRecords(t.Context(), w.site)
		advice := listing(DMARCAdvice("example.org", list))
		if want == "" && advice != "" || !strings.Contains(advice, want) {
			t.Errorf("%s: %s", policy, advice)
		}
		if got := DMARCAdvice("example.org", append(list, Finding{Status: Fail})); got != nil {
			t.Errorf("advice although something is wrong: %v", got)
		}
	}
}

func TestDMARCOfTheDomainAbove(t *testing.T) {
	w := newWorld(t)
	w.site.Domain = "sub.example.org"
	f := w.doctor.checkDMARC(t.Context(), Record{Name: "_dmarc.sub.example.org", Type: "TXT", Kind: KindDMARC})
	if f.Status != OK || !strings.Contains(f.Text, "that of example.org") {
		t.Errorf("%+v", f)
	}
}

// With nobody answering the whole ends soon.
func TestEverythingDead(t *testing.T) {
	w := newWorld(t)
	w.hurry()
	w.resolver.Silence("*")
	begin := time.Now()
	list := Run(t.Context(), []Check{{"records", func(ctx context.Context) []Finding { return w.doctor.CheckRecords(ctx, w.site) }}}, nil)
	if OKAll(list) || time.Since(begin) > checkTime+10*time.Second {
		t.Errorf("after %v:\n%s", time.Since(begin), listing(list))
	}
}
