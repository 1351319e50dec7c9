package address

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	tests := []struct {
		in, want string // want: what String writes; "" where in is no address
	}{
		{"me@example.org", "me@example.org"},
		{"Me@Example.ORG", "Me@example.org"},
		{"me@example.org.", "me@example.org"},
		{"me@localhost", "me@localhost"},
		{"a+b=c/d{e}!#$%&'*^`|~?-_@example.org", "a+b=c/d{e}!#$%&'*^`|~?-_@example.org"},

		{`"plain"@example.org`, "plain@example.org"},
		{`"a b"@example.org`, `"a b"@example.org`},
		{`"a\"b\\c"@example.org`, `"a\"b\\c"@example.org`},
		{`"\a"@example.org`, "a@example.org"},
		{`"a> NOTIFY=NEVER"@example.org`, `"a> NOTIFY=NEVER"@example.org`},
		{`"a@b"@example.org`, ""},
		{`""@example.org`, ""},
		{`"open@example.org`, ""},
		{`"a\`, ""},
		{`"a"b@example.org`, ""},
		{`a"b"@example.org`, ""},
		{"a b@example.org", ""},
		{"a@b@example.org", ""},
		{"<a@example.org>", ""},
		{"a@example.org>", ""},
		{"a,b@example.org", ""},

		{".a@example.org", `".a"@example.org`},
		{"a.@example.org", `"a."@example.org`},
		{"a..b@example.org", `"a..b"@example.org`},
		{"a.b.c@example.org", "a.b.c@example.org"},

		{"", ""},
		{"@", ""},
		{"me", ""},
		{"@example.org", ""},
		{"me@", ""},
		{"me@.", ""},
		{"me@..", ""},
		{"me@example..org", ""},
		{"me@.example.org", ""},
		{"me@example.org..", ""},
		{"me@-a.org", ""},
		{"me@a-.org", ""},
		{"me@a--b.org", "me@a--b.org"},
		{"me@_dmarc.example.org", "me@_dmarc.example.org"},
		{"me@exa mple.org", ""},
		{"me@example.org\n", ""},
		{"me@example.org\x00", ""},
		{"me@exam/ple.org", ""},
		{"me@*.org", ""},

		{"me@192.0.2.1", ""},
		{"me@example.123", ""},
		{"me@2130706433", ""},
		{"me@0x7f.1", ""},
		{"me@4.example", "me@4.example"},
		{"me@3com", "me@3com"},
		{"me@[192.0.2.1]", "me@[192.0.2.1]"},
		{"me@[IPv6:2001:DB8:0::1]", "me@[IPv6:2001:db8::1]"},
		{"me@[ipv6:::1]", "me@[IPv6:::1]"},
		{"me@[IPv6:::ffff:192.0.2.1]", "me@[IPv6:::ffff:192.0.2.1]"},
		{"me@[2001:db8::1]", ""},
		{"me@[IPv6:192.0.2.1]", ""},
		{"me@[IPv6:fe80::1%eth0]", ""},
		{"me@[192.0.2.01]", ""},
		{"me@[192.0.2.1", ""},
		{"me@[192.0.2.1].", ""},
		{"me@[]", ""},
		{"me@[tag:x]", ""},

		{"jürgen@example.org", "jürgen@example.org"},
		{"用户@例子.广告", "用户@xn--fsqu00a.xn--4rr70v"},
		{"me@Bücher.Example", "me@xn--bcher-kva.example"},
		{"me@BÜCHER.EXAMPLE", "me@xn--bcher-kva.example"},
		{"me@bu\u0308cher.example", "me@xn--bcher-kva.example"}, // the u and its dots apart
		{"me@XN--BCHER-KVA.example", "me@xn--bcher-kva.example"},
		{"me@straße.example", "me@xn--strae-oqa.example"},
		{"me@bücher。example。", "me@xn--bcher-kva.example"},
		{"me@ｅｘａｍｐｌｅ.org", "me@example.org"},
		{"me@a＠bücher.org", ""}, // a full-width @
		{"me@a_b.bücher.org", ""},
		{"me@bü cher.org", ""},
		{"me@\xff.org", ""},
		{"me@\u202eorg.example", ""},
		{"\xff@example.org", ""},
		{"a\u0085b@example.org", ""},
		{"a\u2028b@example.org", ""},
		{"a\tb@example.org", ""},
		{"\"a\tb\"@example.org", ""},
		{"\"a\r\nb\"@example.org", ""},
		{"\"a\x00\"@example.org", ""},
		{"\"a\x7f\"@example.org", ""},
	}
	for _, tt := range tests {
		a, err := Parse(tt.in)
		if got := a.String(); got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("Parse(%q) = %q, %v, want %q", tt.in, got, err, tt.want)
		}
	}
}

func TestSizes(t *testing.T) {
	labels := strings.Repeat("a.", 30)
	tests := []struct {
		name, in string
		ok       bool
	}{
		{"local part of 64", strings.Repeat("a", 64) + "@x.org", true},
		{"local part of 65", strings.Repeat("a", 65) + "@x.org", false},
		{"64 quotes", `"` + strings.Repeat(`\"`, 64) + `"@x.org`, true},
		{"65 octets in fewer letters", strings.Repeat("ü", 32) + "a@x.org", false},
		{"label of 63", "a@" + strings.Repeat("a", 63) + ".org", true},
		{"label of 64", "a@" + strings.Repeat("a", 64) + ".org", false},
		{"label that is longer as A-label", "a@" + strings.Repeat("ü", 60) + ".org", false},
		{"mailbox of 254", strings.Repeat("a", 64) + "@" + strings.Repeat("b", 63) + "." + strings.Repeat("c", 63) + "." + labels + "z", true},
		{"mailbox of 255", strings.Repeat("a", 64) + "@" + strings.Repeat("b", 63) + "." + strings.Repeat("c", 63) + "." + labels + "zz", false},
		{"mailbox of 255 with its quotes", strings.Repeat("a", 62) + ".@" + strings.Repeat("b", 63) + "." + strings.Repeat("c", 63) + "." + labels + "z", false},
		{"a megabyte", "a@" + strings.Repeat("ü.", 1<<19), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, err := Parse(tt.in)
			if (err == nil) != tt.ok || len(a.String()) > MaxPath {
				t.Errorf("%d octets, %d written: %v", len(tt.in), len(a.String()), err)
			}
			if err != nil && len(err.Error()) > 2000 {
				t.Errorf("a complaint of %d octets", len(err.Error()))
			}
		})
	}
	if d, err := Domain(strings.Repeat("a.", 126) + "z"); len(d) != 253 || err != nil {
		t.Errorf("a domain of %d octets: %v", len(d), err)
	}
	if _, err := Domain(strings.Repeat("a.", 126) + "zz"); err == nil {
		t.Error("a domain of 254 octets, which DNS cannot hold, is taken")
	}
}

func TestFromPath(t *testing.T) {
	tests := []struct {
		in   string
		utf8 bool
		want string
	}{
		{"me@example.org", false, "me@example.org"},
		{"a b@example.org", false, `"a b"@example.org`},
		{`a"b@example.org`, false, `"a\"b"@example.org`},
		{"a> NOTIFY=NEVER x@example.org", false, `"a> NOTIFY=NEVER x"@example.org`},
		{"x@victim> SIZE=1@example.org", false, ""}, // what a quoted local part with an @ arrives as
		{"@relay,@other:me@example.org", false, ""},
		{"a\r\nRCPT TO:<x@example.org", false, ""},
		{"jürgen@example.org", false, ""},
		{"jürgen@example.org", true, "jürgen@example.org"},
		{"me@bücher.example", false, ""},
		{"me@bücher.example", true, "me@xn--bcher-kva.example"},
		{"\xe4@example.org", true, ""},
		{"me@192.0.2.1", false, ""},
		{"postmaster", false, ""},
		{"", false, ""},
	}
	for _, tt := range tests {
		a, err := FromPath(tt.in, tt.utf8)
		if got := a.String(); got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("FromPath(%q, %v) = %q, %v, want %q", tt.in, tt.utf8, got, err, tt.want)
		}
	}
}

func TestKeysOfOneMailboxAreEqual(t *testing.T) {
	same := [][]string{
		{"Me@Example.org", "me@example.org", `"mE"@EXAMPLE.org.`},
		{"JÜRGEN@x.org", "jürgen@x.org", "ju\u0308rgen@x.org", "JU\u0308RGEN@x.org"},
		{"a@bücher.example", "A@XN--BCHER-KVA.EXAMPLE"},
	}
	for _, group := range same {
		for _, s := range group {
			if a, err := Parse(s); err != nil || a.Key() != mustParse(t, group[1]).Key() {
				t.Errorf("%q has the key %q, %v, and %q has %q", s, a.Key(), err, group[1], mustParse(t, group[1]).Key())
			}
		}
	}
	if a := mustParse(t, "ju\u0308rgen@x.org"); a.String() != "ju\u0308rgen@x.org" {
		t.Errorf("the bytes of a local part are changed: %q", a.String())
	}
}

func mustParse(t *testing.T, s string) Address {
	t.Helper()
	a, err := Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestNullReversePath(t *testing.T) {
	var null Address
	if !null.IsNull() || null.String() != "" || null.Key() != "" || !null.ASCII() {
		t.Errorf("%q %q", null.String(), null.Key())
	}
	if mustParse(t, "a@b").IsNull() {
		t.Error("an address is null")
	}
}

func TestLiteral(t *testing.T) {
	for in, want := range map[string]string{
		"a@[192.0.2.1]": "192.0.2.1", "a@[IPv6:2001:db8::1]": "2001:db8::1", "a@example.org": "",
	} {
		ip, ok := mustParse(t, in).Literal()
		if ok != (want != "") || ok && ip != netip.MustParseAddr(want) {
			t.Errorf("%s: %v %v", in, ip, ok)
		}
	}
}

func TestJSON(t *testing.T) {
	type pair struct{ A, B Address }
	for _, in := range []pair{{}, {A: mustParse(t, `"a \"b"@x.org`), B: mustParse(t, "ü@[IPv6:::1]")}} {
		text, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		var out pair
		if err := json.Unmarshal(text, &out); err != nil || out != in {
			t.Errorf("%s became %v, %v", text, out, err)
		}
	}
	if err := new(Address).UnmarshalText([]byte("no address")); err == nil {
		t.Error("what is no address is taken from JSON")
	}
}
