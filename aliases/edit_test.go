package aliases

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// strict has no drop characters: a removal may then never bring two names into conflict.
var strict = Options{Domain: "example.org", SuffixSeparators: "+"}

func rule(t *testing.T, left string, targets ...string) Rule {
	t.Helper()
	r, err := NewRule(left, targets, strict)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAddChangesNothingElse(t *testing.T) {
	tests := []struct{ name, from, to string }{
		{"to nothing", "", "Bob: R\n"},
		{"after a line without end", "#x", "#x\nBob: R\n"},
		{"with the line ends of the file", "# x\r\n\r\n", "# x\r\n\r\nBob: R\r\n"},
		{"after half a line end", "a: b\r\nc: d\r", "a: b\r\nc: d\r\nBob: R\r\n"},
		{"to a byte order mark", "\ufeff", "\ufeffBob: R\n"},
		{"behind what is no rule", "nonsense\n\xff: \"\n", "nonsense\n\xff: \"\nBob: R\n"},
		{"beside a comment", "#bob: x\n  # bob: x\n", "#bob: x\n  # bob: x\nBob: R\n"},
		{"beside a name that is alike", "bob+x: x\nb.ob: x\n", "bob+x: x\nb.ob: x\nBob: R\n"},
	}
	r := rule(t, "Bob", "me@x.org", "you")
	line := strings.NewReplacer("Bob: R", "bob: me@x.org, you@example.org")
	for _, tt := range tests {
		got, err := Add([]byte(tt.from), r)
		if err != nil || string(got) != line.Replace(tt.to) {
			t.Errorf("%s: %q became %q, %v", tt.name, tt.from, got, err)
		}
	}
}

func TestRemoveChangesNothingElse(t *testing.T) {
	tests := []struct{ name, left, from, to string }{
		{"in the middle", "bob", "a: b\nbob: x\nc: d\n", "a: b\nc: d\n"},
		{"the last, without end", "bob", "a: b\r\nbob: x", "a: b\r\n"},
		{"in any case", "bOb", "BoB: x # why\n# end\n", "# end\n"},
		{"the catch-all", "*", "*x\n *\t: x\n", "*x\n"},
		{"behind a byte order mark", "bob", "\ufeffbob: x\na: b\n", "\ufeffa: b\n"},
		{"in quotes", `"b ob"`, "\"b ob\": x\nb: c\n", "b: c\n"},
		{"in quotes that are not needed", `"bob"`, "bob: x\n", ""},
		{"with a target that is wrong", "bob", "bob: \"\nbo\"b: x\n", "bo\"b: x\n"},
	}
	for _, tt := range tests {
		got, err := Remove([]byte(tt.from), tt.left)
		if err != nil || string(got) != tt.to {
			t.Errorf("%s: %q became %q, %v", tt.name, tt.from, got, err)
		}
	}
}

func TestEditsThatAreRefused(t *testing.T) {
	r := rule(t, "bob", "x@y.org")
	if _, err := Add([]byte("# first\nBOB: z\n"), r); !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("adding a name that stands there: %v", err)
	}
	for _, text := range []string{"", "#bob: x\n", "bobby: x\n", "bob\n", "a: b\n\"bob: x\n"} {
		if _, err := Remove([]byte(text), "bob"); !errors.Is(err, ErrNoRule) {
			t.Errorf("removing bob from %q: %v", text, err)
		}
	}
	twice := []byte("bob: a\nBob: b\n")
	if _, err := Remove(twice, "bob"); err == nil || errors.Is(err, ErrNoRule) {
		t.Errorf("removing one of two: %v", err)
	}
	if _, err := Add(twice, r); err == nil || errors.Is(err, ErrExists) {
		t.Errorf("adding to two: %v", err)
	}
	if _, err := Remove([]byte("bob: a\n\ufeffb: c\n"), "bob"); err == nil {
		t.Error("a removal changed the name of the next line")
	}
	if _, err := Remove(nil, "bob@example.org"); err == nil || errors.Is(err, ErrNoRule) {
		t.Errorf("a name with its domain: %v", err)
	}
}

func TestNewRuleLetsNothingIntoTheFileThatParseRefuses(t *testing.T) {
	good := []struct {
		left    string
		targets []string
		want    string
	}{
		{"Shop", []string{"Me@X.org"}, "shop: Me@x.org"},
		{"*", []string{"a", "b@x.org, c@x.org"}, "*: a@example.org, b@x.org, c@x.org"},
		{`"two words"`, []string{"a@x.org via mx.x.org:26"}, `"two words": a@x.org via mx.x.org:26`},
		{"a", []string{"b@x.org", "b@x.org"}, "a: b@x.org"},
		{"a", []string{"#b@x.org"}, `a: "#b"@x.org`},
	}
	for _, tt := range good {
		r, err := NewRule(tt.left, tt.targets, strict)
		if err != nil || r.String() != tt.want {
			t.Errorf("NewRule(%q, %q) = %q, %v", tt.left, tt.targets, r, err)
		}
	}
	bad := []struct {
		left    string
		targets []string
	}{
		{"", []string{"b"}}, {"a", nil}, {"a", []string{""}}, {"a", []string{"b", ""}},
		{"a@x.org", []string{"b"}}, {"a: b@x.org\nc", []string{"d"}}, {"a:b", []string{"c"}}, {"#a b", []string{"c"}},
		{"a", []string{"b@x.org\nc: d"}}, {"a", []string{`"b@x.org`}}, {"a", []string{"|rm"}}, {"*a", []string{"b"}}, {"\ufeffa", []string{"b"}}, {`"*"`, []string{"b"}},
	}
	for _, tt := range bad {
		if r, err := NewRule(tt.left, tt.targets, strict); err == nil {
			t.Errorf("NewRule(%q, %q) = %q", tt.left, tt.targets, r)
		}
	}
}

// texts are rules without the places where they stand.
func texts(t *testing.T, data []byte) []string {
	t.Helper()
	table, err := Parse("f", bytes.NewReader(data), strict)
	if err != nil {
		t.Fatalf("%q: %v", data, err)
	}
	var list []string
	for _, r := range table.Rules() {
		list = append(list, r.String())
	}
	return list
}

// marks reports whether a line makes the rule for name temporary.
func marks(line []byte, name string) bool {
	text, ok := cutMark(string(trimEnd(line)))
	m, err := parseMark(text, anyDomain)
	return ok && err == nil && m.name == name
}

// FuzzEdit makes edits of any file that parses: the rules are then those before and the new one,
// or those before without one, and no other line is different by a byte.
func FuzzEdit(f *testing.F) {
	files, err := filepath.Glob("testdata/*.aliases")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, "new", "a@x.org")
	}
	f.Add([]byte("\ufeffa: b\r\n\r\n*: c # x"), `"n w"`, "b, *@x.org via h")
	f.Add([]byte("a: b\r"), "*", "#")
	f.Add([]byte("# relayd: a expires 2020-01-01\na: b\n#relayd: c expires 2020-01-01, x\n"), "c", "d")
	f.Fuzz(func(t *testing.T, data []byte, left, targets string) {
		table, err := Parse("f", bytes.NewReader(data), strict)
		if err != nil {
			Remove(data, left)
			return
		}
		before := texts(t, data)
		for i, r := range table.Rules()[:min(20, len(before))] {
			got, err := Remove(data, quoteLeft(r.Left))
			if err != nil && bytes.Contains(data, []byte("\n\ufeff")) {
				continue
			}
			if err != nil {
				t.Fatalf("removing %q from %q: %v", r.Left, data, err)
			}
			if want := slices.Delete(slices.Clone(before), i, i+1); !slices.Equal(texts(t, got), want) {
				t.Fatalf("removing %q from %q gave %q", r.Left, data, got)
			}
			lines := slices.Collect(bytes.Lines(bytes.TrimPrefix(data, byteOrderMark)))
			lines = slices.Delete(lines, r.Line-1, r.Line)
			lines = slices.DeleteFunc(lines, func(line []byte) bool { return marks(line, r.Left) })
			if want := bytes.Join(lines, nil); !bytes.Equal(bytes.TrimPrefix(got, byteOrderMark), want) {
				t.Fatalf("removing %q from %q gave %q", r.Left, data, got)
			}
		}
		r, err := NewRule(left, []string{targets}, strict)
		if err != nil || len(r.String()) > maxLine {
			return
		}
		got, err := Add(data, r)
		if errors.Is(err, ErrExists) && slices.ContainsFunc(table.Rules(), func(o Rule) bool { return o.Left == r.Left }) {
			return
		}
		left = r.Left
		for line := range bytes.Lines(data) {
			if marks(line, left) {
				data = nil // what was left behind is taken out
			}
		}
		if err != nil || !bytes.HasPrefix(got, data) {
			t.Fatalf("adding %q to %q gave %q, %v", r, data, got, err)
		}
		if len(got) <= maxFile && !slices.Equal(texts(t, got), append(before, r.String())) {
			t.Fatalf("adding %q to %q gave %q", r, data, got)
		}
	})
}
