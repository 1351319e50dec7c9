package config

import (
	"encoding"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// exampleKey matches a line of an example file that shows a key, commented out or not.
var exampleKey = regexp.MustCompile(`^#?([a-z0-9_]+) = `)

func readExample(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile("../etc/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// uncommented takes the # away from the keys of an example.
func uncommented(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if exampleKey.MatchString(line) {
			lines[i] = strings.TrimPrefix(line, "#")
		}
	}
	return strings.Join(lines, "\n")
}

// explained lists the keys of an example in their order, and complains about those without a
// comment right above.
func explained(t *testing.T, text string) []string {
	t.Helper()
	var names []string
	table, above := "", ""
	for line := range strings.SplitSeq(text, "\n") {
		if strings.HasPrefix(line, "[") {
			table = strings.Trim(line, "[]") + "."
		}
		if key := exampleKey.FindStringSubmatch(line); key != nil {
			names = append(names, table+key[1])
			if !strings.HasPrefix(above, "# ") {
				t.Errorf("%s%s is not explained", table, key[1])
			}
		}
		above = line
	}
	return names
}

func TestExampleOfRelayd(t *testing.T) {
	text := readExample(t, "relayd.toml")
	checkExample(t, text, Default().settings())

	want := Default()
	want.file, want.Hostname = "f", "mx.example.com"
	for _, text := range []string{text, uncommented(text)} {
		if c, err := Parse("f", []byte(text)); err != nil || !reflect.DeepEqual(c, want) {
			t.Errorf("got  %+v %v\nwant %+v", c, err, want)
		}
	}
	if set := regexp.MustCompile(`(?m)^[a-z0-9_]+ =.*`).FindAllString(text, -1); !reflect.DeepEqual(set, []string{`hostname = "mx.example.com"`}) {
		t.Errorf("keys that are not commented out: %q", set)
	}
}

func TestExampleOfDomain(t *testing.T) {
	text := readExample(t, "domain.toml")
	checkExample(t, text, DefaultDomain().settings())
	for _, text := range []string{text, uncommented(text)} {
		if d, err := ParseDomain("f", []byte(text)); err != nil || !reflect.DeepEqual(d, DefaultDomain()) {
			t.Errorf("got %+v %v", d, err)
		}
	}
}

// checkExample compares the keys of an example, in their order, with those of the code.
func checkExample(t *testing.T, text string, settings []setting) {
	t.Helper()
	var names []string
	for _, s := range settings {
		names = append(names, s.name)
	}
	if got := explained(t, text); !reflect.DeepEqual(got, names) {
		t.Errorf("the example has\n%q, the code\n%q", got, names)
	}
}

// TestEveryFieldHasAKey finds fields that nobody could ever set.
func TestEveryFieldHasAKey(t *testing.T) {
	c, d := Default(), DefaultDomain()
	known := map[any]bool{}
	for _, s := range append(c.settings(), d.settings()...) {
		known[s.dest] = true
	}
	for _, root := range []any{c, d} {
		eachField(reflect.ValueOf(root).Elem(), "", func(name string, field any) {
			if !known[field] {
				t.Errorf("no key for %T%s", root, name)
			}
		})
	}
}

// eachField calls f with a pointer to each exported field that is not a group of others.
func eachField(v reflect.Value, name string, f func(name string, field any)) {
	if _, isText := v.Addr().Interface().(encoding.TextUnmarshaler); v.Kind() != reflect.Struct || isText {
		f(name, v.Addr().Interface())
		return
	}
	for i := range v.NumField() {
		if field := v.Type().Field(i); field.IsExported() {
			eachField(v.Field(i), name+"."+field.Name, f)
		}
	}
}
