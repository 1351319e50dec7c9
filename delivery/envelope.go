package delivery

import (
	"fmt"
	"strings"
)

// envelope is the lines of a transaction up to DATA.
func (s *session) envelope(m *Message, batch []int) []string {
	lines := []string{s.mailLine(m)}
	for _, i := range batch {
		lines = append(lines, s.rcptLine(m.Recipients[i]))
	}
	return append(lines, "DATA")
}

// mailLine asks for what the server offers. A body with 8-bit bytes goes to one without 8BITMIME as it
// is: the conversion that RFC 6152 section 3 leaves as the other choice would break signatures, and
// servers that do not say so pass such bytes on all the same.
func (s *session) mailLine(m *Message) string {
	var b strings.Builder
	fmt.Fprintf(&b, "MAIL FROM:<%s>", m.ReturnPath)
	if s.offers("SIZE") {
		fmt.Fprintf(&b, " SIZE=%d", m.Size)
	}
	if s.offers("8BITMIME") && m.EightBit {
		b.WriteString(" BODY=8BITMIME")
	}
	if m.needsUTF8() {
		b.WriteString(" SMTPUTF8")
	}
	if m.RequireTLS && s.offers("REQUIRETLS") {
		b.WriteString(" REQUIRETLS")
	}
	if s.offers("DSN") {
		if isAtom(m.Return) {
			b.WriteString(" RET=" + m.Return)
		}
		if m.EnvelopeID != "" {
			b.WriteString(" ENVID=" + xtext(m.EnvelopeID))
		}
	}
	return b.String()
}

func (s *session) rcptLine(r Recipient) string {
	var b strings.Builder
	fmt.Fprintf(&b, "RCPT TO:<%s>", r.Address)
	if !s.offers("DSN") {
		return b.String()
	}
	if notify := strings.Join(r.Notify, ","); isAtom(notify) {
		b.WriteString(" NOTIFY=" + notify)
	}
	kind, original, ok := strings.Cut(r.Original, ";")
	switch {
	case !ok || !isAtom(kind) || original == "":
	case strings.EqualFold(kind, "utf-8"):
		b.WriteString(" ORCPT=" + kind + ";" + utf8Xtext(original))
	default:
		b.WriteString(" ORCPT=" + kind + ";" + xtext(original))
	}
	return b.String()
}

func (s *session) offers(extension string) bool {
	_, ok := s.ext[extension]
	return ok
}

// isAtom reports whether s can be an argument without ending it: whoever made s, no byte of it
// begins another parameter or command.
func isAtom(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '=' || r == ';' })
}

// xtext encodes a DSN parameter (RFC 3461 section 4).
func xtext(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < '!' || c > '~' || c == '+' || c == '=' {
			fmt.Fprintf(&b, "+%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// utf8Xtext encodes an original recipient of type utf-8 in the form that needs no SMTPUTF8
// (utf-8-addr-xtext of RFC 6533 section 3).
func utf8Xtext(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r < '!' || r > '~' || r == '+' || r == '=' || r == '\\' {
			fmt.Fprintf(&b, "\\x{%02X}", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}
