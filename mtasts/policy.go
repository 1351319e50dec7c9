package mtasts

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"relayd/address"
)

const (
	// maxBody is how long a policy may be, in bytes (RFC 8461 section 3.2).
	maxBody = 64 << 10
	// maxAge is the longest time for which a policy may be valid, in seconds.
	maxAge = 31557600
	// maxMX bounds the patterns in a policy, and with them the memory that it takes. Nobody has so
	// many mail exchangers.
	maxMX = 500
)

// A Mode is what a policy demands.
type Mode int

const (
	// None: nothing is demanded.
	None Mode = iota
	// Testing: mail goes where it would go without the policy; failures are reported.
	Testing
	// Enforce: mail goes only to hosts that the policy names, with a certificate that verifies.
	Enforce
)

// String is the mode as policies have it.
func (m Mode) String() string { return [...]string{"none", "testing", "enforce"}[m] }

// A Policy is what a domain demands of those who send mail to it. It is not to be changed: it is
// shared. The zero value demands nothing.
type Policy struct {
	Mode   Mode
	MX     []string      // host names, or "*." and a domain, in lower case; empty only with None
	MaxAge time.Duration // from the fetch on
}

// String is the policy as a policy host could serve it: one line per field, with a line feed after
// each. Parse reads it again.
func (p Policy) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: %s\nmode: %s\n", version, p.Mode)
	for _, pattern := range p.MX {
		fmt.Fprintf(&b, "mx: %s\n", pattern)
	}
	fmt.Fprintf(&b, "max_age: %d\n", int64(p.MaxAge/time.Second))
	return b.String()
}

// Matches reports whether the policy names the mail exchanger host, an A-label name in any case. A
// wildcard stands for exactly one label (RFC 8461 section 4.1). The policies of other modes than
// Enforce name hosts too; whether that matters is for the caller to say.
func (p Policy) Matches(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	label, parent, _ := strings.Cut(host, ".")
	return slices.ContainsFunc(p.MX, func(pattern string) bool {
		if domain, wild := strings.CutPrefix(pattern, "*."); wild {
			return label != "" && domain == parent
		}
		return pattern == host
	})
}

// Parse reads a policy as a policy host serves it (RFC 8461 section 3.2). An error names the line.
//
// Unknown fields are passed over. Of a field that may stand only once the first one counts. A blank
// line is let through: to refuse the whole for it would leave the domain unprotected.
func Parse(text []byte) (Policy, error) {
	if len(text) > maxBody {
		return Policy{}, fmt.Errorf("longer than %d bytes", maxBody)
	}
	if !utf8.Valid(text) {
		return Policy{}, errors.New("not UTF-8")
	}
	return parse(string(text))
}

func parse(text string) (Policy, error) {
	var p Policy
	seen := map[string]bool{}
	n := 0
	for line := range strings.SplitSeq(text, "\n") {
		n++
		line = strings.TrimRight(strings.TrimSuffix(line, "\r"), wsp)
		if line == "" {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isExtensionName(name) {
			return Policy{}, fmt.Errorf("line %d: not a field", n)
		}
		if name != "mx" && seen[name] {
			continue
		}
		seen[name] = true
		if err := p.set(name, strings.TrimLeft(value, wsp)); err != nil {
			return Policy{}, fmt.Errorf("line %d: %w", n, err)
		}
	}
	for _, name := range []string{"version", "mode", "max_age"} {
		if !seen[name] {
			return Policy{}, fmt.Errorf("no %s", name)
		}
	}
	if p.Mode != None && len(p.MX) == 0 {
		return Policy{}, errors.New("no mx")
	}
	return p, nil
}

// set takes the value of one field.
func (p *Policy) set(name, value string) error {
	if value == "" || strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return fmt.Errorf("%s has no value, or one with control characters", name)
	}
	switch name {
	case "version":
		if value != version {
			return fmt.Errorf("unknown version %.20q", value)
		}
	case "mode":
		i := slices.Index([]string{"none", "testing", "enforce"}, value)
		if i < 0 {
			return fmt.Errorf("unknown mode %.20q", value)
		}
		p.Mode = Mode(i)
	case "max_age":
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil || n > maxAge || len(value) > 10 {
			return fmt.Errorf("max_age %.20q is not a number of seconds up to %d", value, maxAge)
		}
		p.MaxAge = time.Duration(n) * time.Second
	case "mx":
		value = strings.Clone(strings.ToLower(value)) // without the text around it
		domain := strings.TrimPrefix(value, "*.")
		// What the name looks like in the end must be what stands there: A-labels, no dot after it.
		if name, err := address.Domain(domain); err != nil || name != domain || name[0] == '[' {
			return fmt.Errorf("mx %.300q is not a host name", value)
		}
		if len(p.MX) == maxMX {
			return fmt.Errorf("more than %d mx", maxMX)
		}
		p.MX = append(p.MX, value)
	}
	return nil
}
