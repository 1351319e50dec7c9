package message

import (
	"errors"
	"strings"
	"testing"
)

func TestFrom(t *testing.T) {
	tests := []struct {
		raw, want string // want: the address, or "" where From must not find one
	}{
		{"From: a@b.org", "a@b.org"},
		{"from : <a@b.org>", "a@b.org"},
		{"From: Ann Author <a@B.org>", "a@b.org"},
		{"From: A. B. Author <a@b.org>", "a@b.org"},
		{`From: "Author, Ann" <a@b.org>`, "a@b.org"},
		{`From: "a \"quoted\" <x@y>" <a@b.org>`, "a@b.org"},
		{`From: "x;y" <a@b.org>`, "a@b.org"},
		{`From: "ceo@bank.example" <a@b.org>`, "a@b.org"},
		{"From: a@b.org (Ann; (née) Other)", "a@b.org"},
		{"From:\r\n\tAnn\r\n\t<a@b.org>", "a@b.org"},
		{"From: =?utf-8?q?J=C3=BCrgen?= <a@b.org>", "a@b.org"},
		{"From: =?x-unknown?q?J=FC?= <a@b.org>", "a@b.org"},
		{"From: =?utf-8?b?!!!?= <a@b.org>", "a@b.org"},
		{"From: =?koi8-r?B?8NLJ18XU?= =?koi8-r?B?8NLJ18XU?= <a@b.org>", "a@b.org"},
		{"From: J\xfcrgen <a@b.org>", "a@b.org"},
		{"From: \"J\xfcrgen\" <a@b.org>", "a@b.org"},
		{"From: Jürgen <a@b.org>", "a@b.org"},
		{"From: jürgen@bücher.example", "jürgen@xn--bcher-kva.example"},
		{`From: "a b"@c.org`, `"a b"@c.org`},
		{"From: a@[192.0.2.1]", "a@[192.0.2.1]"},
		{"From: a@b.org <a@b.org>", "a@b.org"},
		{"From: A@B.org <a@b.org>", "a@b.org"},

		{"To: a@b.org", ""},
		{"From:", ""},
		{"From: <>", ""},
		{"From: a", ""},
		{"From: a@b.org\r\nFROM: a@b.org", ""},
		{"From: a@b.org, c@d.org", ""},
		{"From: Ann Author, <a@b.org>", ""},
		{"From: group: a@b.org;", ""},
		{"From: group: a@b.org, c@d.org;", ""},
		{"From: undisclosed:;", ""},
		{"From: ceo@bank.example <a@b.org>", ""},
		{"From: a@b.org <ceo@bank.example> ", ""},
		{"From: <ceo@bank.example> <a@b.org>", ""},
		{"From: ceo@bank.example a@b.org", ""},
		{"From: <@relay:a@b.org>", ""},
		{"From: <a@b.org", ""},
		{"From: a@b.org>", ""},
		{"From: \"open <a@b.org>", ""},
		{"From: (open <a@b.org>", ""},
		{`From: "a@b"@c.org`, ""},
		{"From: \xfc@b.org", ""},
		{"From: a@\xfc.org", ""},
		{"From: a\x00@b.org", ""},
		{"From: a@192.0.2.1", ""},
		{"From: (ceo@bank.example) a@b.org", ""},
		{"From: a@[IPv6:2001:db8::1]", ""}, // net/mail does not know it
		{"From: " + strings.Repeat("x ", maxFrom) + "<a@b.org>", ""},
		{"From: " + strings.Repeat("a@b.org,", 1000) + "a@b.org", ""},
	}
	for _, tt := range tests {
		got, err := parsed(t, tt.raw+"\r\nSubject: x\r\n").From()
		if got.String() != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("%.100q: %q, %v, want %q", tt.raw, got, err, tt.want)
		}
		if err != nil && len(err.Error()) > 1000 {
			t.Errorf("%.100q: a complaint of %d bytes", tt.raw, len(err.Error()))
		}
	}
}

func TestFromTellsWhatIsWrong(t *testing.T) {
	for raw, want := range map[string]error{
		"Subject: x\r\n": ErrNoFrom, "From: a@b\r\nFrom: c@d\r\n": ErrManyFrom, "From: a@b, c@d\r\n": ErrManyFrom, "From: g: a@b;\r\n": ErrManyFrom,
	} {
		if _, err := parsed(t, raw).From(); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", raw, err, want)
		}
	}
}
