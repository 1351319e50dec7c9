// Package mailauth finds out whether a message comes from where it says: by SPF (RFC 7208), DKIM
// (RFC 6376, through package dkim and its guards) and DMARC (RFC 9989), and what reverse DNS calls the
// client (RFC 8601 section 3). Check gives one Verdict,
// which knows the Authentication-Results field to put in front (RFC 8601), whether a forwarding
// relay is to refuse the message, and the facts that others decide by.
//
// It promises:
//
//   - A DNS that does not answer is never taken for a failure. Where the missing answer decides,
//     the message is put off; where it has been missing for hours, it is left out of account.
//   - A message costs a bounded amount of DNS and of time, whoever wrote it: the limits of RFC 7208
//     section 4.6.4, ten signatures, eight queries for one tree walk, 30 seconds for all.
//   - No byte from outside gets into the field but as a checked domain or sanitised and quoted.
//   - A message is never refused for a missing, repeated or malformed From: it has no DMARC verdict.
//
// RemoveResults takes out fields of others that carry our name (RFC 8601 section 5).
package mailauth

import (
	"cmp"
	"context"
	"io"
	"net/netip"
	"time"

	"relayd/address"
	"relayd/dkim"
	"relayd/dns"
	"relayd/message"
	"relayd/tasks"
)

// How long DNS is asked about one message. Whatever has no answer by then has no answer for now.
const (
	dnsTime = 20 * time.Second // for SPF, keys and the policy: what RFC 7208 section 4.6.4 asks for at least
	orgTime = 10 * time.Second // after that, for which domains belong together
)

// A Resolver answers from DNS as *dns.Resolver does: every error is a *dns.Error. It is called
// from several goroutines at a time.
type Resolver interface {
	TXT(ctx context.Context, name string) ([]string, error)
	MX(ctx context.Context, domain string) (dns.Answer[dns.MX], error)
	IP(ctx context.Context, host, network string) (dns.Answer[netip.Addr], error)
	PTR(ctx context.Context, ip netip.Addr) ([]string, error)
}

// Options are what a Checker needs. All are required.
type Options struct {
	Resolver Resolver
	Hostname string // the authserv-id of our fields (RFC 8601 section 2.5): a domain
	Now      func() time.Time
}

// A Checker checks messages. Make one with New and share it: it is safe for concurrent use.
type Checker struct {
	resolver Resolver
	hostname string
	outages  *outages
}

// New returns a Checker. It starts nothing, so there is nothing to close.
func New(opt Options) *Checker {
	return &Checker{opt.Resolver, opt.Hostname, newOutages(opt.Now)}
}

// A Message is what came in a transaction of SMTP.
type Message struct {
	IP     netip.Addr      // of the client
	Helo   string          // as the client said it, unchecked
	Sender address.Address // MAIL FROM; zero is "<>"
	Header message.Header  // as it came
	Text   io.Reader       // the whole message as it came, header and all; read once, not to its end if it is not signed
}

// Check checks a message. It returns the errors of m.Text, and that of ctx if it ends first; DNS
// gives none, and is not waited for longer than 30 seconds.
func (c *Checker) Check(ctx context.Context, m Message) (*Verdict, error) {
	asking, cancel := context.WithTimeout(ctx, dnsTime)
	defer cancel()
	w := &watched{Resolver: c.resolver}
	c = &Checker{w, c.hostname, c.outages}
	v := &Verdict{hostname: c.hostname, client: m.IP.Unmap(), sender: m.Sender}
	walker := newWalker(c.resolver)
	from, fromErr := m.Header.From()

	var checks tasks.Group
	checks.Go(func() { v.SPF, v.HeloSPF = c.checkSPF(asking, m) })
	checks.Go(func() { v.IPRev = checkIPRev(asking, w.Resolver, v.client) }) // no answer of it is waited for
	checks.Go(func() {
		if fromErr == nil {
			v.DMARC.discover(asking, walker, from)
		}
	})
	var unread error
	checks.Go(func() {
		// A context with the time for DNS would end the reading as well.
		v.DKIM, unread = dkim.Verify(ctx, m.Text, func(_ context.Context, name string) ([]string, error) {
			return keyRecords(asking, c.resolver, name)
		})
		if unread != nil {
			cancel()
		}
	})
	checks.Wait()
	if unread != nil {
		return nil, unread
	}
	v.From, v.DMARC.Err = from, cmp.Or(fromErr, v.DMARC.Err)
	comparing, cancelComparing := context.WithTimeout(ctx, orgTime)
	defer cancelComparing()
	v.align(comparing, walker)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx) // what DNS did not say is then no outage
	}
	v.overdue, v.closed = c.outages.update(v), w.closed()
	return v, nil
}

// SameOrganization reports whether two domains have the same organisational domain (RFC 9989
// section 4.10.2). It always gives its best guess, from the public suffix list where DNS does not
// answer; the error, a temporary one, says that it is only a guess.
func (c *Checker) SameOrganization(ctx context.Context, a, b string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, orgTime)
	defer cancel()
	return newWalker(c.resolver).sameOrganization(ctx, a, b)
}

// An unanswered is the error for a question that DNS has not answered. Its text tells a stranger
// nothing of the servers that we ask.
type unanswered struct{ cause error }

func (e *unanswered) Error() string   { return "DNS does not answer" }
func (e *unanswered) Unwrap() error   { return e.cause }
func (e *unanswered) Temporary() bool { return true }

// keyRecords is a dkim.TXTLookup.
func keyRecords(ctx context.Context, r Resolver, name string) ([]string, error) {
	txts, err := r.TXT(ctx, name)
	switch {
	case err == nil:
		return txts, nil
	case absent(err):
		return nil, nil
	}
	return nil, &unanswered{err}
}
