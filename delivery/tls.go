package delivery

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"relayd/dane"
	"relayd/mtasts"
	"relayd/reply"
	"relayd/tlsrpt"
)

// TLS says how a connection was protected. The zero value stands for no connection.
type TLS struct {
	Version string // such as "TLS1.3"; "" in the clear
	Cipher  string // by its IANA name; "" in the clear
	By      string // what the server's certificate was judged by: one of the following
}

// Values of TLS.By.
const (
	ByNone    = "none"          // there is none, nor TLS
	ByNothing = "opportunistic" // any certificate did
	ByName    = "webpki"        // it is the host's, as a trusted authority says
	BySTS     = "mta-sts"       // the same, because the domain asks for it (RFC 8461)
	ByDANE    = "dane"          // DNSSEC says that it is the host's (RFC 7672)
)

// String is for the log: "TLS1.3 mta-sts", or "none" in the clear, or "" without a connection.
func (t TLS) String() string { return strings.TrimSpace(t.Version + " " + t.By) }

// tlsOf describes a connection after its handshake.
func tlsOf(state tls.ConnectionState, by string) TLS {
	return TLS{
		Version: strings.ReplaceAll(tls.VersionName(state.Version), " ", ""),
		Cipher:  tls.CipherSuiteName(state.CipherSuite), By: by,
	}
}

// A Demand is how much TLS the administrator wants of a mail exchanger.
type Demand string

// The Demands.
const (
	DemandNone    Demand = "none"    // STARTTLS is not used
	DemandMay     Demand = "may"     // where it is offered, and else in the clear
	DemandEncrypt Demand = "encrypt" // TLS with any certificate, or no mail
	DemandVerify  Demand = "verify"  // TLS with a certificate that verifies for the host, or no mail
)

// Demands are those of the administrator, by name in lower case: a domain of recipients
// "example.org"; ".example.org", which is all domains below that; a host; the registrable domain of
// hosts, as Group has it; or "*". Names of recipients' domains come before those of hosts, and the
// longer before the shorter. What stands under a name is all that counts for that mail. "*" is in
// the place of "may", for hosts of which neither DANE nor MTA-STS demands anything.
type Demands map[string]Demand

// of returns what is demanded by name for a host and the mail that is to go there.
func (d Demands) of(domain, host string) (Demand, bool) {
	if demand, ok := d[domain]; ok {
		return demand, true
	}
	for rest, more := domain, true; more; {
		if _, rest, more = strings.Cut(rest, "."); more {
			if demand, ok := d["."+rest]; ok {
				return demand, true
			}
		}
	}
	if demand, ok := d[host]; ok {
		return demand, true
	}
	group, err := publicsuffix.EffectiveTLDPlusOne(host)
	if err != nil {
		return "", false
	}
	demand, ok := d[group]
	return demand, ok
}

// A PolicySource knows MTA-STS policies; *mtasts.Cache is one.
type PolicySource interface {
	Policy(ctx context.Context, domain string) (mtasts.Policy, error)
}

// TLSOptions are what protects connections to mail exchangers. The zero value is TLS where it is
// offered, with any certificate.
type TLSOptions struct {
	Demands  Demands
	TLSA     dane.Resolver // of DANE; nil: it is not looked at
	Policies PolicySource  // of MTA-STS; nil: it is not looked at
	// Report is told how each connection fared, except where the administrator has demanded
	// something of the host or domain by name; nil: nobody is told.
	Report func(tlsrpt.Session)
	// Load and Save keep what is known of hosts that have had TLS over restarts; both nil: it is
	// forgotten. Save replaces all of it in one step; Load returns what was saved last, nil without
	// an error if nothing was.
	Load func() ([]byte, error)
	Save func([]byte) error
}

// judge reports what is wrong with the certificates that a server presented, its own first. Dates
// and names count as the demand says.
func (d *demand) judge(chain []*x509.Certificate, roots *x509.CertPool, now time.Time) error {
	switch {
	case len(d.records) > 0:
		return dane.Verify(d.records, chain, d.names, now)
	case d.level == mustVerify, d.audit:
		return verify(chain, d.names[0], roots, now)
	}
	return nil
}

// verify checks a chain as a browser would. The name comes last, so that the error is about it only
// if nothing else is wrong.
func verify(chain []*x509.Certificate, name string, roots *x509.CertPool, now time.Time) error {
	if len(chain) == 0 {
		return errors.New("the server presented no certificate")
	}
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: now}
	for _, cert := range chain[1:] {
		opts.Intermediates.AddCert(cert)
	}
	if _, err := chain[0].Verify(opts); err != nil {
		return err
	}
	return chain[0].VerifyHostname(name)
}

// tlsConfig judges certificates by what is demanded. What is wrong with one that must not be wrong
// ends the handshake; else it is noted in s.flaw. A session that is resumed is judged, too, by what
// was presented when it began.
func (c *Client) tlsConfig(s *session) *tls.Config {
	d, conf := s.demand, c.tls.Clone()
	conf.ServerName = d.names[0]
	conf.InsecureSkipVerify = true // VerifyConnection does it
	conf.VerifyConnection = func(state tls.ConnectionState) error {
		s.flaw = d.judge(state.PeerCertificates, c.opt.RootCAs, c.opt.Now())
		if d.audit {
			return nil
		}
		return s.flaw
	}
	return conf
}

// unproven is the reply about a server whose certificate is not what is demanded.
func (s *session) unproven() error {
	return reply.New(451, "4.7.5", "%s does not prove by its certificate who it is%s: %s", s.peer, s.demand.whose(), wordsFor(failureOf(s.flaw))).
		Because(fmt.Errorf("%w: %w", errNoTLS, s.flaw))
}

// whose tells, behind what is wrong with a host, who demands that it be right.
func (d *demand) whose() string {
	switch d.by {
	case ByDANE:
		return " (which its domain demands by DANE)"
	case BySTS:
		return " (which its domain demands by MTA-STS)"
	}
	return ""
}

// wordsFor say what is wrong with a certificate, in our words: those within it are anybody's.
func wordsFor(failure string) string {
	switch failure {
	case tlsrpt.HostMismatch:
		return "it is for other names"
	case tlsrpt.NotTrusted:
		return "no trusted authority stands for it"
	case tlsrpt.Expired:
		return "it has expired or is not valid yet"
	}
	return "it is not the one that is expected"
}

// Errors of TLS, all within errNoTLS where mail may go on without.
var (
	// errNotOffered: a server has no STARTTLS, or refuses it.
	errNotOffered = errors.New("STARTTLS is not supported")
	// errInjected: somebody put words into the server's mouth.
	errInjected = errors.New("plaintext behind STARTTLS")
)

// failureOf names what went wrong with TLS for a report; "" for an error that is not about TLS.
func failureOf(err error) string {
	if own, ok := errors.AsType[*dane.Error](err); ok {
		return string(own.Result)
	}
	if policy, ok := errors.AsType[*mtasts.Error](err); ok {
		return string(policy.Result)
	}
	_, mismatch := errors.AsType[x509.HostnameError](err)
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](err)
	switch {
	case errors.Is(err, errNotOffered):
		return tlsrpt.NotSupported
	case mismatch:
		return tlsrpt.HostMismatch
	case unknown:
		return tlsrpt.NotTrusted
	case isInvalid && invalid.Reason == x509.Expired:
		return tlsrpt.Expired
	case isInvalid, errors.Is(err, errNoTLS), errors.Is(err, errInjected), errors.Is(err, errNotNamed):
		return tlsrpt.ValidationFailed
	}
	return ""
}

// String is what is told apart by the pool: connections under demands of the same text are as good
// as each other.
func (d *demand) String() string {
	text := fmt.Sprintf("%d %s", d.level, d.by)
	if len(d.records) > 0 {
		text += fmt.Sprintf(" %q %x", d.names, d.records)
	}
	return text
}

// names lists what is told apart, each once, in their order, without empty ones.
func names(list ...string) []string {
	var kept []string
	for _, name := range list {
		if name != "" && !slices.Contains(kept, name) {
			kept = append(kept, name)
		}
	}
	return kept
}
