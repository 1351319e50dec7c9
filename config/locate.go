package config

import (
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// lines has the line, from 1, on which each key of a TOML text first stands, by Key.String.
// A key inside an inline table is not in it.
type lines map[string]int

// of returns the line of key, or of the closest table around it, or 0.
func (l lines) of(key toml.Key) int {
	for ; len(key) > 0; key = key[:len(key)-1] {
		if n := l[key.String()]; n > 0 {
			return n
		}
	}
	return 0
}

// Line is the line, from 1, on which a key stands in the text of a file that is right: that of the
// closest table around it where the key is in an inline table, or 0 where it is not given.
func Line(text []byte, key ...string) int { return locate(string(text)).of(key) }

// locate finds the keys of a text that the toml package has accepted. That package keeps the
// position of a key to itself unless decoding the key fails, and most of what can be wrong with a
// setting shows only afterwards. Because the syntax is known to be right, it is enough here to
// tell keys from values.
func locate(text string) lines {
	s := scanner{text: strings.TrimPrefix(text, "\ufeff"), line: 1}
	found := lines{}
	var table toml.Key
	for s.skipBlank(); s.more(); s.skipBlank() {
		line := s.line
		if s.accept("[") {
			double := s.accept("[")
			table = s.key()
			s.accept("]")
			if double {
				s.accept("]")
			}
			found.add(nil, table, line)
			continue
		}
		key := s.key()
		s.accept("=")
		found.add(table, key, line)
		s.skipValue()
	}
	return found
}

// add records key and the tables that it creates on its way, all inside table.
func (l lines) add(table, key toml.Key, line int) {
	path := append(toml.Key{}, table...)
	for _, part := range key {
		path = append(path, part)
		if name := path.String(); l[name] == 0 {
			l[name] = line
		}
	}
}

// A scanner walks through TOML text that is known to be valid.
type scanner struct {
	text string
	pos  int
	line int
}

func (s *scanner) more() bool { return s.pos < len(s.text) }

// advance moves on by n bytes and counts the lines in them.
func (s *scanner) advance(n int) {
	n = min(n, len(s.text)-s.pos)
	s.line += strings.Count(s.text[s.pos:s.pos+n], "\n")
	s.pos += n
}

func (s *scanner) accept(prefix string) bool {
	if !strings.HasPrefix(s.text[s.pos:], prefix) {
		return false
	}
	s.advance(len(prefix))
	return true
}

// until moves to the first byte that is one of stop, or to the end, and returns what it passed.
func (s *scanner) until(stop string) string {
	n := strings.IndexAny(s.text[s.pos:], stop)
	if n < 0 {
		n = len(s.text) - s.pos
	}
	passed := s.text[s.pos : s.pos+n]
	s.advance(n)
	return passed
}

// skipBlank moves over space, line ends and comments.
func (s *scanner) skipBlank() {
	for s.more() {
		switch s.text[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.advance(1)
		case '#':
			s.until("\n")
		default:
			return
		}
	}
}

// key reads a dotted key up to the "=" or "]" behind it.
func (s *scanner) key() toml.Key {
	var key toml.Key
	for s.more() {
		switch s.text[s.pos] {
		case '=', ']', '\n':
			return key
		case ' ', '\t', '\r', '.':
			s.advance(1)
		case '"', '\'':
			key = append(key, s.quoted())
		default:
			key = append(key, s.until(" \t\r\n.=]\"'"))
		}
	}
	return key
}

// quoted moves over a string of any of the four kinds and returns what stands in it, which is
// exact for those that can be a key.
func (s *scanner) quoted() string {
	quote := s.text[s.pos : s.pos+1]
	if strings.HasPrefix(s.text[s.pos:], strings.Repeat(quote, 3)) {
		quote = strings.Repeat(quote, 3)
	}
	start := s.pos
	s.advance(len(quote))
	for s.more() && !strings.HasPrefix(s.text[s.pos:], quote) {
		if quote[0] == '"' && s.text[s.pos] == '\\' {
			s.advance(1)
		}
		s.advance(1)
	}
	s.advance(len(quote))
	// A string in three quotes may end in one or two of its own before them.
	for len(quote) == 3 && s.accept(quote[:1]) {
		continue
	}
	raw := s.text[start:s.pos]
	if quote == `"` {
		if plain, err := strconv.Unquote(raw); err == nil {
			return plain
		}
	}
	return strings.Trim(raw, quote[:1])
}

// skipValue moves over a value, to the end of the line it ends on.
func (s *scanner) skipValue() {
	for depth := 0; s.more(); {
		switch s.text[s.pos] {
		case '"', '\'':
			s.quoted()
			continue
		case '#':
			s.until("\n")
			continue
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		case '\n':
			if depth <= 0 {
				return
			}
		}
		s.advance(1)
	}
}
