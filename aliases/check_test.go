package aliases

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"relayd/address"
	"relayd/internal/testnet"
)

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		name      string
		files     map[string]string
		mailboxes []string
		want      []string // where problems are, in order
	}{
		{name: "nothing wrong", files: map[string]string{
			"a.org": "me: you, x@b.org\nyou: out@x.org\n*: *@b.org",
			"b.org": "x: you@a.org\n*: out@x.org",
		}},
		{name: "itself", files: map[string]string{"a.org": "ok: o@x.org\nme: me, out@x.org"},
			want: []string{"a.org/aliases:2"}},
		{name: "itself by another spelling", files: map[string]string{"a.org": "j.doe: jdoe+x"},
			want: []string{"a.org/aliases:1"}},
		{name: "a copy for the own mailbox", files: map[string]string{"a.org": "me: me, out@x.org\nj.doe: jdoe+x"},
			mailboxes: []string{"me@a.org", "jdoe@a.org"}},
		{name: "a mailbox does not excuse two that name each other", files: map[string]string{"a.org": "me: you\nyou: me"},
			mailboxes: []string{"me@a.org", "you@a.org"}, want: []string{"a.org/aliases:1", "a.org/aliases:2"}},
		{name: "across domains", files: map[string]string{
			"a.org": "in: p@a.org\np: p@b.org", "b.org": "q: o@x.org\np: p@c.org", "c.org": "p: p@a.org"},
			want: []string{"a.org/aliases:2", "b.org/aliases:2", "c.org/aliases:1"}},
		{name: "through a catch-all", files: map[string]string{"a.org": "*: nobody"},
			want: []string{"a.org/aliases:1"}},
		{name: "catch-all to the own domain", files: map[string]string{"a.org": "*: *"},
			want: []string{"a.org/aliases:1"}},
		{name: "catch-alls that name each other", files: map[string]string{"a.org": "*: *@b.org", "b.org": "*: *@a.org"},
			want: []string{"a.org/aliases:1", "b.org/aliases:1"}},
		{name: "only for one name", files: map[string]string{
			"a.org": "*: *@b.org", "b.org": "ok: o@x.org\npeter: paul@a.org\npaul: peter@a.org\n*: o@x.org"},
			want: []string{"a.org/aliases:1", "b.org/aliases:2", "b.org/aliases:3"}},
		{name: "only for names that no file has", files: map[string]string{
			"a.org": "me: m@x.org\n*: *@b.org", "b.org": "me: m@x.org\n*: *@c.org", "c.org": "*: *@b.org"},
			want: []string{"b.org/aliases:2", "c.org/aliases:1", "a.org/aliases:0"}[:2]},
		{name: "a name that comes back changed", files: map[string]string{
			"a.org": "bar: out@x.org\n*: *@b.org", "b.org": "foo: bar@a.org"}},
		{name: "via ends the way", files: map[string]string{"a.org": "*: *@a.org via primary.example\nme: me via primary.example"}},
		{name: "only for a suffix that the next domain does not know", files: map[string]string{
			"a.org": "x: *@plain.org", "plain.org": "x: o@x.org\n*: *@a.org"},
			want: []string{"a.org/aliases:1", "plain.org/aliases:2"}},
		{name: "ten rules", files: map[string]string{"a.org": chainText(10)}},
		{name: "eleven rules", files: map[string]string{"a.org": chainText(11)}, want: []string{"a.org/aliases:1"}},
		{name: "eleven rules in two files", files: map[string]string{"a.org": chainText(10), "b.org": "# in front\ngo: c1@a.org"},
			want: []string{"a.org/aliases:1", "b.org/aliases:2"}},
		{name: "ten rules behind a kept name", files: map[string]string{"a.org": chainText(10), "b.org": "*: *@a.org"},
			want: []string{"a.org/aliases:1", "b.org/aliases:1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, tt.files, tt.mailboxes...)
			if text, ok := tt.files["plain.org"]; ok {
				w.tables["plain.org"], _ = Parse("plain.org/aliases", strings.NewReader(text), Options{Domain: "plain.org"})
			}
			list := Check(w, w.all())
			var got []string
			for _, p := range list {
				got = append(got, fmt.Sprintf("%s:%d", p.File, p.Line))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("problems at %v, want %v:\n%v", got, tt.want, list)
			}
		})
	}
}

func TestCheckNamesTheCycle(t *testing.T) {
	w := newWorld(t, map[string]string{"a.org": "me: you\nyou: us@b.org", "b.org": "us: me@a.org"})
	want := "a.org/aliases:1: mail would go in a circle: me (a.org/aliases:1) → you (a.org/aliases:2) → us (b.org/aliases:1) → me (a.org/aliases:1)"
	if list := Check(w, w.all()); len(list) != 3 || list[0].String() != want {
		t.Errorf("got\n%v\nwant\n%s", list, want)
	}
}

func TestDangling(t *testing.T) {
	w := newWorld(t, map[string]string{
		"a.org": "me: user, gone, gone@b.org, any@x.org\nfwd: *@b.org\nvia: gone via h",
		"b.org": "me: you\nyou: out@x.org",
		"c.org": "*: *@b.org", // who knows which names will come
	}, "user@a.org")
	var got []string
	for _, p := range Dangling(w, w.all()) {
		got = append(got, p.String())
	}
	want := []string{
		"a.org/aliases:1: gone@a.org leads nowhere: a.org is hosted here and has neither that alias nor a mailbox of that name",
		"a.org/aliases:1: gone@b.org leads nowhere: b.org is hosted here and has neither that alias nor a mailbox of that name",
		"a.org/aliases:2: *@b.org leads nowhere: b.org is hosted here and has neither that alias nor a mailbox of that name",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %s", strings.Join(got, "\n"))
	}
}

// Large files are checked, in every shape that is costly for a
// search: one long chain, one cycle through all, every rule back to the first, all names through
// a catch-all that keeps them.
func TestCheckLargeFiles(t *testing.T) {
	n := 5_000 / testnet.Stride(5)
	lines := func(line func(i int) string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(line(i))
			b.WriteByte('\n')
		}
		return b.String()
	}
	plain := lines(func(i int) string { return fmt.Sprintf("n%d: o%d@x.org", i, i) })
	for _, tt := range []struct {
		name  string
		files map[string]string
		wrong bool
	}{
		{"plain", map[string]string{"a.org": plain}, false},
		{"chain", map[string]string{"a.org": lines(func(i int) string { return fmt.Sprintf("n%d: n%d, o@x.org", i, i+1) }) + fmt.Sprintf("n%d: o@x.org", n)}, true},
		{"cycle", map[string]string{"a.org": lines(func(i int) string { return fmt.Sprintf("n%d: n%d", i, (i+1)%n) })}, true},
		{"back", map[string]string{"a.org": lines(func(i int) string { return fmt.Sprintf("n%d: n%d, n0", i, (i+1)%n) })}, true},
		{"self", map[string]string{"a.org": lines(func(i int) string { return fmt.Sprintf("n%d: n%d", i, i) })}, true},
		{"kept", map[string]string{"a.org": plain, "b.org": "*: *@a.org", "c.org": "*: *@b.org"}, false},
		{"kept in a circle", map[string]string{"a.org": plain + "*: *@c.org", "b.org": "*: *@a.org", "c.org": "*: *@b.org"}, true},
		{"keeping", map[string]string{"a.org": lines(func(i int) string { return fmt.Sprintf("n%d: *@b.org", i) }), "b.org": "*: *@c.org", "c.org": plain}, false},
	} {
		w := newWorld(t, tt.files)
		if list := Check(w, w.all()); (len(list) > 0) != tt.wrong || len(list) > 3*maxPerFile {
			t.Errorf("%s: %d problems", tt.name, len(list))
		}
	}
}

func BenchmarkCheckKeptNames(b *testing.B) {
	var text strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&text, "n%d: o%d@x.org\n", i, i)
	}
	w := world{tables: make(map[string]*Table)}
	for domain, s := range map[string]string{"a.org": text.String(), "b.org": "*: *@a.org"} {
		opt := example
		opt.Domain = domain
		table, err := Parse(domain, strings.NewReader(s), opt)
		if err != nil {
			b.Fatal(err)
		}
		w.tables[domain] = table
	}
	for b.Loop() {
		Check(w, w.all())
	}
}

// What Check refuses, Resolve would stumble over, and the other way round.
func TestCheckedTablesResolve(t *testing.T) {
	w := newWorld(t, map[string]string{"a.org": "*: *@b.org", "b.org": "x: y@a.org\ny: x@a.org"})
	if len(Check(w, w.all())) == 0 {
		t.Error("Check finds nothing")
	}
	if _, err := Resolve(w, address.Address{Local: "x", Domain: "a.org"}); !errors.Is(err, errLoop) {
		t.Errorf("Resolve: %v", err)
	}
}
