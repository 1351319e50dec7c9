package config

import (
	"errors"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
)

func TestLocate(t *testing.T) {
	text := "\ufeff# a = 1\r\n" + `a = 1 # b = 2
"b.c" . 'd' = "]\"#\n"
list = [ # ]
  "]", '[',
  [1, 2]]
text = """
x = 1 ""\"
y = 2"""""
raw = '''
z = 1'''
[ table . "in side" ]
key = { x = 1, y = ["}"] }
[[array]]
key = 1
[[array]]
other = 1
dotted.key = 1979-05-27T07:32:00Z
`
	want := map[string]int{
		"a": 2, `"b.c"`: 3, `"b.c".d`: 3, "list": 4, "text": 7, "raw": 10, "table": 12, `table."in side"`: 12,
		`table."in side".key`: 13, "array": 14, "array.key": 15, "array.other": 17, "array.dotted": 18, "array.dotted.key": 18,
	}
	var values map[string]any
	if _, err := toml.Decode(text, &values); err != nil {
		t.Fatal(err)
	}
	got := locate(text)
	for key, line := range want {
		if got[key] != line {
			t.Errorf("%s is in line %d, not %d", key, line, got[key])
		}
	}
	if len(got) != len(want) {
		t.Errorf("got %v", got)
	}
	if n := got.of(toml.Key{"table", "in side", "key", "x"}); n != 13 {
		t.Errorf("a key of an inline table is in line 13, not %d", n)
	}
	if n := got.of(toml.Key{"nowhere"}); n != 0 {
		t.Errorf("a key that is not there is in line %d", n)
	}
}

// tattler makes the toml package tell the position of the key that is decoded into it.
type tattler struct{}

func (tattler) UnmarshalTOML(any) error { return errors.New("here") }

// FuzzLocate compares the lines of the keys at the top of any valid text with what the toml
// package says. It says where values begin, which is on the same line; a text of several lines is
// the exception, and so are the tables above a dotted key, of which it knows nothing.
func FuzzLocate(f *testing.F) {
	for _, text := range []string{
		"a = 1\n\n'b' = [\n1,\n2\n]\nc = {x = 1}\n", "\"a\\u0062\" = 1\nd = '#'\n[t.u]\nx = 1\n[[v]]\n[[v]]\n", "a = \"\"\"\n\\\"\"\"\"\"\"\nb = 1\n",
		"\ufeff\r\na.b.c = '''\n'''''\n[x]\n", "[[a]]\nb = \"\\\\\"\n[a.c]\n",
		"[[a]]\n\"\" = 0 ",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var top map[string]toml.Primitive
		md, err := toml.Decode(text, &top)
		if err != nil {
			return
		}
		var values map[string]any
		if _, err := toml.Decode(text, &values); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		found := locate(text)
		for _, key := range md.Keys() {
			if found.of(key) == 0 {
				t.Errorf("%q: no line for %s", text, key)
			}
		}
		if strings.Contains(text, `"""`) || strings.Contains(text, `'''`) || strings.Contains(text, `\`) {
			return
		}
		for name, p := range top {
			pe, ok := errors.AsType[toml.ParseError](md.PrimitiveDecode(p, &tattler{}))
			if ok && pe.Position.Line > 0 && !isTable(values[name]) && found[toml.Key{name}.String()] != pe.Position.Line {
				t.Errorf("%q: %s is in line %d, not %d", text, name, pe.Position.Line, found[toml.Key{name}.String()])
			}
		}
	})
}

func isTable(value any) bool {
	switch value.(type) {
	case map[string]any, []map[string]any:
		return true
	}
	return false
}

func TestLine(t *testing.T) {
	text := []byte("hostname = \"mx.example.com\"\n[forward]\n\nsrs_domain = \"x.example\"\n[a]\nb = { c = 1 }\n")
	for _, c := range []struct {
		key  []string
		want int
	}{{[]string{"hostname"}, 1}, {[]string{"forward", "srs_domain"}, 4}, {[]string{"forward", "x"}, 2}, {[]string{"a", "b", "c"}, 6}, {[]string{"nothing"}, 0}} {
		if got := Line(text, c.key...); got != c.want {
			t.Errorf("%q stands in line %d, want %d", c.key, got, c.want)
		}
	}
}
