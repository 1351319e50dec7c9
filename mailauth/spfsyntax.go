package mailauth

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// The grammar of RFC 7208 section 12. Letters of either case mean the same in names. No domain is
// made of the macros c, r and t; only modifiers that nobody knows may have them.
const (
	macroTail   = `[0-9]*[rR]?[-.+,/_=]*\}`
	macroExpand = `%(?:\{(?i:[slodiphv])` + macroTail + `|[%_-])`
	macroText   = `(?:[!-$&-~]|` + macroExpand + `)*`
	anyText     = `(?:[!-$&-~]|%(?:\{(?i:[slodiphvcrt])` + macroTail + `|[%_-]))*`
	topLabel    = `(?:[0-9A-Za-z]*[A-Za-z][0-9A-Za-z]*|[0-9A-Za-z]+-[0-9A-Za-z-]*[0-9A-Za-z])`
	domainSpec  = macroText + `(?:\.` + topLabel + `\.?|` + macroExpand + `)`
	cidr4       = `/(?:[12]?[0-9]|3[0-2])`
	cidr6       = `/(?:[1-9]?[0-9]|1[01][0-9]|12[0-8])`
	hosts       = `(?::` + domainSpec + `)?(?:` + cidr4 + `)?(?:/` + cidr6 + `)?`
)

var (
	spfMechanism = regexp.MustCompile(`^[-+?~]?(?:(?i:all)|(?i:include|exists):` + domainSpec +
		`|(?i:a|mx)` + hosts + `|(?i:ptr)(?::` + domainSpec + `)?` +
		`|(?i:ip4):[0-9.]+(?:` + cidr4 + `)?|(?i:ip6):[0-9A-Fa-f:.]+(?:` + cidr6 + `)?)$`)
	spfModifier   = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9._-]*)=` + anyText + `$`)
	spfDomainSpec = regexp.MustCompile(`^` + domainSpec + `$`)
)

// maxPolicy is the longest policy that is read, in octets: more than any real one by far, since
// it should fit into 512 (RFC 7208 section 3.4).
const maxPolicy = 16 << 10

// checkPolicy returns an error for an SPF policy with a syntax error in any of its terms. Text
// that is no SPF policy has none. The addresses of ip4 and ip6 are left to who compares them.
func checkPolicy(txt string) error {
	version, rest, _ := strings.Cut(txt, " ")
	if !strings.EqualFold(version, "v=spf1") {
		return nil
	}
	if len(txt) > maxPolicy {
		return errors.New("the policy is too long")
	}
	seen := map[string]bool{}
	for term := range strings.SplitSeq(rest, " ") {
		if term == "" || spfMechanism.MatchString(term) {
			continue
		}
		m := spfModifier.FindStringSubmatch(term)
		if m == nil {
			return fmt.Errorf("syntax error in %.40q", term)
		}
		name, value := strings.ToLower(m[1]), term[len(m[1])+1:]
		known := name == "redirect" || name == "exp"
		switch {
		case known && seen[name]:
			return fmt.Errorf("%s= stands twice", name)
		case known && !spfDomainSpec.MatchString(value):
			return fmt.Errorf("syntax error in %.40q", term)
		}
		seen[name] = true
	}
	return nil
}
