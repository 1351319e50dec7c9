package message

import (
	"bytes"
	"io"
	"strings"
	"sync"

	"relayd/address"
)

// A Header is a view of a message's header as it stands. The zero Header has no fields.
type Header struct {
	raw    []byte
	fields []field
	signed map[string]bool
	from   func() (address.Address, error) // parsed when it is asked for first; nil in the zero Header
}

type field struct {
	name       string // as written
	start, end int    // of the whole field in raw, line end included
}

// ParseHeader splits raw, the bytes before the blank line, into fields. It judges only its size:
// a line that is neither a field nor a continuation belongs to no field and is left alone. It
// returns ErrHeaderTooLarge or ErrTooManyFields, but leaves room for what was put in front of a
// header since Read took it.
func ParseHeader(raw []byte) (Header, error) {
	return parse(raw, MaxHeaderBytes+ownHeaderBytes, MaxHeaderFields+ownFields)
}

func parse(raw []byte, maxBytes, maxFields int) (Header, error) {
	if len(raw) > maxBytes {
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
		if len(h.fields) > maxFields {
			return Header{}, ErrTooManyFields
		}
		start = end
	}
	h.signed = h.signedNames()
	h.from = sync.OnceValues(h.author)
	return h, nil
}

// continues reports whether the header begins in the middle of a field.
func (h Header) continues() bool {
	return len(h.raw) > 0 && (h.raw[0] == ' ' || h.raw[0] == '\t')
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
func (h Header) Count(name string) int {
	n := 0
	for _, f := range h.fields {
		if strings.EqualFold(f.name, name) {
			n++
		}
	}
	return n
}

// Values returns the unfolded values of all fields of that name, from the top down, without
// white space around them.
func (h Header) Values(name string) []string {
	var values []string
	for _, f := range h.fields {
		if strings.EqualFold(f.name, name) {
			values = append(values, h.value(f))
		}
	}
	return values
}

// Get is the first of Values, "" where there is none.
func (h Header) Get(name string) string {
	for _, f := range h.fields {
		if strings.EqualFold(f.name, name) {
			return h.value(f)
		}
	}
	return ""
}

// Raw is the header as it stands, without the blank line.
func (h Header) Raw() []byte { return h.raw }

// Split parts the header: fields are those of that name, rest is all that is left without them. Both
// are as they stand and in their order.
func (h Header) Split(name string) (fields, rest []byte) {
	at := 0
	for _, f := range h.fields {
		if strings.EqualFold(f.name, name) {
			fields = append(fields, h.raw[f.start:f.end]...)
			rest = append(rest, h.raw[at:f.start]...)
			at = f.end
		}
	}
	return fields, append(rest, h.raw[at:]...)
}

// value is what stands behind the colon, unfolded.
func (h Header) value(f field) string {
	_, v, _ := bytes.Cut(h.raw[f.start:f.end], []byte(":"))
	return strings.TrimSpace(string(bytes.ReplaceAll(v, []byte("\r\n"), nil)))
}

// ASCII reports whether the header has no byte above 127 (RFC 6531: it needs no SMTPUTF8).
func (h Header) ASCII() bool { return isASCII(h.raw) }

// SignedNames holds, in lower case, every field name that an existing DKIM or ARC signature lists
// in h=. A field of such a name must not be put in front: a signature that lists a name once more
// than it occurs (over-signing, RFC 6376 section 8.15) would break. Names past the first 1,000 are
// not looked at. The caller must not change the map.
func (h Header) SignedNames() map[string]bool { return h.signed }

func (h Header) signedNames() map[string]bool {
	names := map[string]bool{}
	for _, v := range append(h.Values("DKIM-Signature"), h.Values("ARC-Message-Signature")...) {
		for tag := range strings.SplitSeq(v, ";") {
			key, list, _ := strings.Cut(tag, "=")
			if strings.TrimSpace(key) != "h" {
				continue
			}
			for name := range strings.SplitSeq(list, ":") {
				if len(names) == maxSigned {
					return names
				}
				names[strings.ToLower(strings.TrimSpace(name))] = true
			}
		}
	}
	return names
}

// maxSigned bounds the memory that a header made of signatures can cost.
const maxSigned = 1000

// ReadHeader reads the header at the start of a message, and little of what follows it. It
// returns the errors of r and of ParseHeader.
func ReadHeader(r io.Reader) (Header, error) {
	raw, err := io.ReadAll(io.LimitReader(r, MaxHeaderBytes+ownHeaderBytes+4))
	if err != nil {
		return Header{}, err
	}
	if end := headerEnd(raw); end >= 0 {
		raw = raw[:end]
	}
	return ParseHeader(raw)
}
