package mailauth

import (
	"context"
	"errors"
	"strings"

	"relayd/address"
	"relayd/dkim"
	"relayd/dns"
)

// A DMARC is what RFC 9989 makes of the results of SPF and DKIM.
type DMARC struct {
	// Result is None for a domain without a record and for a message without an author's domain,
	// PermError for a record that is of no use, and TempError where DNS owes an answer.
	Result Result
	Domain string // where the record stands: the author's domain or one above it; "" for none
	Policy Policy // for this message, from p, sp or np; "" where there is none or it is not known
	// Testing is set by t=y: the domain asks that its policy be not applied.
	Testing bool
	SPF     bool  // SPF passed for an aligned domain
	DKIM    bool  // a signature of an aligned domain passed
	Err     error // why there is no author, no record of use or no answer

	record  record
	unknown bool     // DNS does not say which policy applies
	guessed bool     // for want of an answer it is a guess which domains belong together
	certain bool     // something passed whose alignment is no guess
	missing []string // the questions without answer of which one could have made this a pass
}

var (
	errNoDomain   = errors.New("the author's address has no domain name")
	errNoPolicy   = errors.New("the DMARC record has no valid policy")
	errUnanswered = errors.New("DNS does not answer")
)

// discover finds the policy for mail of an author (RFC 9989 section 4.10.1).
func (d *DMARC) discover(ctx context.Context, w *walker, from address.Address) {
	domain := from.Domain
	if strings.HasPrefix(domain, "[") {
		d.Err = errNoDomain
		return
	}
	a := w.record(ctx, domain)
	d.Domain = domain
	if !a.found && a.err == nil {
		org := w.organization(ctx, domain)
		a.err = org.err
		d.Domain = org.domain
		if a.err == nil && !w.answers[org.domain].found {
			d.Domain = org.psd
		}
		if a.err == nil {
			a = w.answers[d.Domain]
		}
	}
	switch {
	case a.err != nil:
		d.Domain, d.unknown, d.Err = "", true, a.err
	case !a.found:
		d.Domain = ""
	case !a.record.usable:
		d.Err = errNoPolicy
	default:
		d.record, d.Testing = a.record, a.record.testing
		d.apply(ctx, w.resolver, domain)
	}
}

// apply picks the policy out of the record: p for the domain that has the record, np for one below
// it that does not exist, sp for one that does.
func (d *DMARC) apply(ctx context.Context, r Resolver, author string) {
	switch {
	case d.Domain == author:
		d.Policy = d.record.policy
		return
	case d.record.nonexistent == d.record.subdomain:
		d.Policy = d.record.subdomain
		return
	}
	there, err := exists(ctx, r, author)
	switch {
	case err != nil && (d.record.subdomain == PolicyReject || d.record.nonexistent == PolicyReject):
		d.unknown, d.Err = true, &unanswered{err}
	case err != nil, there:
		d.Policy = d.record.subdomain
	default:
		d.Policy = d.record.nonexistent
	}
}

// exists is existence as DMARC defines it: DNS does not say NXDOMAIN (RFC 9989 section 3.2.13). The
// error is of a DNS that does not answer.
func exists(ctx context.Context, r Resolver, domain string) (bool, error) {
	switch _, err := r.MX(ctx, domain); {
	case errors.Is(err, dns.ErrNotExist):
		return false, nil
	case err == nil, errors.Is(err, dns.ErrNoData):
		return true, nil
	default:
		return false, err
	}
}

// align finds out which results count for the author's domain, and so the result of DMARC.
func (v *Verdict) align(ctx context.Context, w *walker) {
	d := &v.DMARC
	d.Result = None
	if v.From.IsNull() || d.Err == errNoDomain {
		return
	}
	if d.unknown {
		d.missing = append(d.missing, policyQuestion(v.From.Domain))
	}
	if v.SPF.Result == Pass || v.SPF.Result == TempError {
		id := identifier{v.SPF.Domain, d.record.strictSPF, v.SPF.Result == Pass, spfQuestion(v.SPF.Domain)}
		d.SPF = d.count(ctx, w, v.From.Domain, id)
	}
	for _, s := range v.DKIM {
		if s.Domain != "" && (s.Kind == dkim.Pass || s.Kind == dkim.TempError) {
			id := identifier{s.Domain, d.record.strictDKIM, s.Kind == dkim.Pass, dkimQuestion(s)}
			d.DKIM = d.count(ctx, w, v.From.Domain, id) || d.DKIM
		}
	}
	d.conclude()
}

// An identifier is a domain that SPF or DKIM speaks for, or might if DNS answered.
type identifier struct {
	domain   string
	strict   bool   // only the author's domain itself will do
	passed   bool   // as opposed to waiting for an answer
	question string // which answer that is
}

// count reports whether an identifier has passed and is aligned with the author (RFC 9989 section
// 4.4), and notes which answers could have made it so. Where DNS does not say, a guess that two
// domains belong together will do; that they do not must be known.
func (d *DMARC) count(ctx context.Context, w *walker, author string, id identifier) bool {
	same, err := id.domain == author, error(nil)
	if !id.strict {
		same, err = w.sameOrganization(ctx, author, id.domain)
	}
	d.guessed = d.guessed || err != nil
	switch {
	case same && !id.passed:
		d.missing = append(d.missing, id.question)
	case !same && err != nil:
		d.missing = append(d.missing, policyQuestion(author))
	}
	d.certain = d.certain || same && id.passed && err == nil
	return same && id.passed
}

// conclude makes the result, as far as it is one: a policy is applied only to what has failed for
// good (RFC 9989 section 5.3.6).
func (d *DMARC) conclude() {
	passed := d.SPF || d.DKIM
	if passed {
		d.missing = nil
	}
	switch {
	case d.unknown && d.Domain == "":
		d.Result = TempError
	case d.Domain == "":
		d.Result = None
	case !d.record.usable:
		d.Result = PermError
	case d.certain:
		d.Result = Pass
	case passed, d.unknown, len(d.missing) > 0:
		d.Result = TempError
	default:
		d.Result = Fail
	}
	if d.Result == TempError && d.Err == nil {
		d.Err = errUnanswered
	}
}
