package dane

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"

	"relayd/dns"
)

// The numbers in a TLSA record (RFC 6698 section 2.1, names of RFC 7218).
const (
	usageTA = 2 // a trust anchor that the records bring along
	usageEE = 3 // the server's own certificate or key

	selectorCert = 0 // the whole certificate
	selectorSPKI = 1 // its public key

	matchingFull   = 0
	matchingSHA256 = 1
	matchingSHA512 = 2
)

// Usable returns the records that Verify goes by. PKIX-TA(0) and PKIX-EE(1) are not among them
// (RFC 7672 section 3.1.3), nor what has unknown numbers or data that cannot be right. Of the
// digests for the same usage and selector only the strongest counts (RFC 7671 section 9).
func Usable(records []dns.TLSA) []dns.TLSA {
	type class struct{ usage, selector uint8 }
	strong := map[class]bool{}
	for _, r := range records {
		if r.Matching == matchingSHA512 && wellFormed(r) {
			strong[class{r.Usage, r.Selector}] = true
		}
	}
	var usable []dns.TLSA
	for _, r := range records {
		weak := r.Matching == matchingSHA256 && strong[class{r.Usage, r.Selector}]
		if wellFormed(r) && !weak {
			usable = append(usable, r)
		}
	}
	return usable
}

func wellFormed(r dns.TLSA) bool {
	if r.Usage != usageTA && r.Usage != usageEE || r.Selector > selectorSPKI {
		return false
	}
	switch r.Matching {
	case matchingSHA256:
		return len(r.Data) == sha256.Size
	case matchingSHA512:
		return len(r.Data) == sha512.Size
	case matchingFull:
		var err error
		if r.Selector == selectorCert {
			_, err = x509.ParseCertificate(r.Data)
		} else {
			_, err = x509.ParsePKIXPublicKey(r.Data)
		}
		return err == nil
	}
	return false
}

// matches reports whether a well-formed record stands for cert.
func matches(r dns.TLSA, cert *x509.Certificate) bool {
	content := cert.Raw
	if r.Selector == selectorSPKI {
		content = cert.RawSubjectPublicKeyInfo
	}
	switch r.Matching {
	case matchingSHA256:
		digest := sha256.Sum256(content)
		content = digest[:]
	case matchingSHA512:
		digest := sha512.Sum512(content)
		content = digest[:]
	}
	return bytes.Equal(content, r.Data)
}
