// Package dane authenticates mail exchangers by the TLSA records that their domains publish under
// DNSSEC (DANE for SMTP). It promises:
//
//   - Lookup yields records only from an answer that DNSSEC vouches for. A lookup that fails is
//     never taken for "no records": who could suppress them could downgrade every connection.
//   - Verify accepts a server only by a record of usage DANE-TA(2) or DANE-EE(3) that is understood
//     in full. The certificate authorities of the system play no part.
//   - Where records exist, TLS is mandatory, even if none of them can be used.
//   - The work for one server is bounded whatever it presents and publishes.
//
// The caller sees to what comes first: MX and addresses of a host must have been Secure too, and
// the way to a validating resolver must be trusted, which in practice means one on this host.
//
// Sources: RFC 6698 (TLSA), RFC 7671 (operation, digest agility), RFC 7672 (SMTP), RFC 8460 section
// 4.3 (the names of failures).
package dane

import (
	"context"
	"errors"

	"relayd/dns"
)

// A Result is a kind of failure under the name that TLS reports use for it (RFC 8460 section 4.3).
type Result string

const (
	// ValidationFailure: no record stands for the certificates that the server presented.
	ValidationFailure Result = "validation-failure"
	// CertificateNotTrusted: a trust anchor is there, but no valid chain leads to it.
	CertificateNotTrusted Result = "certificate-not-trusted"
	// CertificateHostMismatch: a chain leads to a trust anchor, for another name.
	CertificateHostMismatch Result = "certificate-host-mismatch"
	// CertificateExpired: a trust anchor is there, but it or a certificate below it is expired or not
	// valid yet.
	CertificateExpired Result = "certificate-expired"
	// TLSAInvalid: there are records, but none that can be used.
	TLSAInvalid Result = "tlsa-invalid"
	// DNSSECInvalid: DNS cannot say at the moment whether there are records.
	DNSSECInvalid Result = "dnssec-invalid"
)

// ErrUnusable is what errors.Is finds in an Error with the Result TLSAInvalid.
var ErrUnusable = errors.New("no TLSA record is usable")

// An Error says why a server is not authenticated. It is the only type of error here.
type Error struct {
	Result Result
	Cause  error // never nil
}

// Error is one line for a log.
func (e *Error) Error() string { return "dane: " + e.Cause.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Resolver is the part of dns.Resolver that Lookup needs.
type Resolver interface {
	TLSA(ctx context.Context, host string, port int) (dns.Answer[dns.TLSA], error)
}

// Lookup returns the TLSA records of a host that is known to have Secure addresses, all of them,
// usable or not. With none, DANE says nothing about this host; with any, mail goes to it by TLS or
// not at all, and Verify has the last word.
//
// The error is an *Error with the Result DNSSECInvalid when DNS does not answer, as it must not
// where a signature is wrong: the host is then not to be used in this attempt (RFC 7672 section
// 2.1.1).
func Lookup(ctx context.Context, r Resolver, host string, port int) ([]dns.TLSA, error) {
	answer, err := r.TLSA(ctx, host, port)
	switch {
	case errors.Is(err, dns.ErrNotExist), errors.Is(err, dns.ErrNoData):
		return nil, nil
	case err != nil:
		return nil, &Error{DNSSECInvalid, err}
	case !answer.Secure:
		return nil, nil // anybody may have written them
	}
	return answer.Records, nil
}
