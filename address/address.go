// Package address is the one place that decides what a mailbox is. Every address that comes from
// outside (SMTP paths, alias files, command lines) passes through Parse or FromPath before
// anything else sees it, and every address that goes out passes through String, which quotes it
// again: so no byte of a local part can end a path and begin an ESMTP parameter.
//
// Sources: RFC 5321 section 4.1.2 (syntax) and 4.5.3.1 (sizes), RFC 6531 (SMTPUTF8), RFC 5891 (IDNA).
package address

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Sizes of RFC 5321 section 4.5.3.1, in octets.
const (
	MaxLocal  = 64
	MaxDomain = 255
	MaxPath   = 254 // a whole mailbox without its angle brackets
)

// An Address is a checked mailbox. The zero Address is the null reverse-path "<>".
// Addresses are comparable, but two that differ in the case of the local part are different
// here: use Key to look one up.
type Address struct {
	Local  string // unquoted: the bytes that are meant
	Domain string // lower case; A-labels (punycode), or an address literal like "[192.0.2.1]"
}

// Parse reads a mailbox as people write it: local@domain, where a local part in double quotes
// is unquoted. It takes non-ASCII addresses.
func Parse(s string) (Address, error) {
	if strings.HasPrefix(s, `"`) {
		local, rest, err := unquote(s)
		if err != nil {
			return Address{}, fmt.Errorf("%q: %w", s, err)
		}
		if !strings.HasPrefix(rest, "@") {
			return Address{}, fmt.Errorf("%q: no @ after the quoted name", s)
		}
		return build(s, local, rest[1:])
	}
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return Address{}, fmt.Errorf("%q has no @: an address is name@domain", s)
	}
	if i := strings.IndexAny(s[:at], specials); i >= 0 {
		return Address{}, fmt.Errorf("%q: %q must be inside double quotes", s, s[i])
	}
	return build(s, s[:at], s[at+1:])
}

// FromPath reads a mailbox whose local part is already unquoted, as SMTP libraries hand it on.
// With utf8 false, bytes above 127 are refused (the client did not ask for SMTPUTF8).
func FromPath(s string, utf8 bool) (Address, error) {
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return Address{}, fmt.Errorf("%q has no @", s)
	}
	if !utf8 && !ascii(s) {
		return Address{}, fmt.Errorf("%q is not ASCII and SMTPUTF8 was not asked for", s)
	}
	return build(s, s[:at], s[at+1:])
}

func build(whole, local, domain string) (Address, error) {
	if err := CheckLocal(local); err != nil {
		return Address{}, fmt.Errorf("%q: %w", whole, err)
	}
	d, err := Domain(domain)
	if err != nil {
		return Address{}, fmt.Errorf("%q: %w", whole, err)
	}
	a := Address{Local: local, Domain: d}
	if len(a.String()) > MaxPath+2 {
		return Address{}, fmt.Errorf("%q: longer than %d octets", whole, MaxPath)
	}
	return a, nil
}

// specials are the ASCII bytes that may stand in a local part only inside quotes.
const specials = "()<>[]:;@\\,\" \t"

// CheckLocal reports why an unquoted local part cannot be used: empty, longer than 64 octets,
// an "@", a control byte, or bytes that are not UTF-8.
func CheckLocal(local string) error {
	switch {
	case local == "":
		return errors.New("nothing before the @")
	case len(local) > MaxLocal:
		return fmt.Errorf("more than %d octets before the @", MaxLocal)
	case !utf8.ValidString(local):
		return errors.New("bytes before the @ that are not UTF-8")
	}
	for i := range len(local) {
		if c := local[i]; c < ' ' || c == 0x7f || c == '@' {
			return fmt.Errorf("byte %q before the @", c)
		}
	}
	return nil
}

// Domain brings a domain into the form that everything compares and looks up: lower case,
// A-labels, no dot at the end. Address literals (RFC 5321 section 4.1.3) are kept in brackets.
func Domain(s string) (string, error) {
	if strings.HasPrefix(s, "[") {
		return literal(s)
	}
	d := strings.TrimSuffix(s, ".")
	if !ascii(d) {
		a, err := idna.Lookup.ToASCII(d)
		if err != nil {
			return "", fmt.Errorf("domain %q is not a valid international name", s)
		}
		d = a
	}
	d = strings.ToLower(d)
	if d == "" {
		return "", errors.New("the domain is empty")
	}
	if len(d) > MaxDomain {
		return "", fmt.Errorf("the domain is longer than %d octets", MaxDomain)
	}
	for label := range strings.SplitSeq(d, ".") {
		if label == "" || len(label) > 63 {
			return "", fmt.Errorf("domain %q has an empty label or one over 63 octets", s)
		}
		if strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return "", fmt.Errorf("domain %q has a byte that no domain name has", s)
		}
		if label[0] == '-' || label[len(label)-1] == '-' {
			return "", fmt.Errorf("domain %q has a label that begins or ends with a hyphen", s)
		}
	}
	return d, nil
}

func literal(s string) (string, error) {
	inner, ok := strings.CutSuffix(s[1:], "]")
	if !ok {
		return "", fmt.Errorf("address literal %q does not end with ]", s)
	}
	v6, isV6 := cutPrefixFold(inner, "IPv6:")
	ip, err := netip.ParseAddr(v6)
	if err != nil || ip.Is4() == isV6 || ip.Zone() != "" {
		return "", fmt.Errorf("%q is not an address literal", s)
	}
	if isV6 {
		return "[IPv6:" + ip.String() + "]", nil
	}
	return "[" + ip.String() + "]", nil
}

// IsNull reports whether a is the null reverse-path, the sender of bounces.
func (a Address) IsNull() bool { return a == Address{} }

// String is the mailbox as it is written in SMTP and in header fields, without angle brackets:
// the local part is quoted where its bytes need it. It is "" for the null reverse-path.
func (a Address) String() string {
	if a.IsNull() {
		return ""
	}
	return QuoteLocal(a.Local) + "@" + a.Domain
}

// Key is the form under which a is looked up: all lower case.
func (a Address) Key() string {
	if a.IsNull() {
		return ""
	}
	return strings.ToLower(a.Local) + "@" + a.Domain
}

// ASCII reports whether a can be sent without SMTPUTF8.
func (a Address) ASCII() bool { return ascii(a.Local) }

// Literal returns the IP address of an address literal, and whether the domain is one.
func (a Address) Literal() (netip.Addr, bool) {
	inner, ok := strings.CutPrefix(strings.TrimSuffix(a.Domain, "]"), "[")
	if !ok {
		return netip.Addr{}, false
	}
	inner = strings.TrimPrefix(inner, "IPv6:")
	ip, err := netip.ParseAddr(inner)
	return ip, err == nil
}

// QuoteLocal writes a local part as a dot-string where it is one, and as a quoted-string
// (RFC 5321 section 4.1.2) where it is not.
func QuoteLocal(local string) string {
	if isDotString(local) {
		return local
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(local) {
		if c := local[i]; c == '"' || c == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(local[i])
	}
	b.WriteByte('"')
	return b.String()
}

func isDotString(s string) bool {
	if s == "" || s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, "..") {
		return false
	}
	return !strings.ContainsAny(s, specials)
}

// unquote reads the quoted-string at the start of s.
func unquote(s string) (content, rest string, err error) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], nil
		case '\\':
			i++
			if i == len(s) {
				return "", "", errors.New("a quoted name ends in a backslash")
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", errors.New("a quoted name has no closing quote")
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix) {
		return s[len(prefix):], true
	}
	return s, false
}

// MarshalText writes a as String does, for JSON.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (a *Address) UnmarshalText(text []byte) (err error) {
	*a = Address{}
	if len(text) > 0 {
		*a, err = Parse(string(text))
	}
	return err
}
