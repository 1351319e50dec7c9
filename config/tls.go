package config

import (
	"maps"
	"slices"
	"strings"
)

// Values in Outbound.TLS.
const (
	TLSNone    = "none"    // never
	TLSMay     = "may"     // where it is offered
	TLSEncrypt = "encrypt" // with any certificate, or no mail
	TLSVerify  = "verify"  // with a certificate that verifies for the host, or no mail
)

// tlsDemands checks each line of [outbound.tls] and brings the names into normal form.
func tlsDemands(p *map[string]string) func(complaints) {
	return func(bad complaints) {
		normal := make(map[string]string, len(*p))
		for _, key := range slices.Sorted(maps.Keys(*p)) {
			value := (*p)[key]
			oneOf(&value, TLSNone, TLSMay, TLSEncrypt, TLSVerify)(bad.under(key))
			name, err := tlsName(key)
			if err != nil {
				bad.under(key).add("%v", err)
				continue
			}
			if _, twice := normal[name]; twice {
				bad.under(key).add("stands twice: %s is the same name", name)
			}
			normal[name] = value
		}
		*p = normal
	}
}

// tlsName reads "example.org", ".example.org" or "*".
func tlsName(s string) (string, error) {
	if s == "*" {
		return s, nil
	}
	domain, below := strings.CutPrefix(s, ".")
	domain, err := qualified(domain)
	if below {
		domain = "." + domain
	}
	return domain, err
}

// A Trust says whether DNS servers are believed about DNSSEC.
type Trust int

const (
	// TrustAuto believes them when all of them are on this machine.
	TrustAuto Trust = iota
	TrustYes
	TrustNo
)

// assignTrust reads true, false or "auto". It is of no other type because nobody would look for
// quotes around true.
func assignTrust(p *Trust, value any, bad complaints) bool {
	switch value {
	case "auto":
		*p = TrustAuto
	case true:
		*p = TrustYes
	case false:
		*p = TrustNo
	default:
		bad.add(`must be true or false, without quotes, or "auto", not %s`, kind(value))
		return false
	}
	return true
}
