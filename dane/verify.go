package dane

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"relayd/dns"
)

const (
	// maxChain bounds how many of the presented certificates are looked at. Real chains have up
	// to four; each further one costs a signature check for every bare key in the records.
	maxChain = 16
	// maxBareKeys bounds how many public keys in full are tried as trust anchors.
	maxBareKeys = 4
)

// Verify reports whether a server that presented chain, its own certificate first, the rest in any
// order, is one that records stand for. The TLS handshake must have proven that it has the key.
//
// A DANE-EE(3) record needs no more than to match the server's certificate or key: names and dates
// do not count (RFC 7672 section 3.1.1). With DANE-TA(2) a valid chain must lead to the anchor, and
// the server's certificate must be for one of names: the host that the TLSA records were looked
// up for, and the domain that the mail is for, with that to which a CNAME expands it (section
// 3.2.2). Names are A-labels without the final dot. A subject's common name is not taken for a
// host name. An anchor need not be presented if a record holds all of it.
//
// The error is nil for an authenticated server and else an *Error. ErrUnusable means that the mail
// may go on the connection all the same, encrypted but to an unknown server (section 2.2). Any
// other one means that no mail may go there. Safe for concurrent use.
func Verify(records []dns.TLSA, chain []*x509.Certificate, names []string, now time.Time) error {
	usable := Usable(records)
	if len(usable) == 0 {
		return &Error{TLSAInvalid, ErrUnusable}
	}
	if len(chain) == 0 {
		return &Error{ValidationFailure, errors.New("the server presented no certificate")}
	}
	chain = chain[:min(len(chain), maxChain)]
	for _, r := range usable {
		if r.Usage == usageEE && matches(r, chain[0]) {
			return nil
		}
	}
	roots := anchors(usable, chain)
	if len(roots) == 0 {
		return &Error{ValidationFailure, errors.New("no TLSA record matches the presented certificates")}
	}
	return verifyChain(chain, roots, names, now)
}

// anchors returns the certificates that usable DANE-TA records make roots. The server's own
// certificate is none of them by a match: that is what DANE-EE is for.
func anchors(usable []dns.TLSA, chain []*x509.Certificate) []*x509.Certificate {
	var roots []*x509.Certificate
	keys := 0
	for _, r := range usable {
		if r.Usage != usageTA {
			continue
		}
		for _, cert := range chain[1:] {
			if matches(r, cert) {
				roots = append(roots, cert)
			}
		}
		if r.Matching != matchingFull {
			continue
		}
		if r.Selector == selectorCert {
			if cert, err := x509.ParseCertificate(r.Data); err == nil {
				roots = append(roots, cert)
			}
		} else if keys++; keys <= maxBareKeys {
			roots = append(roots, signedBy(r.Data, chain)...)
		}
	}
	return roots
}

// signedBy returns those of chain that a public key in PKIX form has signed. To trust them is to
// trust the key, whose own certificate need not exist. The key's certificate, where it is presented,
// is an anchor by its match already.
func signedBy(spki []byte, chain []*x509.Certificate) []*x509.Certificate {
	key, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil
	}
	issuer := &x509.Certificate{PublicKey: key}
	var signed []*x509.Certificate
	for _, cert := range chain {
		algorithm := cert.SignatureAlgorithm
		if algorithm == x509.SHA1WithRSA || algorithm == x509.ECDSAWithSHA1 {
			continue // CheckSignature takes them, though SHA-1 proves nothing
		}
		if issuer.CheckSignature(algorithm, cert.RawTBSCertificate, cert.Signature) == nil {
			signed = append(signed, cert)
		}
	}
	return signed
}

// verifyChain checks that chain leads to one of roots, is valid now, and is for one of names.
func verifyChain(chain, roots []*x509.Certificate, names []string, now time.Time) error {
	leaf := chain[0]
	opts := x509.VerifyOptions{Roots: pool(roots), Intermediates: pool(chain[1:]), CurrentTime: now}
	if _, err := leaf.Verify(opts); err != nil {
		result := CertificateNotTrusted
		if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
			result = CertificateExpired
		}
		return &Error{result, err}
	}
	mismatch := fmt.Errorf("the certificate is for none of %q", names)
	for _, name := range names {
		err := leaf.VerifyHostname(name)
		if err == nil {
			return nil
		}
		mismatch = err
	}
	return &Error{CertificateHostMismatch, mismatch}
}

func pool(certs []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, cert := range certs {
		p.AddCert(cert)
	}
	return p
}
