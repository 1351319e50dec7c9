package message

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/mail"
	"strings"

	"relayd/address"
)

// A Header is a view of a message's header as it stands. The zero Header has no fields.
type Header struct {
	raw    []byte
	fields []field
}

type field struct {
	name       string // as written
	start, end int    // of the whole field in raw, line end included
}

// ParseHeader splits raw, the bytes before the blank line, into fields. It judges only its size:
// a line that is neither a field nor a continuation belongs to no field and is left alone.
func ParseHeader(raw []byte) (Header, error) {
	if len(raw) > MaxHeaderBytes {
		return Header{}, ErrHeaderTooLarge
	}
	h := Header{raw: raw}
	inField := false
	for start := 0; start < len(raw); {
		end := len(raw)
		if i := bytes.IndexByte(raw[start:], '\n'); i >= 0 {
			end = start + i + 1
		}
		line := raw[start:end]
		switch {
		case line[0] == ' ' || line[0] == '\t':
			if inField {
				h.fields[len(h.fields)-1].end = end
			}
		default:
			name, _, ok := bytes.Cut(line, []byte(":"))
			name = bytes.TrimRight(name, " \t")
			inField = ok && isFieldName(name)
			if inField {
				h.fields = append(h.fields, field{string(name), start, end})
			}
		}
		if len(h.fields) > MaxHeaderFields {
			return Header{}, ErrTooManyFields
		}
		start = end
	}
	return h, nil
}

// isFieldName: RFC 5322 section 2.2, printable ASCII without the colon.
func isFieldName(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c >= 0x7f || c == ':' {
			return false
		}
	}
	return len(b) > 0
}

// Has reports whether a field of that name is there, whatever its value.
func (h Header) Has(name string) bool {
	for _, f := range h.fields {
		if strings.EqualFold(f.name, name) {
			return true
		}
	}
	return false
}

// Count is the number of fields of that name.
func (h Header) Count(name string) int { return len(h.Values(name)) }

// Values returns the unfolded values of all fields of that name, from the top down, without
// white space around them.
func (h Header) Values(name string) []string {
	var values []string
	for _, f := range h.fields {
		if strings.EqualFold(f.name, name) {
			_, v, _ := bytes.Cut(h.raw[f.start:f.end], []byte(":"))
			values = append(values, unfold(v))
		}
	}
	return values
}

// Get is the first of Values, "" where there is none.
func (h Header) Get(name string) string {
	if v := h.Values(name); len(v) > 0 {
		return v[0]
	}
	return ""
}

// Raw is the header as it stands, without the blank line.
func (h Header) Raw() []byte { return h.raw }

func unfold(v []byte) string {
	return strings.TrimSpace(string(bytes.ReplaceAll(v, []byte("\r\n"), nil)))
}

// ASCII reports whether the header has no byte above 127 (RFC 6531: it needs no SMTPUTF8).
func (h Header) ASCII() bool { return isASCII(h.raw) }

// Why From found no single author.
var (
	ErrNoFrom   = errors.New("the message has no From field")
	ErrManyFrom = errors.New("the message must have exactly one From address")
)

// maxFrom bounds the From value that is parsed, in bytes: ten times what RFC 5322 lines allow.
const maxFrom = 10 << 10

// From is the one address of the one From field. Anything else (no field, two fields, two
// addresses, a group, a value that does not parse) is an error fit to be shown to the sender.
func (h Header) From() (address.Address, error) {
	values := h.Values("From")
	switch {
	case len(values) == 0:
		return address.Address{}, ErrNoFrom
	case len(values) > 1:
		return address.Address{}, ErrManyFrom
	case len(values[0]) > maxFrom:
		return address.Address{}, errors.New("the From field is too long")
	}
	parser := mail.AddressParser{WordDecoder: &mime.WordDecoder{CharsetReader: anyCharset}}
	list, err := parser.ParseList(values[0])
	if err != nil {
		return address.Address{}, fmt.Errorf("the From field is not an address: %.80q", values[0])
	}
	if len(list) != 1 {
		return address.Address{}, ErrManyFrom
	}
	return address.FromPath(list[0].Address, true)
}

// anyCharset lets display names in any character set pass: only the address matters here.
func anyCharset(_ string, input io.Reader) (io.Reader, error) { return input, nil }

// SignedNames returns, in lower case, every field name that an existing DKIM signature lists in
// h=. A field of such a name must not be put in front: a signature that lists a name once more
// than it occurs (over-signing, RFC 6376 section 8.15) would break.
func (h Header) SignedNames() map[string]bool {
	names := map[string]bool{}
	for _, v := range h.Values("DKIM-Signature") {
		for tag := range strings.SplitSeq(v, ";") {
			key, list, _ := strings.Cut(tag, "=")
			if strings.TrimSpace(key) != "h" {
				continue
			}
			for name := range strings.SplitSeq(list, ":") {
				names[strings.ToLower(strings.TrimSpace(name))] = true
			}
		}
	}
	return names
}

// ReadHeader reads the header at the start of a message, and little of what follows it.
func ReadHeader(r io.Reader) (Header, error) {
	raw, err := io.ReadAll(io.LimitReader(r, MaxHeaderBytes+4))
	if err != nil {
		return Header{}, err
	}
	if end := headerEnd(raw); end >= 0 {
		raw = raw[:end]
	}
	return ParseHeader(raw)
}
