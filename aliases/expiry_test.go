package aliases

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"relayd/address"
	"relayd/problem"
)

func TestParseExpiry(t *testing.T) {
	for _, tt := range []struct{ text, want, again string }{
		{"2026-12-31", "2027-01-01T00:00:00Z", "2026-12-31"},
		{"2026-12-31T18:00:00Z", "2026-12-31T18:00:00Z", "2026-12-31T18:00:00Z"},
		{"2026-12-31T18:00:00.9+02:00", "2026-12-31T16:00:00Z", "2026-12-31T16:00:00Z"},
		{"2027-01-01T00:00:00Z", "2027-01-01T00:00:00Z", "2026-12-31"},
		{"2026-02-30", "", ""},
		{"1999-12-30", "", ""},
		{"2999-12-31", "", ""},
		{"tomorrow", "", ""},
		{"", "", ""},
	} {
		at, err := ParseExpiry(tt.text)
		if err != nil {
			if tt.want != "" {
				t.Errorf("%s: %v", tt.text, err)
			}
			continue
		}
		if got := at.Format(time.RFC3339); got != tt.want || formatExpiry(at) != tt.again {
			t.Errorf("%s: %s, written %s", tt.text, got, formatExpiry(at))
		}
	}
}

// clocked are the options of example.org at a moment that a test moves.
func clocked(now *time.Time) Options {
	opt := example
	opt.Now = func() time.Time { return *now }
	return opt
}

const temporaryFile = `#relayd: shop7 expires 2026-12-22T10:30:00Z, the "shop", on 7th street
shop7: me
me: you@gmail.com
only: shop7
both: shop7, me
own: you@gmail.com
*: all@gmail.com
  # relayd:   Own   expires 2026-12-31
# relayd is good
`

func TestTemporaryRules(t *testing.T) {
	now := time.Date(2026, 12, 22, 10, 29, 59, 0, time.UTC)
	table := mustParse(t, temporaryFile, clocked(&now))
	w := world{map[string]*Table{"example.org": table}, map[string]bool{"own@example.org": true}}
	if r, _ := table.Rule("shop7"); r.Note != `the "shop", on 7th street` || r.Line != 2 {
		t.Errorf("%+v", r)
	}
	check := func(when string, want map[string]string) {
		t.Helper()
		for local, targets := range want {
			got, err := resolve(w, local+"@example.org")
			if got != targets || (targets == "") != errors.Is(err, ErrNoSuchAddress) {
				t.Errorf("%s: %s: %q, %v, want %q", when, local, got, err, targets)
			}
		}
	}
	check("before", map[string]string{"shop7": "you@gmail.com", "s.hop7+x": "you@gmail.com", "only": "you@gmail.com", "own": "you@gmail.com"})
	now = now.Add(time.Second)
	check("from the first moment on", map[string]string{"shop7": "", "s.hop7+x": "", "only": "", "both": "you@gmail.com", "shop8": "all@gmail.com", "own": "you@gmail.com"})
	now = time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	check("neither catch-all nor mailbox takes it", map[string]string{"own": "", "own+x": "", "other": "all@gmail.com"})

	_, err := Resolve(w, address.Address{Local: "s.hop7", Domain: "example.org"})
	if expired, ok := errors.AsType[*ExpiredError](err); !ok || expired.Rule.Line != 2 {
		t.Errorf("%v", err)
	}
	warnings := Dangling(w, w.all())
	if len(warnings) != 2 || warnings[0].Line != 4 || !strings.Contains(warnings[1].Reason, "shop7 has expired") {
		t.Errorf("%v", warnings)
	}
}

func TestTemporaryCatchAll(t *testing.T) {
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	w := world{tables: map[string]*Table{"example.org": mustParse(t, "# relayd: * expires 2026-05-31\n*: me@x.org\n", clocked(&now))}}
	if got, err := resolve(w, "any@example.org"); got != "" || !errors.Is(err, ErrNoSuchAddress) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestMarksThatAreWrong(t *testing.T) {
	for _, tt := range []struct{ text, says string }{
		{"a: b\n# relayd: a expire 2026-12-31", "f:2: a comment that begins with relayd:"},
		{"a: b\n# relayd:", "f:2: a comment that begins with relayd:"},
		{"# relayd: a expires soon\na: b", `f:1: "soon" is neither a date`},
		{"# relayd: a@x.org expires 2026-12-31\na: b", "f:1: a@x.org: write only a"},
		{"# relayd: a expires 2026-12-31, \x1b[2J\na: b", "f:1: \"\\x1b[2J\": a control character"},
		{"# relayd: a expires 2026-12-31\n# relayd: A expires 2026-12-30\na: b", "f:2: when a expires stands already on line 1"},
		{"a: b # relayd: a expires 2026-12-31", "f:1: a comment that begins with relayd: stands on a line of its own"},
	} {
		_, err := Parse("f", strings.NewReader(tt.text), example)
		list, _ := errors.AsType[problem.List](err)
		if len(list) != 1 || !strings.HasPrefix(list[0].String(), tt.says) {
			t.Errorf("%q: %v", tt.text, err)
		}
	}
}

// A rule that gets another name by hand would otherwise never expire, and nobody would know.
func TestMarkWithoutRule(t *testing.T) {
	table := mustParse(t, "# relayd: a expires 2026-12-31\nb: c@x.org\n", example)
	warnings := Dangling(oneDomain{table}, []*Table{table})
	if len(warnings) != 1 || warnings[0].File != "example.org/aliases" || warnings[0].Line != 1 {
		t.Errorf("%v", warnings)
	}
}

func TestEditsOfTemporaryRules(t *testing.T) {
	at := time.Date(2026, 12, 22, 10, 30, 0, 0, time.UTC)
	r, err := rule(t, "Bob", "me@x.org").Temporary(at, " for a week ")
	if err != nil {
		t.Fatal(err)
	}
	const lines = "# relayd: bob expires 2026-12-22T10:30:00Z, for a week\r\nbob: me@x.org\r\n"
	got, err := Add([]byte("a: b\r\n"), r)
	if err != nil || string(got) != "a: b\r\n"+lines {
		t.Errorf("%q, %v", got, err)
	}
	got, err = Remove([]byte(lines+"# x\r\na: b"), "BOB")
	if err != nil || string(got) != "# x\r\na: b" {
		t.Errorf("%q, %v", got, err)
	}
	got, err = Add([]byte("# relayd: bob expires 2020-01-01\na: b\n"), rule(t, "bob", "me@x.org"))
	if err != nil || string(got) != "a: b\nbob: me@x.org\n" {
		t.Errorf("a mark that was left behind: %q, %v", got, err)
	}
	for _, note := range []string{"two\nlines", strings.Repeat("x", maxNote+1), "\xff"} {
		if _, err := r.Temporary(at, note); err == nil {
			t.Errorf("note %q", note)
		}
	}
	if _, err := r.Temporary(at.AddDate(2000, 0, 0), ""); err == nil {
		t.Error("the year 4026")
	}
}

// FuzzMark reads any bytes as what stands behind the word of a mark, and what is right again.
func FuzzMark(f *testing.F) {
	for _, seed := range []string{" shop7 expires 2026-12-22T10:30:00Z, the shop", ` "a, b" expires 2026-12-31,,`, " * expires 2026-12-31", "", " a expires"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := parseMark(text, example.Domain)
		if err != nil || len(m.note) > maxNote {
			return
		}
		r, err := Rule{Left: m.name, Targets: []Target{{Address: address.Address{Local: "a", Domain: "x.org"}}}}.Temporary(m.expires, m.note)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		data, err := Add([]byte("\n"), r)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		table, err := Parse("f", bytes.NewReader(data), example)
		if err != nil {
			t.Fatalf("%q is written as %q: %v", text, data, err)
		}
		if again, ok := table.Rule(m.name); !ok || !again.Expires.Equal(m.expires) || again.Note != m.note {
			t.Fatalf("%q is written as %q and read as %+v", text, data, again)
		}
	})
}
