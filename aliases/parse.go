package aliases

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"

	"relayd/address"
	"relayd/problem"
)

// Parse reads one alias file; file is the name that problems are reported under. When anything
// is wrong it returns a problem.List with all of it, and no table. It reads at most 16 MiB.
func Parse(file string, r io.Reader, opt Options) (*Table, error) {
	p := &parser{file: file, marks: make(map[string]mark), t: &Table{
		file:  file,
		opt:   opt,
		exact: make(map[string]*Rule),
		loose: make(map[string]*Rule),
	}}
	text, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	switch {
	case err != nil:
		p.complain(0, "reading: %v", err)
	case len(text) > maxFile:
		p.complain(0, "larger than %d MiB", maxFile>>20)
	default:
		p.lines(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")))
	}
	p.index()
	p.bind()
	if err := p.problems.Err(); err != nil {
		return nil, err
	}
	return p.t, nil
}

type parser struct {
	file     string
	line     int
	t        *Table
	marks    map[string]mark // by name
	problems problem.List
}

func (p *parser) complain(line int, format string, args ...any) {
	switch {
	case len(p.problems) < maxProblems:
		p.problems = append(p.problems, problem.At(p.file, line, format, args...))
	case len(p.problems) == maxProblems:
		p.problems = append(p.problems, problem.At(p.file, 0, "more than %d problems; the rest is not listed", maxProblems))
	}
}

func (p *parser) lines(text []byte) {
	for line := range bytes.Lines(text) {
		p.line++
		line = bytes.TrimSuffix(line, []byte("\n"))
		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(line) > maxLine {
			p.complain(p.line, "a line longer than %d KiB", maxLine>>10)
			continue
		}
		s := withoutComment(string(line))
		p.mark(s, string(line[len(s):]))
		if s = strings.Trim(s, blanks); s == "" {
			continue
		}
		if len(p.t.rules) == maxRules {
			p.complain(p.line, "more than %d rules", maxRules)
			return
		}
		rule, err := p.rule(s)
		if err != nil {
			p.complain(p.line, "%v", err)
			continue
		}
		p.t.rules = append(p.t.rules, rule)
	}
}

func (p *parser) rule(s string) (Rule, error) {
	colon, closed := indexUnquoted(s, func(i int) bool { return s[i] == ':' })
	switch {
	case !closed:
		return Rule{}, fmt.Errorf("a double quote is not closed")
	case colon < 0:
		return Rule{}, fmt.Errorf("no colon: a line is NAME: TARGET, TARGET")
	}
	left, err := leftName(strings.Trim(s[:colon], blanks), p.t.opt.Domain)
	if err != nil {
		return Rule{}, err
	}
	rule := Rule{Left: left, File: p.file, Line: p.line}
	right := strings.Trim(s[colon+1:], blanks)
	if right == "" {
		return Rule{}, fmt.Errorf("%s: no target after the colon", s[:colon])
	}
	rule.Targets, err = p.targets(right)
	if err != nil {
		return Rule{}, err
	}
	if len(rule.Targets) > maxTargets {
		return Rule{}, fmt.Errorf("%s: more than %d targets", s[:colon], maxTargets)
	}
	rule.keeps = slices.ContainsFunc(rule.Targets, func(t Target) bool { return t.KeepLocal })
	return rule, nil
}

// targets reads what stands after the colon, each target once.
func (p *parser) targets(s string) ([]Target, error) {
	var targets []Target
	for word := range splitUnquoted(s, ',') {
		target, err := parseTarget(strings.Trim(word, blanks), p.t.opt)
		if err != nil {
			return nil, err
		}
		targets = append(targets, target)
	}
	if len(targets) == 1 {
		return targets, nil
	}
	seen := make(map[string]bool)
	return slices.DeleteFunc(targets, func(t Target) bool {
		id := p.identity(t)
		again := seen[id]
		seen[id] = true
		return again
	}), nil
}

// identity is the same for two targets that mean the same. Which case of a local part counts is
// for its host to say, so it is ignored in the file's own domain only.
func (p *parser) identity(t Target) string {
	if t.Address.Domain == p.t.opt.Domain {
		t.Address.Local = strings.ToLower(t.Address.Local)
	}
	return t.String()
}

// leftName reads what stands before the colon.
func leftName(s, domain string) (string, error) {
	switch {
	case s == "":
		return "", fmt.Errorf("no name before the colon")
	case s == catchAllName:
		return s, nil
	}
	if at, _ := indexUnquoted(s, func(i int) bool { return s[i] == '@' }); at >= 0 {
		return "", fmt.Errorf("%s: write only %s, without the @ and what follows; this file is for %s", s, s[:at], domain)
	}
	if strings.HasPrefix(s, catchAllName) {
		return "", fmt.Errorf("%s: * stands alone, for every name; it is no pattern", s)
	}
	a, err := parseAddress(s + "@" + domain)
	switch {
	case err != nil:
		return "", err
	case a.Local == catchAllName:
		return "", fmt.Errorf("%s: the catch-all is written without quotes", s)
	}
	return strings.ToLower(a.Local), nil
}

// parseAddress is address.Parse without the Unicode spaces that copying from a web page leaves
// behind: nobody sees them, and no mail would ever match.
func parseAddress(s string) (address.Address, error) {
	a, err := address.Parse(s)
	if err == nil && s[0] != '"' && strings.ContainsFunc(a.Local, unicode.IsSpace) {
		return address.Address{}, fmt.Errorf("%q: an invisible space in the name", s)
	}
	return a, err
}

// index fills the maps that look-ups use, and finds the names that stand twice.
func (p *parser) index() {
	t := p.t
	vague := make(map[string][]*Rule) // rules with drop characters in Left
	for i := range t.rules {
		r := &t.rules[i]
		if first := t.exact[r.Left]; first != nil {
			p.complain(r.Line, "%s stands already on line %d; put all targets on one line", quoteLeft(r.Left), first.Line)
			continue
		}
		t.exact[r.Left] = r
		if r.Left == catchAllName {
			t.catchAll = r
			continue
		}
		bare := t.withoutDrops(r.Left)
		switch {
		case t.hasSuffix(r.Left) || bare == "":
		case bare == r.Left:
			t.loose[bare] = r
		default:
			vague[bare] = append(vague[bare], r)
		}
	}
	delete(t.exact, catchAllName) // mail for the name "*" is not meant
	for bare, rules := range vague {
		if t.loose[bare] != nil {
			continue // the one without drop characters is the plainer name, and wins
		}
		t.loose[bare] = rules[0]
		for _, r := range rules[1:] {
			p.complain(r.Line, "%s is the same name as %s on line %d, because %q in a name is ignored",
				quoteName(r.Left), quoteName(rules[0].Left), rules[0].Line, t.opt.DropCharacters)
		}
	}
	slices.SortStableFunc(p.problems, func(a, b problem.Problem) int { return a.Line - b.Line })
}

func quoteLeft(left string) string {
	if left == catchAllName {
		return left
	}
	return quoteName(left)
}
