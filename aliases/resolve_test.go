package aliases

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"relayd/address"
)

func resolve(w world, addr string) (string, error) {
	a, err := address.Parse(addr)
	if err != nil {
		return "", err
	}
	res, err := Resolve(w, a)
	var out []string
	for _, f := range res.Targets {
		s := f.String()
		if f.Mailbox {
			s = "=" + s
		}
		out = append(out, s)
	}
	return strings.Join(out, " "), err
}

func TestResolve(t *testing.T) {
	w := newWorld(t, map[string]string{
		"a.org": `
			me:         me@gmail.com
			shop:       me, helper@x.org, ME@gmail.com, me@gmail.com
			first.last: fl@x.org
			first.last+tag: tagged@x.org
			dot.ted:    vague@x.org
			dotted:     plain@x.org
			copy:       copy, other@x.org
			over:       all@b.org, gone@b.org
			lost:       gone@b.org, nobody@b.org
			half:       gone@b.org, ok@x.org
			keep:       *@x.org
			back:       user@a.org via primary.example
			backmail:   user, user via primary.example
		`,
		"b.org":     "all: me@a.org, user@a.org, u.s.e.r+x@a.org",
		"wild.org":  "known: k@x.org\n*: *@x.org, catch@x.org",
		"alias.org": "*: *@a.org",
	}, "user@a.org", "copy@a.org", "box@wild.org", "do.t@wild.org")
	for _, tt := range []struct{ addr, want string }{
		{"me@a.org", "me@gmail.com"},
		{"ME@a.org", "me@gmail.com"},
		{"m.e+anything@a.org", "me@gmail.com"},
		{"shop@a.org", "me@gmail.com helper@x.org ME@gmail.com"},
		{"first.last@a.org", "fl@x.org"},
		{"firstlast@a.org", "fl@x.org"},
		{"f.irst.last+other@a.org", "fl@x.org"},
		{"first.last+tag@a.org", "tagged@x.org"},
		{"firstlast+tag@a.org", "fl@x.org"}, // a left side with a suffix is taken exactly only
		{"dot.ted@a.org", "vague@x.org"},
		{"do.tted@a.org", "plain@x.org"},
		{"user@a.org", "=user@a.org"},
		{"user+tag@a.org", "=user@a.org"},
		{"u.ser@a.org", "=user@a.org"},
		{"copy@a.org", "=copy@a.org other@x.org"},
		{"co.py+x@a.org", "=copy@a.org other@x.org"},
		{"over@a.org", "me@gmail.com =user@a.org"},
		{"half@a.org", "ok@x.org"},
		{"lost@a.org", ""},
		{"nobody@a.org", ""},
		{"+tag@a.org", ""},
		{"me@elsewhere.org", ""},
		{"Keep+Me@a.org", "Keep+Me@x.org"},
		{"back@a.org", "user@a.org via primary.example"},
		{"backmail@a.org", "=user@a.org user@a.org via primary.example"},
		{"known+x@wild.org", "k@x.org"},
		{"Any.One+x@wild.org", "Any.One+x@x.org catch@x.org"},
		{"*@wild.org", `"*"@x.org catch@x.org`},
		{"+x@wild.org", "+x@x.org catch@x.org"},
		{"box@wild.org", "=box@wild.org"},
		{"do.t+x@wild.org", "=do.t@wild.org"},
		{"me@alias.org", "me@gmail.com"},
		{"u.ser+x@alias.org", "=user@a.org"},
		{"nobody@alias.org", ""},
	} {
		got, err := resolve(w, tt.addr)
		if got != tt.want || (tt.want == "") != errors.Is(err, ErrNoSuchAddress) {
			t.Errorf("%s: %q, %v, want %q", tt.addr, got, err, tt.want)
		}
	}
}

// A catch-all must not take mail for user+tag away from a user with a mailbox.
func TestCatchAllLeavesTaggedUserAlone(t *testing.T) {
	w := newWorld(t, map[string]string{"a.org": "*: catch@x.org"}, "user@a.org")
	for addr, want := range map[string]string{
		"user@a.org":       "=user@a.org",
		"user+tag@a.org":   "=user@a.org",
		"u.s.er+tag@a.org": "=user@a.org",
		"other+tag@a.org":  "catch@x.org",
	} {
		if got, err := resolve(w, addr); got != want {
			t.Errorf("%s: %q, %v, want %q", addr, got, err, want)
		}
	}
}

func TestResolveWithOtherCharacters(t *testing.T) {
	w := world{tables: map[string]*Table{
		"dash.org": mustParse(t, "me: m@x.org\nno-reply: n@x.org", Options{Domain: "dash.org", SuffixSeparators: "-+", DropCharacters: "._"}),
		"none.org": mustParse(t, "me: m@x.org\nfirst.last: fl@x.org", Options{Domain: "none.org"}),
	}}
	for addr, want := range map[string]string{
		"me-tag@dash.org":     "m@x.org",
		"_m.e+tag@dash.org":   "m@x.org",
		"no-reply@dash.org":   "n@x.org",
		"me+tag@none.org":     "",
		"m.e@none.org":        "",
		"firstlast@none.org":  "",
		"first.last@none.org": "fl@x.org",
	} {
		if got, err := resolve(w, addr); got != want {
			t.Errorf("%s: %q, %v, want %q", addr, got, err, want)
		}
	}
}

func TestResolveSteps(t *testing.T) {
	w := newWorld(t, map[string]string{
		"a.org": "shop: m.e, other@b.org\nme: x@x.org",
		"b.org": "*: user@a.org",
	}, "user@a.org")
	res, err := Resolve(w, address.Address{Local: "Shop", Domain: "a.org"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range res.Steps {
		line := 0
		if s.Rule != nil {
			line = s.Rule.Line
		}
		got = append(got, fmt.Sprintf("%s %s %d", s.Address, s.Via, line))
	}
	want := []string{"Shop@a.org exact 1", "m.e@a.org without suffix and dots 2", "other@b.org catch-all 1", "user@a.org mailbox 0"}
	if !slices.Equal(got, want) {
		t.Errorf("steps %q, want %q", got, want)
	}
}

// Loops are refused by Check; when they come up all the same, the sender's mail must not hang.
func TestResolveEndsInLoops(t *testing.T) {
	w := newWorld(t, map[string]string{
		"a.org": "self: self\npair: *@b.org\n*: *@b.org\n" + chainText(12),
		"b.org": "*: *@a.org",
	})
	for addr, want := range map[string]error{
		"self@a.org": errLoop,
		"any@a.org":  errLoop,
		"c1@a.org":   errLoop,
		"c3@a.org":   nil, // ten rules are allowed
	} {
		if _, err := resolve(w, addr); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", addr, err, want)
		}
	}
}

// chainText makes n rules c1 to cn, each leading to the next and the last one out.
func chainText(n int) string {
	var b strings.Builder
	for i := 1; i < n; i++ {
		fmt.Fprintf(&b, "c%d: c%d\n", i, i+1)
	}
	fmt.Fprintf(&b, "c%d: out@x.org\n", n)
	return b.String()
}

// Ten levels of a hundred targets each are 10^20 ways; the answer comes at once.
func TestResolveIsBounded(t *testing.T) {
	var b strings.Builder
	for level := range 9 {
		for i := range 100 {
			fmt.Fprintf(&b, "l%dn%d: ", level, i)
			for j := range 100 {
				fmt.Fprintf(&b, "l%dn%d,", level+1, j)
			}
			fmt.Fprintf(&b, "same@x.org\n")
		}
	}
	for i := range 100 {
		fmt.Fprintf(&b, "l9n%d: last%d@x.org\n", i, i)
	}
	for i := range 11 {
		fmt.Fprintf(&b, "part%d: p%d@x.org", i, i)
		for j := range 99 {
			fmt.Fprintf(&b, ",p%d-%d@x.org", i, j)
		}
		b.WriteByte('\n')
	}
	b.WriteString("sum: part0,part1,part2,part3,part4,part5,part6,part7,part8,part9,part10\n")
	b.WriteString("limit: part0,part1,part2,part3,part4,part5,part6,part7,part8,part9\n")
	w := newWorld(t, map[string]string{"a.org": b.String()})
	for _, addr := range []string{"l0n0@a.org", "sum@a.org"} {
		if _, err := resolve(w, addr); !errors.Is(err, errTooMany) {
			t.Errorf("%s: %v", addr, err)
		}
	}
	if got, err := resolve(w, "limit@a.org"); err != nil || len(strings.Fields(got)) != maxFinals {
		t.Errorf("limit: %d targets, %v", len(strings.Fields(got)), err)
	}
	if got, err := resolve(w, "l8n0@a.org"); err != nil || len(strings.Fields(got)) != 101 {
		t.Errorf("l8n0: %d targets, %v", len(strings.Fields(got)), err)
	}
}

func TestResolvePipe(t *testing.T) {
	opt := example
	opt.AllowPipe = true
	w := world{tables: map[string]*Table{"example.org": mustParse(t, `a: |cat -n, b
b: |cat -n, |cat`, opt)}}
	if got, err := resolve(w, "a@example.org"); got != "|cat -n |cat" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// A mailbox server files mail by what stands behind the user's name, so it is kept.
func TestSuffixOfAMailbox(t *testing.T) {
	w := newWorld(t, map[string]string{"a.test": "shop: ann+Shop\nboth: ann+1, ann+2\nkept: kept+me, x@b.test\n"}, "ann@a.test", "bob+x@a.test", "kept@a.test")
	for to, want := range map[string]string{
		"ann": "", "Ann+Tag": "+Tag", "a.nn+x+y": "+x+y", "shop": "+Shop", "shop+z": "+Shop", "both": "+1", "bob+x": "", "kept+1": "+me",
	} {
		res, err := Resolve(w, address.Address{Local: to, Domain: "a.test"})
		if err != nil || !res.Targets[0].Mailbox || res.Targets[0].Suffix != want {
			t.Errorf("%s: %+v %v", to, res.Targets, err)
		}
	}
}
