package doctor

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	mdns "github.com/miekg/dns"

	"relayd/dkim"
)

// What is printed for a zone is read again as what was meant, whatever is out of the zone.
func TestZoneFileLoads(t *testing.T) {
	s := Site{
		Hostname: "mx.example.net", Domain: "example.org", SRSDomain: "srs.example.org", Keys: []*dkim.Key{testKey(), smallKey(t)}, Issuer: "letsencrypt.org",
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
	}
	records := append(Needed(s), Further(s)...)
	texts := map[string]string{}
	parser := mdns.NewZoneParser(strings.NewReader("$TTL 300\n"+ZoneFile(s.Domain, records)), "wrong.example.", "zone")
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		name := bare(rr.Header().Name)
		if !strings.HasSuffix("."+name, ".example.org") {
			t.Errorf("out of the zone: %s", rr)
		}
		texts[name+" "+mdns.TypeToString[rr.Header().Rrtype]] = data(rr)
		if txt, ok := rr.(*mdns.TXT); ok {
			for _, piece := range txt.Txt {
				if len(piece) > 255 {
					t.Errorf("a string of %d octets", len(piece))
				}
			}
		}
	}
	if err := parser.Err(); err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		got, ok := texts[r.Name+" "+r.Type]
		if ok != (r.Where == "") || ok && got != r.Value {
			t.Errorf("%s: %q", r.text(), got)
		}
	}
	for _, want := range []string{";mx.example.net. IN A 192.0.2.1\n", ";1.2.0.192.in-addr.arpa. IN PTR mx.example.net.\n", `;mx.example.net. IN CAA 0 issue "letsencrypt.org"`} {
		if !strings.Contains(ZoneFile(s.Domain, records), want) {
			t.Errorf("%q is missing", want)
		}
	}
}

func TestZoneFileWithoutAddress(t *testing.T) {
	if text := ZoneFile("example.org", Needed(Site{Hostname: "mx.example.org", Domain: "example.org"})); !strings.Contains(text, "\n;mx.example.org. IN A (") {
		t.Error(text)
	}
}

// Where the server is named as the domain, or the SRS domain is the domain, nothing stands twice.
func TestNothingTwice(t *testing.T) {
	for _, s := range []Site{
		{Hostname: "example.org", Domain: "example.org"},
		{Hostname: "mx.example.org", Domain: "example.org", SRSDomain: "example.org"},
		{Hostname: "srs.example.org", Domain: "example.org", SRSDomain: "srs.example.org"},
	} {
		seen := map[string]bool{}
		for _, r := range Needed(s) {
			if key := r.Name + r.Type; seen[key] {
				t.Errorf("%+v: %s stands twice", s, r.text())
			} else {
				seen[key] = true
			}
		}
	}
}

// The table in the README is what `relay-util dns` says for the names in it.
func TestReadmeAgrees(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	key := testKey()
	s := Site{Hostname: "mx.example.com", Domain: "example.com"}
	var want []string
	for _, r := range Needed(s) {
		value := "`" + r.Value + "`"
		if r.Kind == KindHost {
			r.Type, value = "A, AAAA", "the server's addresses"
		}
		want = append(want, fmt.Sprintf("| `%s` | %s | %s", r.Name, r.Type, value))
	}
	name := strings.Replace(key.Record().Name, "example.org", "example.com", 1)
	want = append(want, fmt.Sprintf("| `%s` | TXT | `v=DKIM1; k=rsa; p=", name))
	rows := 0
	for line := range strings.Lines(string(readme)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		rows++
		found := false
		for _, w := range want {
			found = found || strings.HasPrefix(line, w)
		}
		if !found {
			t.Errorf("in the README and not in %q: %s", want, line)
		}
	}
	if rows != len(want) {
		t.Errorf("%d rows, want %d", rows, len(want))
	}
}

func TestMergeSPF(t *testing.T) {
	for _, c := range []struct{ want, have, merged string }{
		{"v=spf1 mx ~all", "v=spf1 include:_spf.google.com ~all", "v=spf1 mx include:_spf.google.com ~all"},
		{"v=spf1 mx ~all", "v=spf1 include:x.org -all", "v=spf1 mx include:x.org -all"},
		{"v=spf1 mx ~all", "v=spf1 MX include:x.org ?all", "v=spf1 mx include:x.org ?all"},
		{"v=spf1 mx ~all", "v=spf1 redirect=x.org", "v=spf1 mx redirect=x.org"},
		{"v=spf1 mx ~all", "v=spf1 a", "v=spf1 mx a ~all"},
		{"v=spf1 mx ~all", "v=spf1 +all", "v=spf1 mx ~all"},
		{"v=spf1 a -all", "v=spf1 -all", "v=spf1 a -all"},
		{"v=spf1 mx ~all", "v=spf1", "v=spf1 mx ~all"},
	} {
		if got := mergeSPF(c.want, c.have); got != c.merged {
			t.Errorf("%s with %s: %s, want %s", c.want, c.have, got, c.merged)
		}
	}
}

// Whatever strangers publish is judged without a crash, and a record of ours in many forms is too.
func FuzzJudge(f *testing.F) {
	for _, text := range []string{"", "v=DKIM1; p=", "p=", ";;=;", `v=DKIM1; p="A" "B"`, "v=spf1", "v=spf1 all:x/ redirect= =", "v=DMARC1; p", "v=DMARC1;p=none;pct=x"} {
		f.Add(text)
	}
	r := testKey().Record()
	record := Record{Name: r.Name, Type: "TXT", Value: r.Value, Kind: KindDKIM}
	f.Fuzz(func(t *testing.T, text string) {
		var strs []string
		for rest := text; ; rest = rest[255:] {
			if len(rest) <= 255 {
				strs = append(strs, rest)
				break
			}
			strs = append(strs, rest[:255])
		}
		a := answer{records: []mdns.RR{&mdns.TXT{Hdr: mdns.RR_Header{Name: r.Name + ".", Rrtype: mdns.TypeTXT}, Txt: strs}}}
		if got := judgeDKIM(record, a); got.Status == OK && tags(text)["p"] != tags(r.Value)["p"] && unescaped(text) != r.Value {
			t.Errorf("%q is taken for our key", text)
		}
		judgeDMARC(record, a)
		if isSPF(text) {
			if merged := mergeSPF("v=spf1 mx ~all", text); mergeSPF("v=spf1 mx ~all", merged) != merged {
				t.Errorf("merging %q twice gives %q and then %q", text, merged, mergeSPF("v=spf1 mx ~all", merged))
			}
			for term := range strings.FieldsSeq(text) {
				splitTerm(term)
			}
		}
	})
}
