package mailauth

import (
	"encoding/json"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"relayd/address"
)

// A suite is a part of the test suite of RFC 7208.
type suite struct {
	Description string
	Tests       []struct {
		Name, Helo, Host, MailFrom string
		Result                     []string
	}
	Zone map[string][]struct {
		Type string
		Data []string
	}
}

// resolver is the suite's DNS. Policies stand under the type SPF where they are not TXT.
func (s suite) resolver() *zone {
	z := newZone("")
	for name, records := range s.Zone {
		if ip, ok := reverse(name); ok {
			name = ip
		}
		txt := false
		for _, r := range records {
			txt = txt || r.Type == "TXT"
		}
		for _, r := range records {
			switch {
			case len(r.Data) == 1 && r.Data[0] == "NONE": // no record, not even that of type SPF
			case r.Type == "TIMEOUT":
				z.add(name, "FAIL", "")
			case r.Type == "CNAMELOOP":
				z.add(name, "CNAME", name)
			case r.Type == "TXT", r.Type == "SPF" && !txt:
				z.add(name, "TXT", strings.Join(r.Data, ""))
			case r.Type == "MX":
				z.add(name, "MX", r.Data[0]+" "+r.Data[1])
			default:
				z.add(name, r.Type, r.Data[0])
			}
		}
	}
	return z
}

// reverse is the address that a name of a reverse zone belongs to.
func reverse(name string) (string, bool) {
	v4, ok4 := strings.CutSuffix(name, ".in-addr.arpa")
	v6, ok6 := strings.CutSuffix(name, ".ip6.arpa")
	labels := strings.Split(v4, ".")
	if ok6 {
		labels = strings.Split(v6, ".")
	}
	slices.Reverse(labels)
	text := strings.Join(labels, ".")
	if ok6 {
		text = ""
		for i, digit := range labels {
			if i > 0 && i%4 == 0 {
				text += ":"
			}
			text += digit
		}
	}
	ip, err := netip.ParseAddr(text)
	return ip.String(), err == nil && (ok4 || ok6)
}

// differences are the cases in which we differ from the suite. None of them is found in real mail.
var differences = map[string]string{
	"a-colon-domain":            "the library takes no / in a name",
	"a-colon-domain-ip4mapped":  "the library takes no / in a name",
	"mx-colon-domain":           "the library takes no / in a name",
	"mx-colon-domain-ip4mapped": "the library takes no / in a name",
	"macro-mania-in-domain":     "package dns asks for no name with a space in it",
	"p-macro-multiple":          "the library expands %{p} to unknown, which RFC 7208 section 7.3 allows where a lookup fails",
}

func TestSuiteOfRFC7208(t *testing.T) {
	text, err := os.ReadFile("testdata/rfc7208-tests.json")
	if err != nil {
		t.Fatal(err)
	}
	var suites []suite
	if err := json.Unmarshal(text, &suites); err != nil {
		t.Fatal(err)
	}
	cases, differs := 0, 0
	for _, s := range suites {
		z := s.resolver()
		for _, tt := range s.Tests {
			c := New(Options{Resolver: z, Hostname: "mx.example"})
			got, _ := c.checkSPF(t.Context(), Message{IP: netip.MustParseAddr(tt.Host), Helo: tt.Helo, Sender: senderOf(tt.MailFrom)})
			cases++
			ok := slices.Contains(tt.Result, string(got.Result))
			if why := differences[tt.Name]; why != "" {
				differs++
				if ok {
					t.Errorf("%s: is as the suite wants it, though %q", tt.Name, why)
				}
			} else if !ok {
				t.Errorf("%s: %s: %s (%v), want %s", s.Description, tt.Name, got.Result, got.Err, tt.Result)
			}
		}
	}
	t.Logf("%d cases, %d of them differ", cases, differs)
	if cases != 203 {
		t.Errorf("%d cases, want 203", cases)
	}
}

// senderOf is an envelope sender as the suite writes it. Some of its domains are those that no
// session would let through.
func senderOf(s string) address.Address {
	at := strings.LastIndexByte(s, '@')
	if s == "" {
		return address.Address{}
	}
	if at < 0 {
		return address.Address{Local: "postmaster", Domain: strings.ToLower(s)}
	}
	local := s[:at]
	if local == "" {
		local = "postmaster" // RFC 7208 section 4.3
	}
	return address.Address{Local: local, Domain: s[at+1:]}
}
