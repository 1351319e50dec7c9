package sendmail

import (
	"bufio"
	"bytes"
	"io"
	"strings"

	"relayd/message"
)

// A field is a header field as it stands, with its line ends.
type field struct {
	name string // in lower case
	raw  []byte
}

// value is what stands behind the colon, folded as it is.
func (f field) value() string {
	_, v, _ := bytes.Cut(f.raw, []byte(":"))
	return string(v)
}

// splitHeader takes the header off a message whose lines end with CR LF. rest begins with the blank line,
// which is put in where the first line that is no field ends the header, as it does for programs that
// write a text alone. It returns message.ErrHeaderTooLarge past the bounds of package message, and the
// errors of r.
func splitHeader(r io.Reader) (fields []field, rest io.Reader, err error) {
	in := bufio.NewReaderSize(r, 32<<10)
	size := 0
	for {
		line, err := readLine(in, message.MaxHeaderBytes-size)
		if err == io.EOF && len(line) == 0 {
			return fields, strings.NewReader("\r\n"), nil
		}
		if err != nil && err != io.EOF {
			return nil, nil, err
		}
		size += len(line)
		name, isField := fieldName(line)
		switch {
		case len(fields) > 0 && (line[0] == ' ' || line[0] == '\t'):
			last := &fields[len(fields)-1]
			last.raw = append(last.raw, line...)
		case isField && len(fields) < message.MaxHeaderFields:
			fields = append(fields, field{name, line})
		case isField:
			return nil, nil, message.ErrTooManyFields
		case len(fields) == 0 && bytes.HasPrefix(line, []byte("From ")): // of a mailbox file
		case len(bytes.TrimRight(line, "\r\n")) == 0:
			return fields, io.MultiReader(bytes.NewReader(line), in), nil
		default:
			return fields, io.MultiReader(strings.NewReader("\r\n"), bytes.NewReader(line), in), nil
		}
	}
}

// readLine reads a line with its end, of limit bytes at most.
func readLine(in *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > limit {
			return nil, message.ErrHeaderTooLarge
		}
		if err != bufio.ErrBufferFull {
			return line, err
		}
	}
}

// fieldName is the name of the field that a line begins: printable ASCII before the colon.
func fieldName(line []byte) (string, bool) {
	name, _, ok := bytes.Cut(line, []byte(":"))
	name = bytes.TrimRight(name, " \t")
	if !ok || len(name) == 0 || len(name) > maxFieldName {
		return "", false
	}
	for _, c := range name {
		if c <= ' ' || c >= 0x7f {
			return "", false
		}
	}
	return strings.ToLower(string(name)), true
}

// maxFieldName is longer than any name of a field that is in use.
const maxFieldName = 200

// join puts a message together again.
func join(fields []field, rest io.Reader) io.Reader {
	var b bytes.Buffer
	for _, f := range fields {
		b.Write(f.raw)
	}
	return io.MultiReader(&b, rest)
}

// A span is where an address stands in a list, without the angle brackets.
type span struct{ start, end int }

// spans finds the addresses of an address list (RFC 5322 section 3.4), also those that are a bare name
// such as root. It judges none of them: what is no address is found out where it is used.
func spans(list string) []span {
	var found []span
	s := scanner{text: list}
	for s.at < len(list) {
		if one, ok := s.next(); ok && one.start < one.end {
			found = append(found, one)
		}
	}
	return found
}

// A scanner goes through an address list.
type scanner struct {
	text string
	at   int
}

// next reads to the end of an item: a comma, the colon that begins a group, the semicolon that ends it.
func (s *scanner) next() (span, bool) {
	plain, angle := span{-1, -1}, span{-1, -1}
	literal := false // in the brackets of an address literal, where colons stand
	for ; s.at < len(s.text); s.at++ {
		c, begin := s.text[s.at], s.at
		switch {
		case c == '(':
			s.comment()
			continue
		case c == '"':
			s.quoted()
		case c == '<' && angle.start < 0:
			angle.start = s.at + 1
			angle.end = angle.start
		case c == '>' && angle.start >= 0:
			if angle.end == angle.start {
				angle.end = s.at
			}
		case angle.start >= 0 && angle.end == angle.start && c != ',':
			continue
		case c == '[' || c == ']':
			literal = c == '['
		case c == ':' && !literal:
			s.at++
			return span{}, false
		case c == ',' || c == ';':
			s.at++
			return item(s.text, plain, angle)
		}
		if c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			if plain.start < 0 {
				plain.start = begin
			}
			plain.end = min(s.at+1, len(s.text))
		}
	}
	return item(s.text, plain, angle)
}

// item chooses what is in angle brackets, where there are some.
func item(text string, plain, angle span) (span, bool) {
	one := plain
	if angle.start >= 0 {
		one = angle
	}
	if one.start < 0 || one.end < one.start {
		return span{}, false
	}
	const space = " \t\r\n"
	inner := strings.TrimLeft(text[one.start:one.end], space)
	one.start = one.end - len(inner)
	one.end = one.start + len(strings.TrimRight(inner, space))
	return one, true
}

// comment goes to the parenthesis that closes a comment, or to the end.
func (s *scanner) comment() {
	depth := 0
	for ; s.at < len(s.text); s.at++ {
		switch s.text[s.at] {
		case '\\':
			s.at++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return
			}
		}
	}
}

// quoted goes to the quote that closes a quoted string, or to the end.
func (s *scanner) quoted() {
	for s.at++; s.at < len(s.text); s.at++ {
		switch s.text[s.at] {
		case '\\':
			s.at++
		case '"':
			return
		}
	}
}

// addresses are the texts at the spans of a list.
func addresses(list string) []string {
	var all []string
	for _, s := range spans(list) {
		all = append(all, list[s.start:s.end])
	}
	return all
}
