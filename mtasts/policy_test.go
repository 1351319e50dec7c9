package mtasts

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParsePolicy(t *testing.T) {
	const head = "version: STSv1\nmode: enforce\n"
	for _, c := range []struct{ text, want string }{
		{enforced, "enforce [mx.example.com] 168h0m0s"},
		{strings.ReplaceAll(enforced, "\n", "\r\n"), "enforce [mx.example.com] 168h0m0s"},
		{strings.TrimSuffix(enforced, "\n"), "enforce [mx.example.com] 168h0m0s"},
		{"max_age:0\nmx:*.Example.COM \t\nmx:\ta.b\nmode:testing\nversion:STSv1", "testing [*.example.com a.b] 0s"},
		{"version: STSv1\nmode: none\nmax_age: 31557600\n", "none [] 8766h0m0s"},
		{"version: STSv1\nmode: none\nmx: a.b\nmax_age: 1\n", "none [a.b] 1s"},
		{head + "mx: xn--bcher-kva.example\nmax_age: 0000000001\n", "enforce [xn--bcher-kva.example] 1s"},
		{head + "mx: a.b\nmx: a.b\nmode: none\nmode: nonsense\nmax_age: 1\nmax_age: 2\nversion: 2\n", "enforce [a.b a.b] 1s"},
		{head + "mx: a.b\nmax_age: 1\nx.y-z_1: é ü: =;\n", "enforce [a.b] 1s"},
		{head + "\n  \nmx: a.b\nmax_age: 1\n\n", "enforce [a.b] 1s"},

		{"", "no version"},
		{"\n", "no version"},
		{head + "max_age: 1\n", "no mx"},
		{head + "mx: a.b\n", "no max_age"},
		{"version: STSv1\nmx: a.b\nmax_age: 1\n", "no mode"},
		{"mode: enforce\nmx: a.b\nmax_age: 1\n", "no version"},
		{"version: STSv2\n", `line 1: unknown version "STSv2"`},
		{"version: stsv1\n", `line 1: unknown version "stsv1"`},
		{"Version: STSv1\nmode: none\nmax_age: 1\n", "no version"},
		{"version: STSv1\nmode: Enforce\n", `line 2: unknown mode "Enforce"`},
		{head + "max_age: 31557601\n", `line 3: max_age "31557601" is not a number of seconds up to 31557600`},
		{head + "max_age: 00000000001\n", `line 3: max_age "00000000001" is not a number of seconds up to 31557600`},
		{head + "max_age: -1\n", `line 3: max_age "-1" is not a number of seconds up to 31557600`},
		{head + "max_age: 1_0\n", `line 3: max_age "1_0" is not a number of seconds up to 31557600`},
		{head + "max_age: 1 day\n", `line 3: max_age "1 day" is not a number of seconds up to 31557600`},
		{head + "max_age:\n", "line 3: max_age has no value, or one with control characters"},
		{head + "mx: a\x00b\n", "line 3: mx has no value, or one with control characters"},
		{head + "mx: a.b\rmx: c.d\n", "line 3: mx has no value, or one with control characters"},
		{head + "mx: *\n", `line 3: mx "*" is not a host name`},
		{head + "mx: *.*.b\n", `line 3: mx "*.*.b" is not a host name`},
		{head + "mx: a*.b\n", `line 3: mx "a*.b" is not a host name`},
		{head + "mx: a.b.\n", `line 3: mx "a.b." is not a host name`},
		{head + "mx: .b\n", `line 3: mx ".b" is not a host name`},
		{head + "mx: bücher.example\n", `line 3: mx "bücher.example" is not a host name`},
		{head + "mx: [192.0.2.1]\n", `line 3: mx "[192.0.2.1]" is not a host name`},
		{head + "mx: a.b, c.d\n", `line 3: mx "a.b, c.d" is not a host name`},
		{head + "mx\n", "line 3: not a field"},
		{head + "mx : a.b\n", "line 3: not a field"},
		{head + " mx: a.b\n", "line 3: not a field"},
		{head + "<html>: x\n", "line 3: not a field"},
		{head + strings.Repeat("x", 33) + ": x\n", "line 3: not a field"},
		{head + "x: \xff\n", "not UTF-8"},
		{head + strings.Repeat("mx: a.b\n", maxMX+1), fmt.Sprintf("line %d: more than %d mx", maxMX+3, maxMX)},
		{enforced + strings.Repeat(" ", maxBody-len(enforced)+1), "longer than 65536 bytes"},
		{enforced + strings.Repeat(" ", maxBody-len(enforced)), "enforce [mx.example.com] 168h0m0s"},
	} {
		p, err := Parse([]byte(c.text))
		got := fmt.Sprintf("%v %v %v", p.Mode, p.MX, p.MaxAge)
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%.80q: %s; want %s", c.text, got, c.want)
		}
	}
}

func TestMatches(t *testing.T) {
	p := Policy{Mode: Enforce, MX: []string{"mx.example.com", "*.example.net"}}
	for host, want := range map[string]bool{
		"mx.example.com": true, "MX.Example.Com": true, "mx.example.com.": true,
		"a.example.net": true, "A.EXAMPLE.NET.": true,
		"example.net": false, "a.b.example.net": false, ".example.net": false, "*.example.net": true,
		"example.com": false, "a.mx.example.com": false, "xmx.example.com": false, "": false, ".": false,
		"aexample.net": false, "a.example.net.evil.org": false,
	} {
		if p.Matches(host) != want {
			t.Errorf("%q: %v", host, !want)
		}
	}
	if (Policy{}).Matches("") || (Policy{}).Matches("a.b") {
		t.Error("the zero policy names hosts")
	}
}

func TestPolicyIsReadAsWritten(t *testing.T) {
	name := rapid.StringMatching(`(\*\.)?[a-z0-9]([a-z0-9_-]{0,10}[a-z0-9])?(\.[a-z0-9]{1,10}){0,3}`)
	rapid.Check(t, func(t *rapid.T) {
		want := Policy{
			Mode:   Mode(rapid.IntRange(0, 2).Draw(t, "mode")),
			MX:     rapid.SliceOfN(name, 1, 5).Draw(t, "mx"),
			MaxAge: time.Duration(rapid.IntRange(0, maxAge).Draw(t, "age")) * time.Second,
		}
		got, err := Parse([]byte(want.String()))
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("%q became %q, %v", want, got, err)
		}
		for _, pattern := range got.MX {
			host := strings.Replace(pattern, "*", "any", 1)
			if !got.Matches(host) || got.Matches("one.more."+host) && len(want.MX) == 1 {
				t.Fatalf("%s and %s", pattern, host)
			}
		}
	})
}

// FuzzPolicy takes whatever a policy host may serve. What is taken keeps the bounds, and is the same
// policy when it is written and read again.
func FuzzPolicy(f *testing.F) {
	for _, seed := range []string{
		"", enforced, strings.ReplaceAll(enforced, "\n", "\r\n"), "version:STSv1\nmode:none\nmax_age:0",
		"version: STSv1\nmode: testing\nmx: *.a\nmx: B.c\nmax_age: 31557600\nother: x", "mx: \xff", "a:b\n\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := Parse(text)
		if err != nil {
			return
		}
		if p.MaxAge < 0 || p.MaxAge > maxAge*time.Second || len(p.MX) > maxMX || p.Mode < None || p.Mode > Enforce ||
			p.Mode != None && len(p.MX) == 0 {
			t.Errorf("out of bounds: %+v", p)
		}
		again, err := Parse([]byte(p.String()))
		if err != nil || again.String() != p.String() {
			t.Errorf("%q became %q, %v", p, again, err)
		}
	})
}
