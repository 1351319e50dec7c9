package config

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/BurntSushi/toml"

	"relayd/problem"
)

// A setting is one key of a file.
type setting struct {
	name  string           // dotted: "limits.message_size"
	dest  any              // pointer to where the value goes; the default stands there before
	check func(complaints) // judges, and brings into normal form, what was read; may be nil
}

// A schema is what a file may have in it.
type schema struct {
	settings  []setting
	other     []setting // of the other file, for those who mix the two up
	otherFile string
}

// A document is one file on its way to a checked value.
type document struct {
	schema
	file     string
	whole    bool // it is TOML, and was read to its end
	lines    lines
	given    map[string]bool // settings in the file: true when nothing is wrong with them
	problems problem.List
}

// complaints collects what is wrong with one key.
type complaints struct {
	doc *document
	key toml.Key
}

func (c complaints) add(format string, args ...any) {
	c.doc.complain(c.key, "%s: %s", c.key, fmt.Sprintf(format, args...))
}

// under is for a key inside the table that c is about.
func (c complaints) under(name string) complaints {
	return complaints{c.doc, append(slices.Clone(c.key), name)}
}

// complaints collects what is wrong with a setting.
func (d *document) complaints(name string) complaints {
	return complaints{d, strings.Split(name, ".")}
}

func (d *document) complain(key toml.Key, format string, args ...any) {
	d.complainAt(d.lines.of(key), format, args...)
}

func (d *document) complainAt(line int, format string, args ...any) {
	d.problems = append(d.problems, problem.At(d.file, line, format, args...))
}

// sound reports whether the setting is in the file and nothing is wrong with it.
func (d *document) sound(name string) bool { return d.given[name] }

// broken reports whether the setting is in the file and something is wrong with it.
func (d *document) broken(name string) bool {
	sound, given := d.given[name]
	return given && !sound
}

// err is all problems in the order of their lines, or nil.
func (d *document) err() error {
	slices.SortStableFunc(d.problems, func(a, b problem.Problem) int { return a.Line - b.Line })
	return d.problems.Err()
}

// read takes apart the text of a file and fills in the settings of s.
func read(file string, data []byte, s schema) *document {
	d := &document{schema: s, file: file, given: map[string]bool{}}
	if len(data) > MaxFile {
		d.complain(nil, "the file is larger than %v", Size(MaxFile))
		return d
	}
	if !utf8.Valid(data) {
		valid := bytes.ToValidUTF8(data, nil)
		first := 0
		for first < len(valid) && valid[first] == data[first] {
			first++
		}
		d.problems = problem.List{problem.At(file, 1+bytes.Count(data[:first], []byte("\n")),
			"the file is not UTF-8 from here on: save it as UTF-8")}
		return d
	}
	var values map[string]any
	if _, err := toml.Decode(string(data), &values); err != nil {
		d.problems = problem.List{syntaxProblem(file, err)}
		return d
	}
	d.whole = true
	d.lines = locate(string(data))
	d.table(nil, values)
	return d
}

// syntaxProblem says where and why a text is not TOML.
func syntaxProblem(file string, err error) problem.Problem {
	pe, ok := errors.AsType[toml.ParseError](err)
	if !ok {
		return problem.At(file, 0, "not TOML: %q", err.Error())
	}
	line := pe.Position.Line
	if strings.Contains(pe.Message, `'\n'`) {
		line-- // the library counts the line end itself to the next line
	}
	message := strings.TrimSuffix(strings.Join(strings.Fields(pe.Message), " "), ".")
	switch {
	case strings.HasPrefix(message, "expected value but"): // it would quote what could be a token
		message = `no value after "=": text, sizes and times stand in double quotes`
	case strings.Contains(message, "to end with a newline"):
		message = "the line goes on after its value: text, sizes and times stand in double quotes, and each key has its own line"
	}
	return problem.At(file, max(line, 1), "not TOML: %s", message)
}

// table reads the keys of the table at prefix.
func (d *document) table(prefix toml.Key, values map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		key := append(slices.Clone(prefix), name)
		value := values[name]
		sub, isTable := value.(map[string]any)
		if i := slices.IndexFunc(d.settings, func(s setting) bool { return s.name == key.String() }); i >= 0 {
			d.set(d.settings[i], key, value)
			continue
		}
		switch known := d.knownTable(key.String()); {
		case known && isTable:
			d.table(key, sub)
		case known:
			d.complain(key, "%s: is a table: write [%s] on a line of its own and its keys below", key, key)
		default:
			d.unknown(key, isTable)
		}
	}
}

// knownTable reports whether settings stand in the table of that name.
func (d *document) knownTable(name string) bool {
	return slices.ContainsFunc(d.settings, func(s setting) bool { return strings.HasPrefix(s.name, name+".") })
}

func (d *document) set(s setting, key toml.Key, value any) {
	before := len(d.problems)
	bad := complaints{d, key}
	if assign(s.dest, value, bad) && s.check != nil {
		s.check(bad)
	}
	d.given[s.name] = len(d.problems) == before
}

// assign stores value where dest points to. It reports whether the value has the type of dest,
// and complains when it has not.
func assign(dest, value any, bad complaints) bool {
	switch p := dest.(type) {
	case *string:
		return assignPlain(p, value, "text in double quotes", bad)
	case *bool:
		return assignPlain(p, value, "true or false, without quotes", bad)
	case *int:
		var n int64
		ok := assignPlain(&n, value, "a whole number without quotes", bad)
		*p = int(n)
		return ok
	case *[]string:
		return assignList(p, value, bad)
	case *map[string]string:
		return assignTable(p, value, bad)
	case *map[string][]string:
		return assignTable(p, value, bad)
	case *map[string]int:
		return assignTable(p, value, bad)
	case *Trust:
		return assignTrust(p, value, bad)
	case *map[string]Way:
		return assignWays(p, value, bad)
	case *netip.Addr:
		return assignIP(p, value, bad)
	case encoding.TextUnmarshaler:
		return assignText(p, value, bad)
	}
	panic(fmt.Sprintf("a setting cannot be a %T", dest))
}

func assignPlain[T any](p *T, value any, want string, bad complaints) bool {
	v, ok := value.(T)
	if !ok {
		bad.add("must be %s, not %s", want, kind(value))
		return false
	}
	*p = v
	return true
}

func assignText(p encoding.TextUnmarshaler, value any, bad complaints) bool {
	text, ok := value.(string)
	if n, isInt := value.(int64); isInt {
		switch p.(type) {
		case *Size:
			text, ok = fmt.Sprint(n), true
		case *Duration:
			bad.add(`needs a unit: write a duration like "25s" or "120h" in double quotes`)
			return false
		}
	}
	if !ok {
		bad.add("must be text in double quotes, not %s", kind(value))
		return false
	}
	if err := p.UnmarshalText([]byte(text)); err != nil {
		bad.add("%v", err)
		return false
	}
	return true
}

// assignIP leaves the zero address for "".
func assignIP(p *netip.Addr, value any, bad complaints) bool {
	var text string
	if !assignPlain(&text, value, "text in double quotes", bad) || text == "" {
		return text == ""
	}
	ip, err := netip.ParseAddr(text)
	if err != nil {
		bad.add(`%q is not an IP address`, text)
		return false
	}
	*p = ip
	return true
}

func assignList(p *[]string, value any, bad complaints) bool {
	items, ok := value.([]any)
	if !ok {
		bad.add(`must be a list like ["a", "b"], not %s`, kind(value))
		return false
	}
	list := make([]string, len(items))
	for i, item := range items {
		if list[i], ok = item.(string); !ok {
			bad.add("must be a list of texts in double quotes, but item %d is %s", i+1, kind(item))
			return false
		}
	}
	*p = list
	return true
}

// assignTable fills a table with keys of any name.
func assignTable[T string | []string | int](p *map[string]T, value any, bad complaints) bool {
	table, ok := value.(map[string]any)
	if !ok {
		bad.add("must be a table, not %s", kind(value))
		return false
	}
	all := true
	*p = make(map[string]T, len(table))
	for name, item := range table {
		var v T
		if _, dotted := item.(map[string]any); dotted {
			bad.under(name).add("is a table: a name with a dot in it must stand in double quotes")
			all = false
		} else if assign(&v, item, bad.under(name)) {
			(*p)[name] = v
		} else {
			all = false
		}
	}
	return all
}

// kind names the type of a TOML value.
func kind(value any) string {
	switch value.(type) {
	case string:
		return "text"
	case int64:
		return "a number"
	case float64:
		return "a number with a fraction"
	case bool:
		return "true or false"
	case time.Time:
		return "a date or time"
	case map[string]any:
		return "a table"
	case []map[string]any:
		return "a list of tables"
	}
	return "a list"
}
