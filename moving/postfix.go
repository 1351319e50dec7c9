package moving

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"relayd/address"
	"relayd/aliases"
	"relayd/problem"
)

// virtual reads a table of virtual aliases.
type virtual struct {
	Plan
	file  string
	byDom map[string]*Domain
	first map[string]int // the line of each left side that has been read
	bad   problem.List
}

// PostfixVirtual reads the text from which postmap makes a table of virtual aliases: the name is
// that of the file, as main.cf may have it, with the kind of table before it. Tables of regular
// expressions and those that are asked over the net have no lines that could be aliases, and are an
// error. So is what is no table at all; a line that has no counterpart here is in the Plan's Left.
func PostfixVirtual(name string) (*Plan, error) {
	file, err := textOf(name)
	if err != nil {
		return nil, err
	}
	data, err := readFile(file)
	if err != nil {
		return nil, err
	}
	return parseVirtual(file, data)
}

// textOf is the file of a table, without its kind.
func textOf(name string) (string, error) {
	kind, file, ok := strings.Cut(name, ":")
	switch {
	case !ok || strings.Contains(kind, "/"):
		return name, nil
	case slices.Contains([]string{"hash", "btree", "lmdb", "cdb", "dbm", "texthash"}, kind):
		return file, nil
	}
	return "", fmt.Errorf("a table of the kind %s is a program of its own and no list of aliases: write the aliases by hand, with `*` for a catch-all", kind)
}

func parseVirtual(file string, data []byte) (*Plan, error) {
	v := &virtual{file: file, byDom: map[string]*Domain{}, first: map[string]int{}}
	if bytes.IndexByte(data, 0) >= 0 {
		return nil, problem.List{problem.At(file, 0, "this is no text: name the file that postmap made it from, which has no .db behind its name")}
	}
	for number, line := range logicalLines(data) {
		v.line(number, line)
	}
	if err := v.bad.Err(); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(v.byDom)) {
		v.Domains = append(v.Domains, *v.byDom[name])
	}
	return &v.Plan, nil
}

// logicalLines yields the lines of a table of Postfix's with those that continue them, and the number
// of each: one that begins with space continues the one before; blank ones and comments count
// as not being there (postmap(1)).
func logicalLines(data []byte) func(yield func(int, string) bool) {
	return func(yield func(int, string) bool) {
		start, number := 0, 0
		var line strings.Builder
		for raw := range strings.Lines(string(data)) {
			number++
			text := strings.TrimSpace(raw)
			if text == "" || text[0] == '#' {
				continue
			}
			if continued := strings.IndexByte(" \t\r\f\v", raw[0]) >= 0; !continued || start == 0 {
				if start > 0 && !yield(start, line.String()) {
					return
				}
				start = number
				line.Reset()
			} else {
				line.WriteByte(' ')
			}
			line.WriteString(text)
		}
		if start > 0 {
			yield(start, line.String())
		}
	}
}

// wrong notes what keeps the table from being moved.
func (v *virtual) wrong(line int, format string, args ...any) {
	v.bad = append(v.bad, problem.At(v.file, line, format, args...))
}

// line takes up one logical line.
func (v *virtual) line(number int, text string) {
	left, right := cutKeyAndValue(text)
	switch {
	case left[0] == '/' || left[0] == '!' || left == "if" || left == "endif":
		if len(v.bad) == 0 {
			v.wrong(number, "this is a table of regular expressions, which cannot be aliases: write the aliases by hand, with `*` for a catch-all")
		}
	case right == "":
		v.wrong(number, "%s: nothing stands behind it", left)
	case strings.Contains(left, "@"):
		v.alias(number, left, right)
	case strings.Contains(left, "."):
		v.domainLine(number, left)
	default:
		v.leave(v.file, number, "%s: a name without a domain is a user of that machine; add it to a domain with `relay-util alias-add`", left)
	}
}

// cutKeyAndValue cuts a line at its first space that is not in quotes.
func cutKeyAndValue(text string) (left, right string) {
	quoted := false
	for i := range len(text) {
		switch c := text[i]; {
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ' ' || c == '\t'):
			return text[:i], strings.TrimSpace(text[i:])
		}
	}
	return text, ""
}

// domainLine takes up a line that says that the mail of a domain is a matter of this table.
func (v *virtual) domainLine(number int, name string) {
	domain, err := address.Domain(name)
	if err != nil {
		v.wrong(number, "%v", err)
		return
	}
	v.domain(domain)
}

func (v *virtual) domain(name string) *Domain {
	if v.byDom[name] == nil {
		v.byDom[name] = &Domain{Name: name}
	}
	return v.byDom[name]
}

// alias takes up a line with an address, or with "@domain" for all others of it.
func (v *virtual) alias(number int, left, right string) {
	at := strings.LastIndexByte(left, '@')
	domain, err := address.Domain(left[at+1:])
	if err != nil {
		v.wrong(number, "%v", err)
		return
	}
	d := v.domain(domain)
	local := left[:at]
	if local == "" {
		local = "*"
	} else if local == "*" {
		local = `"*"` // to Postfix a name like any other
	}
	targets, why := v.targets(right)
	if why != "" {
		v.leave(v.file, number, "%s: %s", left, why)
		return
	}
	rule, err := aliases.NewRule(local, targets, aliases.Options{Domain: domain})
	if err != nil {
		v.wrong(number, "%v", err)
		return
	}
	rule.File, rule.Line = v.file, number
	key := rule.Left + "@" + domain
	if before, twice := v.first[key]; twice {
		v.leave(v.file, number, "%s: it stands in line %d already, which is the one that counts", left, before)
		return
	}
	v.first[key] = number
	d.Rules = append(d.Rules, rule)
}

// targets are the right side as an aliases file of ours has it, or why it cannot stand in one.
func (v *virtual) targets(right string) (list []string, why string) {
	for _, word := range splitTargets(right) {
		switch {
		case strings.HasPrefix(word, "@"):
			list = append(list, "*"+word)
		case strings.HasPrefix(word, "|") || strings.HasPrefix(word, `"|`) || strings.HasPrefix(word, "/") || strings.HasPrefix(word, ":"):
			return nil, "commands, files and lists are nothing that virtual aliases lead to"
		case !strings.Contains(word, "@"):
			return nil, word + " is a user of that machine; say where the mail goes with `relay-util alias-add`"
		default:
			list = append(list, word)
		}
	}
	if len(list) == 0 {
		return nil, "no target stands behind it"
	}
	return list, ""
}

// splitTargets cuts at commas and space that are not in quotes.
func splitTargets(s string) []string {
	quoted := false
	return strings.FieldsFunc(s, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return !quoted && (r == ',' || r == ' ' || r == '\t')
	})
}
