package aliases

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
)

// Why an edit is not made.
var (
	// ErrExists is returned by Add for a name that has a rule.
	ErrExists = errors.New("has a rule already")
	// ErrNoRule is returned by Remove for a name that has none.
	ErrNoRule = errors.New("has no rule")
)

// NewRule makes a rule from its parts as they stand in a file: left before the colon, targets
// behind it, with or without commas in them. Its File and Line are empty.
func NewRule(left string, targets []string, opt Options) (Rule, error) {
	name, err := leftName(strings.Trim(left, blanks), opt.Domain)
	if err != nil {
		return Rule{}, err
	}
	if strings.HasPrefix(name, string(byteOrderMark)) {
		return Rule{}, fmt.Errorf("%q begins with an invisible byte order mark", name)
	}
	p := &parser{t: &Table{opt: opt}}
	return p.rule(quoteLeft(name) + ": " + strings.Join(targets, ", "))
}

// The edits below take the text of an alias file and return a new one, in which the line of one rule
// and the comment that makes it temporary are more or less and every other byte is the same:
// comments, order and line ends are a person's. They need the rest of the file to be neither right nor read, so the result is to be parsed, and
// judged by Check, before it is written.

// Add puts r at the end, with the line ends that the file has. When a rule of that name expired is
// taken out, where it was left behind: the new one may not expire, or later. It returns ErrExists if r.Left has
// a rule, since two are an error.
func Add(data []byte, r Rule) ([]byte, error) {
	found, err := findRule(data, r.Left)
	if err == nil {
		return nil, fmt.Errorf("%s %w, in line %d", quoteLeft(r.Left), ErrExists, found.number)
	}
	if !errors.Is(err, ErrNoRule) {
		return nil, err
	}
	end := "\n"
	if i := bytes.IndexByte(data, '\n'); i > 0 && data[i-1] == '\r' {
		end = "\r\n"
	}
	out, err := withoutMarks(data, r.Left)
	if err != nil {
		return nil, err
	}
	switch text := bytes.TrimPrefix(out, byteOrderMark); {
	case len(text) == 0 || bytes.HasSuffix(text, []byte("\n")):
	case bytes.HasSuffix(text, []byte("\r")):
		out = append(out, '\n')
	default:
		out = append(out, end...)
	}
	if !r.Expires.IsZero() {
		out = append(append(out, r.mark()...), end...)
	}
	return append(append(out, r.String()...), end...), nil
}

// Remove takes out the line of the rule for left, which is written as in a file: in any case, and
// in double quotes where it needs them; and with it the comment that makes it temporary. It returns ErrNoRule if there is none, and another error
// if there are two: with one of them gone the name would look removed and not be.
func Remove(data []byte, left string) ([]byte, error) {
	name, err := leftName(strings.Trim(left, blanks), anyDomain)
	if err != nil {
		return nil, err
	}
	found, err := findRule(data, name)
	if err != nil {
		return nil, err
	}
	out, err := without(data, found)
	if err != nil {
		return nil, err
	}
	return withoutMarks(out, name)
}

// without takes a line out.
func without(data []byte, l span) ([]byte, error) {
	if rest := data[l.end:]; l.start == 0 && bytes.HasPrefix(rest, byteOrderMark) {
		// At the start of the file the mark would no longer belong to the name behind it.
		return nil, fmt.Errorf("line %d begins with an invisible byte order mark: take that out first", l.number+1)
	}
	return slices.Concat(data[:l.start], data[l.end:]), nil
}

// withoutMarks takes out the comments by which the rule for name is temporary.
func withoutMarks(data []byte, name string) ([]byte, error) {
	out := slices.Clone(data)
	var marks []span
	for l, line := range spans(data) {
		text, ok := cutMark(string(trimEnd(line)))
		if m, err := parseMark(text, anyDomain); ok && err == nil && m.name == name {
			marks = append(marks, l)
		}
	}
	for _, l := range slices.Backward(marks) {
		var err error
		if out, err = without(out, l); err != nil {
			return nil, err
		}
	}
	return out, nil
}

var byteOrderMark = []byte("\xef\xbb\xbf")

// anyDomain stands for the domain of a file where only the name before the colon matters.
const anyDomain = "x"

// A span is where a line stands in a file.
type span struct {
	number     int // from 1
	start, end int // offsets in bytes, the line end included
}

// spans yields the lines of a file, line ends included, and where they stand. A byte order mark at
// the start belongs to none.
func spans(data []byte) iter.Seq2[span, []byte] {
	return func(yield func(span, []byte) bool) {
		start, number := len(data)-len(bytes.TrimPrefix(data, byteOrderMark)), 0
		for line := range bytes.Lines(data[start:]) {
			l := span{number + 1, start, start + len(line)}
			start, number = l.end, l.number
			if !yield(l, line) {
				return
			}
		}
	}
}

func trimEnd(line []byte) []byte {
	return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
}

// findRule returns the one line of the rule for name.
func findRule(data []byte, name string) (span, error) {
	var found span
	for l, line := range spans(data) {
		if left, ok := leftOf(line); !ok || left != name {
			continue
		}
		if found.number != 0 {
			return span{}, fmt.Errorf("%s stands on line %d and on line %d: take one of them out first", quoteLeft(name), found.number, l.number)
		}
		found = l
	}
	if found.number == 0 {
		return span{}, fmt.Errorf("%s %w", quoteLeft(name), ErrNoRule)
	}
	return found, nil
}

// leftOf reads the name that a line is for. What stands behind the colon may be wrong.
func leftOf(line []byte) (string, bool) {
	s := withoutComment(string(trimEnd(line)))
	colon, _ := indexUnquoted(s, func(i int) bool { return s[i] == ':' })
	if colon < 0 {
		return "", false
	}
	left, err := leftName(strings.Trim(s[:colon], blanks), anyDomain)
	return left, err == nil
}
