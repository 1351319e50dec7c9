package message

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/mail"
	"strings"
	"unicode/utf8"

	"relayd/address"
)

// Why From found no single author.
var (
	ErrNoFrom   = errors.New("the message has no From field, which must name its author")
	ErrManyFrom = errors.New("the message must have exactly one From address")
)

// maxFrom bounds the From value that is parsed, in bytes: ten times what RFC 5322 lines allow.
const maxFrom = 10 << 10

// From is the one address of the one From field. Anything else (no field, two fields, two
// addresses, a group, a value that does not parse) is an error fit to be shown to the sender.
//
// Only the address is judged: display names may be in any character set, known or not. What a
// reader could take for another address than we do is refused, with one exception that many
// programs write: the same address unquoted as its own display name.
func (h Header) From() (address.Address, error) {
	if h.from == nil {
		return address.Address{}, ErrNoFrom
	}
	return h.from()
}

// author is From, found out.
func (h Header) author() (address.Address, error) {
	values := h.Values("From")
	switch {
	case len(values) == 0:
		return address.Address{}, ErrNoFrom
	case len(values) > 1:
		return address.Address{}, ErrManyFrom
	case len(values[0]) > maxFrom:
		return address.Address{}, errors.New("the From field is too long")
	}
	value := strings.ToValidUTF8(values[0], string(utf8.RuneError))
	if isGroup(value) {
		return address.Address{}, ErrManyFrom
	}
	parser := mail.AddressParser{WordDecoder: &mime.WordDecoder{CharsetReader: anyCharset}}
	list, err := parser.ParseList(value)
	if err != nil {
		list, err = parser.ParseList(withoutRepetition(value))
	}
	switch {
	case err != nil:
		return address.Address{}, fmt.Errorf("the From field is not an address: %.80q", values[0])
	case len(list) != 1:
		return address.Address{}, ErrManyFrom
	case strings.ContainsRune(list[0].Address, utf8.RuneError):
		return address.Address{}, fmt.Errorf("the From address is not in UTF-8: %.80q", values[0])
	}
	a, err := address.FromPath(list[0].Address, true)
	if err != nil {
		return address.Address{}, fmt.Errorf("the From address cannot be used: %w", err)
	}
	return a, nil
}

// anyCharset lets display names in any character set pass: only the address matters here.
func anyCharset(_ string, input io.Reader) (io.Reader, error) { return input, nil }

// isGroup reports whether a semicolon stands outside of quotes and comments. Nothing but a group
// (RFC 5322 section 3.4) has one, and net/mail takes a group of one for its member.
func isGroup(value string) bool {
	quoted, comments := false, 0
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case c == '\\':
			i++
		case c == '"' && comments == 0:
			quoted = !quoted
		case quoted:
		case c == '(':
			comments++
		case c == ')' && comments > 0:
			comments--
		case c == ';' && comments == 0:
			return true
		}
	}
	return false
}

// withoutRepetition turns "a@b <a@b>" into "<a@b>": it is no display name, since the @ would have
// to be in quotes there, but it can only mean one address. Anything else is left as it is.
func withoutRepetition(value string) string {
	name, rest, ok := strings.Cut(value, "<")
	if inner, closed := strings.CutSuffix(rest, ">"); ok && closed && strings.EqualFold(strings.TrimSpace(name), inner) {
		return "<" + rest
	}
	return value
}
