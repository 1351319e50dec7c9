package address

import (
	"strings"
	"testing"
	"unicode"

	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"
)

// drawn draws a mailbox as SMTP libraries hand it on: any local part, any kind of domain.
func drawn(t *rapid.T) Address {
	local := rapid.OneOf(
		rapid.StringMatching(`[a-zA-Z0-9.+_=-]{1,64}`),
		rapid.StringMatching(`[ -?A-~]{1,64}`),
		rapid.StringN(1, 16, MaxLocal),
	).Draw(t, "local")
	domain := rapid.OneOf(
		rapid.StringMatching(`[a-zA-Z0-9_]{1,10}(\.[a-zA-Z]{2,8}){0,3}\.?`),
		rapid.StringMatching(`[a-zäöüÄÖÜßжЖ名]{1,8}\.(org|ORG|рф)`),
		rapid.SampledFrom([]string{"[192.0.2.1]", "[IPv6:2001:db8::1]"}),
	).Draw(t, "domain")
	a, err := FromPath(local+"@"+domain, true)
	if err != nil {
		t.Skip("no mailbox")
	}
	return a
}

func TestWrittenAndReadAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { checkAddress(t, drawn(t)) })
}

// checkAddress checks what every address promises: it is written so that it is read again as
// itself, and so that nothing in it ends a path or a line.
func checkAddress(t rapid.TB, a Address) {
	t.Helper()
	s := a.String()
	if again, err := Parse(s); again != a || err != nil {
		t.Fatalf("%q is read again as %q, %v", s, again, err)
	}
	if len(s) > MaxPath || len(a.Local) > MaxLocal {
		t.Fatalf("%q is too long", s)
	}
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c < ' ' || c == 0x7f:
			t.Fatalf("%q has a control byte", s)
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && strings.IndexByte(" <>()\\,;", c) >= 0:
			t.Fatalf("%q has %q outside of quotes", s, c)
		}
	}
	if quoted || strings.ContainsFunc(s, unicode.IsControl) {
		t.Fatalf("%q can be torn apart", s)
	}
	if d, err := Domain(a.Domain); d != a.Domain || err != nil || !ascii(d) {
		t.Fatalf("the domain %q becomes %q, %v", a.Domain, d, err)
	}
	if at := strings.LastIndexByte(s, '@'); s[at+1:] != a.Domain {
		t.Fatalf("%q is not in %q", s, a.Domain)
	}
	if low := (Address{strings.ToLower(norm.NFD.String(a.Local)), a.Domain}); low.Key() != a.Key() {
		t.Fatalf("%q has the key %q and in lower case %q", a, a.Key(), low.Key())
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"me@example.org", `"a b"@example.org`, `"\"\\"@x`, "a@[IPv6:::1]", "ü@bücher.example", "a@b。c。",
		"@", `"@`, "a@[", "..@..", "a@xn--a", "a\u2028@b", "İ@x.org", "\u212a@x", "I\u0330\u0330\u0307@a", "\u0130\u0330@a", "a@\u00df\u200d.org",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := Parse(s)
		if err == nil {
			checkAddress(t, a)
		} else if a != (Address{}) {
			t.Fatalf("%q is %v in spite of %v", s, a, err)
		}
	})
}

func FuzzFromPath(f *testing.F) {
	for _, s := range []string{
		"me@example.org", "a> SIZE=1@x", "a@b@c", "\"@x", `\@x`, " @x", "ü@x", "a@ü", "@r:a@b", "a@1.2.3.4", "a@[1.2.3.4]",
	} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, s string, utf8 bool) {
		a, err := FromPath(s, utf8)
		if err != nil {
			return
		}
		checkAddress(t, a)
		if at := strings.LastIndexByte(s, '@'); a.Local != s[:at] {
			t.Fatalf("%q has become the local part %q", s, a.Local)
		}
		if !utf8 && !ascii(a.String()) {
			t.Fatalf("%q without SMTPUTF8", a)
		}
	})
}
