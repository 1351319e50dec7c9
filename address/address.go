// Package address is the one place that decides what a mailbox is. Every address that comes from
// outside (SMTP paths, alias files, command lines) passes through Parse or FromPath before
// anything else sees it, and every address that goes out passes through String, which quotes it
// again: so no byte of a local part can end a path and begin an ESMTP parameter.
//
// The bytes of a local part are never changed, since only its own host may interpret them (RFC 5321
// section 2.3.11); Key is for comparing.
//
// Sources: RFC 5321 section 4.1.2 (syntax) and 4.5.3.1 (sizes), RFC 6531 (SMTPUTF8), RFC 5891
// (IDNA), RFC 5198 (which characters text on the net does without).
package address

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/unicode/norm"
)

// Sizes of RFC 5321 section 4.5.3.1, in octets.
const (
	MaxLocal  = 64  // without the quotes and backslashes that String adds
	MaxDomain = 253 // what fits into the 255 octets of a name in DNS (RFC 1035 section 2.3.4)
	MaxPath   = 254 // a whole mailbox as String writes it, without angle brackets
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
			return Address{}, fmt.Errorf("%.300q: %w", s, err)
		}
		if !strings.HasPrefix(rest, "@") {
			return Address{}, fmt.Errorf("%.300q: no @ after the quoted name", s)
		}
		return build(s, local, rest[1:])
	}
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return Address{}, fmt.Errorf("%.300q has no @: an address is name@domain", s)
	}
	if i := strings.IndexAny(s[:at], specials); i >= 0 {
		return Address{}, fmt.Errorf("%.300q: %q must be inside double quotes", s, s[i])
	}
	return build(s, s[:at], s[at+1:])
}

// FromPath reads a mailbox whose local part is already unquoted, as SMTP libraries hand it on.
// With utf8 false, bytes above 127 are refused (the client did not ask for SMTPUTF8).
func FromPath(s string, utf8 bool) (Address, error) {
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return Address{}, fmt.Errorf("%.300q has no @", s)
	}
	if !utf8 && !ascii(s) {
		return Address{}, fmt.Errorf("%.300q is not ASCII and SMTPUTF8 was not asked for", s)
	}
	return build(s, s[:at], s[at+1:])
}

func build(whole, local, domain string) (Address, error) {
	fail := func(err error) (Address, error) { return Address{}, fmt.Errorf("%.300q: %w", whole, err) }
	if err := CheckLocal(local); err != nil {
		return fail(err)
	}
	d, err := Domain(domain)
	if err != nil {
		return fail(err)
	}
	if last := d[strings.LastIndexByte(d, '.')+1:]; strings.Trim(last, "0123456789") == "" {
		// No top-level domain is a number (RFC 3696 section 2), but a resolver or a dialer may
		// take such a name for an IP address and go there.
		return fail(errors.New("a number is no domain; an IP address stands in brackets"))
	}
	a := Address{Local: local, Domain: d}
	if len(a.String()) > MaxPath {
		return fail(fmt.Errorf("longer than %d octets", MaxPath))
	}
	return a, nil
}

// specials are the ASCII bytes that may stand in a local part only inside quotes.
const specials = "()<>[]:;@\\,\" \t"

// CheckLocal reports why an unquoted local part cannot be used: empty, longer than 64 octets,
// an "@", a control character or line separator, ASCII or not, or bytes that are not UTF-8.
func CheckLocal(local string) error {
	switch {
	case local == "":
		return errors.New("nothing before the @")
	case len(local) > MaxLocal:
		return fmt.Errorf("more than %d octets before the @", MaxLocal)
	case !utf8.ValidString(local):
		return errors.New("bytes before the @ that are not UTF-8")
	}
	for _, c := range local {
		if c == '@' || unicode.IsControl(c) || c == lineSeparator || c == paragraphSeparator {
			return fmt.Errorf("character %q before the @", c)
		}
	}
	return nil
}

// Some programs end a line at these (RFC 5198 section 2).
const (
	lineSeparator      = '\u2028'
	paragraphSeparator = '\u2029'
)

// Domain brings a domain into the form that everything compares and looks up: lower case,
// A-labels, no dot at the end. Address literals (RFC 5321 section 4.1.3) are kept in brackets.
// Underscores are taken, because DNS knows such names, but not beside non-ASCII labels.
func Domain(s string) (string, error) {
	if strings.HasPrefix(s, "[") {
		return literal(s)
	}
	d := s
	if len(d) > 4*MaxDomain {
		return "", errDomainLength
	}
	if !ascii(d) {
		a, err := idna.Lookup.ToASCII(d)
		if err != nil || !utf8.ValidString(d) { // idna takes other bytes for U+FFFD
			return "", fmt.Errorf("domain %q is not a valid international name", s)
		}
		d = a
	}
	d = strings.ToLower(strings.TrimSuffix(d, "."))
	if d == "" {
		return "", errors.New("the domain is empty")
	}
	if len(d) > MaxDomain {
		return "", errDomainLength
	}
	for label := range strings.SplitSeq(d, ".") {
		if label == "" || len(label) > 63 {
			return "", fmt.Errorf("domain %q has an empty label or one over 63 octets", s)
		}
		if strings.ContainsFunc(label, notInDomain) {
			return "", fmt.Errorf("domain %q has a byte that no domain name has", s)
		}
		if label[0] == '-' || label[len(label)-1] == '-' {
			return "", fmt.Errorf("domain %q has a label that begins or ends with a hyphen", s)
		}
	}
	return d, nil
}

// notInDomain reports whether a character stands in no domain, once that is in lower case.
func notInDomain(c rune) bool {
	return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_'
}

var errDomainLength = fmt.Errorf("the domain is longer than %d octets", MaxDomain)

func literal(s string) (string, error) {
	inner, ok := strings.CutSuffix(s[1:], "]")
	if !ok {
		return "", fmt.Errorf("address literal %.300q does not end with ]", s)
	}
	v6, isV6 := cutPrefixFold(inner, "IPv6:")
	ip, err := netip.ParseAddr(v6)
	if err != nil || ip.Is4() == isV6 || ip.Zone() != "" {
		return "", fmt.Errorf("%.300q is not an address literal", s)
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

// Key is the form under which a is looked up and compared: lower case, and in Unicode's
// normalization form C (RFC 6532 section 3.1), since the same letters may be typed in two ways. Marks
// are taken off the letters first, so that what a letter becomes does not hang on those around it.
// It is not an address to send to.
func (a Address) Key() string {
	if a.IsNull() {
		return ""
	}
	if ascii(a.Local) {
		return strings.ToLower(a.Local) + "@" + a.Domain
	}
	return norm.NFC.String(strings.ToLower(norm.NFD.String(a.Local))) + "@" + a.Domain
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
