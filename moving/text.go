package moving

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth is how deep messages of a text may lie in one another; chasquid's need three.
const maxDepth = 8

// A message is what stands between braces in the text format of protocol buffers, and the whole
// text. See https://protobuf.dev/reference/protobuf/textformat-spec.
type message []field

// A field is "name: value" or "name { … }".
type field struct {
	name string
	line int
	text string  // the value: what a string means, and anything else as it is written
	sub  message // instead of a value, not nil
}

// one returns the last field of a name, which is the one that counts where it should stand once.
func (m message) one(name string) (field, bool) {
	for i := len(m) - 1; i >= 0; i-- {
		if m[i].name == name {
			return m[i], true
		}
	}
	return field{}, false
}

// text is the value of a field, "" if there is none.
func (m message) text(name string) string {
	f, _ := m.one(name)
	return f.text
}

// number is the value of a field as a number from 0 to 65535.
func (m message) number(name string) (int, error) {
	f, ok := m.one(name)
	if !ok {
		return 0, nil // as with every field that is not written
	}
	n, err := strconv.ParseUint(f.text, 0, 16)
	if err != nil {
		return 0, fmt.Errorf("%s is no number up to 65535", name)
	}
	return int(n), nil
}

// A lineError is what is wrong in a line, from 1.
type lineError struct {
	line int
	why  string
}

func (e *lineError) Error() string { return e.why }

// parseText reads a text. Its errors are of type *lineError, and quote no value: it may be secret.
func parseText(text string) (message, error) {
	p := &textParser{text: text, line: 1}
	m, err := p.message(0, 0)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// A textParser stands somewhere in a text.
type textParser struct {
	text string
	pos  int
	line int
}

func (p *textParser) wrong(format string, args ...any) error {
	return &lineError{p.line, fmt.Sprintf(format, args...)}
}

// skip moves over space and comments.
func (p *textParser) skip() {
	for p.pos < len(p.text) {
		switch c := p.text[p.pos]; c {
		case '\n':
			p.line++
		case ' ', '\t', '\r', '\v', '\f':
		case '#':
			if end := strings.IndexByte(p.text[p.pos:], '\n'); end >= 0 {
				p.pos += end
			} else {
				p.pos = len(p.text)
			}
			continue
		default:
			return
		}
		p.pos++
	}
}

// next is the byte after space, 0 at the end.
func (p *textParser) next() byte {
	p.skip()
	if p.pos == len(p.text) {
		return 0
	}
	return p.text[p.pos]
}

// accept moves over a byte if it is the next one.
func (p *textParser) accept(c byte) bool {
	if p.next() != c || p.pos == len(p.text) {
		return false
	}
	p.pos++
	return true
}

// message reads fields up to the closing byte, or to the end of the text where that is 0.
func (p *textParser) message(closing byte, depth int) (message, error) {
	if depth > maxDepth {
		return nil, p.wrong("braces lie deeper than %d in one another", maxDepth)
	}
	m := message{}
	for {
		switch p.skip(); {
		case p.pos == len(p.text) && closing == 0:
			return m, nil
		case p.pos == len(p.text):
			return nil, p.wrong("the closing %q is missing", closing)
		case closing != 0 && p.accept(closing):
			return m, nil
		}
		fields, err := p.field(depth)
		if err != nil {
			return nil, err
		}
		m = append(m, fields...)
		if !p.accept(',') {
			p.accept(';')
		}
	}
}

// field reads a field, or several that are written as a list.
func (p *textParser) field(depth int) (message, error) {
	f := field{line: p.line, name: p.word()}
	if f.name == "" {
		return nil, p.wrong("the name of a field is missing")
	}
	if !p.accept(':') && p.next() != '{' && p.next() != '<' {
		return nil, p.wrong("a colon is missing behind %s", f.name)
	}
	if !p.accept('[') {
		err := p.value(&f, depth)
		return message{f}, err
	}
	var list message
	for !p.accept(']') {
		if err := p.value(&f, depth); err != nil {
			return nil, err
		}
		list = append(list, f)
		if !p.accept(',') && p.next() != ']' {
			return nil, p.wrong("the closing ']' is missing")
		}
	}
	return list, nil
}

func (p *textParser) value(f *field, depth int) (err error) {
	switch {
	case p.accept('{'):
		f.sub, err = p.message('}', depth+1)
	case p.accept('<'):
		f.sub, err = p.message('>', depth+1)
	case p.next() == '"' || p.next() == '\'':
		f.text, err = p.strings()
	default:
		if f.text = p.word(); f.text == "" {
			err = p.wrong("a value is missing behind %s", f.name)
		}
	}
	return err
}

// word reads a name, a number or another bare value.
func (p *textParser) word() string {
	p.skip()
	start := p.pos
	for p.pos < len(p.text) {
		c := p.text[p.pos]
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && !strings.ContainsRune("_.+-", rune(c)) {
			break
		}
		p.pos++
	}
	return p.text[start:p.pos]
}

// strings reads strings that stand behind one another, which are one.
func (p *textParser) strings() (string, error) {
	var b strings.Builder
	for quote := p.next(); quote == '"' || quote == '\''; quote = p.next() {
		p.pos++
		if err := p.quoted(&b, quote); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

// quoted reads what stands in a string, up to its closing quote.
func (p *textParser) quoted(b *strings.Builder, quote byte) error {
	for p.pos < len(p.text) {
		c := p.text[p.pos]
		p.pos++
		switch c {
		case quote:
			return nil
		case '\n':
			return p.wrong("a string ends with its line")
		case '\\':
			if err := p.escape(b); err != nil {
				return err
			}
		default:
			b.WriteByte(c)
		}
	}
	return p.wrong("a string is not closed")
}

// escape reads what stands behind a backslash.
func (p *textParser) escape(b *strings.Builder) error {
	if p.pos == len(p.text) {
		return p.wrong("a string is not closed")
	}
	c := p.text[p.pos]
	if i := strings.IndexByte(`abfnrtv\'"?`, c); i >= 0 {
		p.pos++
		b.WriteByte("\a\b\f\n\r\t\v\\'\"?"[i])
		return nil
	}
	switch c {
	case 'x', 'X':
		p.pos++
		return p.coded(b, digits{base: 16, least: 1, most: 2})
	case 'u':
		p.pos++
		return p.coded(b, digits{base: 16, least: 4, most: 4, char: true})
	case 'U':
		p.pos++
		return p.coded(b, digits{base: 16, least: 8, most: 8, char: true})
	}
	return p.coded(b, digits{base: 8, least: 1, most: 3})
}

// digits are how the number of an escape is written, and whether it is a character or a byte.
type digits struct {
	base, least, most int
	char              bool
}

func (p *textParser) coded(b *strings.Builder, d digits) error {
	start := p.pos
	for p.pos < len(p.text) && p.pos-start < d.most {
		if _, err := strconv.ParseUint(p.text[p.pos:p.pos+1], d.base, 8); err != nil {
			break
		}
		p.pos++
	}
	n, err := strconv.ParseUint(p.text[start:p.pos], d.base, 32)
	switch {
	case err != nil || p.pos-start < d.least:
		return p.wrong("an escape that is none stands in a string")
	case d.char && (n > utf8.MaxRune || !utf8.ValidRune(rune(n))):
		return p.wrong("an escape in a string is no character")
	case d.char:
		b.WriteRune(rune(n))
	case n > 255:
		return p.wrong("an escape in a string is no byte")
	default:
		b.WriteByte(byte(n))
	}
	return nil
}
