package delivery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"relayd/dane"
	"relayd/dns"
	"relayd/mtasts"
	"relayd/reply"
	"relayd/tlsrpt"
)

// policyWait is how long the first message for a domain waits for its MTA-STS policy. A fetch takes
// less; only the turn of one may not come. It then goes as if there were none, as the first message
// to a domain whose policy cannot be fetched does (RFC 8461 section 3.3).
const policyWait = 2 * time.Minute

// A level is how much TLS there must be.
type level int

const (
	noTLS      level = iota // none, even if it is offered
	mayTLS                  // where it is offered
	mustTLS                 // with any certificate
	mustVerify              // with one that is judged
)

// A demand is what a connection to a host must be like. It is not changed once made.
type demand struct {
	level   level
	by      string        // TLS.By of a connection that meets it
	names   []string      // for which a certificate may be; the first is the one that is asked for
	records []dns.TLSA    // usable ones, which a certificate is judged by instead of by authorities
	audit   bool          // it is judged, and used whatever comes of that
	policy  tlsrpt.Policy // whose demand it is; the zero Policy is not reported about
}

// with is d as the administrator wants it.
func (d demand) with(wanted Demand) demand {
	switch wanted {
	case DemandNone:
		d.level = noTLS
	case DemandEncrypt:
		d.level = mustTLS
	case DemandVerify:
		d.level, d.by = mustVerify, ByName
	}
	return d
}

// protect returns the route with what is demanded of connections to f. Where no mail may go now, f
// has no addresses after it, and the reason.
func (c *Client) protect(ctx context.Context, route Route, f *found, a *attempt) Route {
	if f.err != nil {
		return route
	}
	d, err := c.demand(ctx, route, *f, a)
	if err != nil {
		f.err, f.targets = err, nil
	}
	if a.message.RequireTLS && !route.LMTP && d.level < mustVerify && isMeant(route, *f) {
		d.level, d.by, d.audit = mustVerify, ByName, false
	}
	route.demand = &d
	return route
}

// demand decides how a host is to be connected to for a message. An error carries the reply.
func (c *Client) demand(ctx context.Context, route Route, f found, a *attempt) (demand, error) {
	name := strings.ToLower(f.host.name)
	d := demand{level: mayTLS, by: ByNothing, names: []string{name}}
	if name == "" {
		d.names[0] = f.host.ip.String()
	}
	domain := route.Domain
	if route.LMTP { // how mail reaches the domain is another matter than how it goes on here
		domain = ""
	}
	wanted, explicit := c.opt.TLS.Demands.of(domain, name)
	switch {
	case f.host.path != "": // a unix socket leads no further than this machine
		return d.with(DemandNone), nil
	case route.tls() != Opportunistic:
		return d.with(DemandVerify), nil
	case explicit:
		return d.with(wanted), nil
	case route.LMTP:
		return d, nil
	}
	d = d.with(c.opt.TLS.Demands["*"])
	if a.message.TLSOptional {
		return d, nil
	}
	if len(route.Hosts) == 0 && d.level != noTLS {
		d.policy = tlsrpt.Policy{Type: tlsrpt.NoPolicy, Domain: route.Domain}
	}
	d, err := c.byDANE(ctx, route, f, d)
	if err != nil || d.by == ByDANE { // RFC 8461 section 2: a policy must not make up for it
		return d, err
	}
	return c.bySTS(a.policy(), route, d)
}

// byDANE is d if DANE has nothing to say about the host. Where records exist of which none is usable,
// any certificate does, but TLS there must be (RFC 7672 section 2.2).
func (c *Client) byDANE(ctx context.Context, route Route, f found, d demand) (demand, error) {
	records, base, err := c.tlsa(ctx, route, f)
	if err == nil && len(records) == 0 {
		return d, nil
	}
	policy := tlsrpt.Policy{Type: tlsrpt.TLSA, Domain: route.Domain}
	for _, r := range records {
		policy.Strings = append(policy.Strings, fmt.Sprintf("%d %d %d %x", r.Usage, r.Selector, r.Matching, r.Data))
	}
	usable := dane.Usable(records)
	if len(usable) == 0 {
		why := err
		if why == nil {
			why = &dane.Error{Result: dane.TLSAInvalid, Cause: dane.ErrUnusable}
		}
		c.complain(route, tlsrpt.Session{Policy: policy, Host: f.host.name}, why)
	}
	switch {
	case err != nil:
		return d, reply.New(451, "4.7.5", "DNS does not say at the moment which certificate %s must have", f.host.name).Because(err)
	case len(usable) == 0:
		d.level = max(d.level, mustTLS)
		return d, nil
	}
	own := []string{base}
	if f.host.zone != "" || f.host.implicit { // RFC 7672 section 3.2.2
		own = names(base, route.Domain, f.host.zone)
	}
	d = demand{level: mustVerify, by: ByDANE, names: own, records: usable}
	if len(route.Hosts) == 0 {
		d.policy = policy
	}
	return d, nil
}

// tlsa returns the TLSA records of a host and the name that they were found at: first where its
// CNAMEs lead, then its own (RFC 7672 section 2.2.2). There are none unless DNSSEC vouches for all
// that led there. For a domain that is its own mail exchanger its address tells: where that is
// signed, nobody but the domain could say that there is no MX.
func (c *Client) tlsa(ctx context.Context, route Route, f found) (records []dns.TLSA, base string, err error) {
	led := len(route.Hosts) > 0 || f.host.implicit || f.host.zone != ""
	if c.opt.TLS.TLSA == nil || f.host.name == "" || !f.secure || !led {
		return nil, "", nil
	}
	for _, base = range names(f.name, strings.ToLower(f.host.name)) {
		records, err = dane.Lookup(ctx, c.opt.TLS.TLSA, base, f.host.port)
		if err != nil || len(records) > 0 {
			break
		}
	}
	return records, base, err
}

// bySTS is d if the policy demands nothing.
func (c *Client) bySTS(policy mtasts.Policy, route Route, d demand) (demand, error) {
	if policy.Mode == mtasts.None {
		return d, nil
	}
	reported := tlsrpt.Policy{
		Type: tlsrpt.STS, Domain: route.Domain, MX: policy.MX, Strings: strings.Split(strings.TrimSpace(policy.String()), "\n"),
	}
	matches := policy.Matches(d.names[0])
	if !matches {
		why := fmt.Errorf("%w: the policy of %s does not name %s", errNotNamed, route.Domain, d.names[0])
		c.complain(route, tlsrpt.Session{Policy: reported, Host: d.names[0]}, why)
		if policy.Mode == mtasts.Enforce {
			return d, reply.New(451, "4.7.5", "%s is not among the mail servers that the MTA-STS policy of %s names", d.names[0], route.Domain).Because(why)
		}
	}
	if d.level != noTLS || policy.Mode == mtasts.Enforce {
		d.policy = reported
	}
	switch {
	case policy.Mode == mtasts.Enforce:
		d.level, d.by = mustVerify, BySTS
	case d.level < mustVerify:
		d.audit = true
	}
	return d, nil
}

// errNotNamed: a mail exchanger is not one that the domain's policy knows.
var errNotNamed = errors.New("host not in the policy")

// policyOf returns a function that finds the MTA-STS policy for a route, once.
func (c *Client) policyOf(ctx context.Context, route Route) func() mtasts.Policy {
	return sync.OnceValue(func() mtasts.Policy {
		if c.opt.TLS.Policies == nil || len(route.Hosts) > 0 {
			return mtasts.Policy{}
		}
		ctx, cancel := context.WithTimeout(ctx, policyWait)
		defer cancel()
		policy, err := c.opt.TLS.Policies.Policy(ctx, route.Domain)
		if err != nil && ctx.Err() == nil {
			c.complain(route, tlsrpt.Session{Policy: tlsrpt.Policy{Type: tlsrpt.STS, Domain: route.Domain}}, err)
		}
		return policy
	})
}

// complain reports that a policy, or the lack of one, kept mail from a host or might have done so.
func (c *Client) complain(route Route, s tlsrpt.Session, why error) {
	s.Failure, s.Reason = failureOf(why), why.Error()
	if len(route.Hosts) == 0 && route.heard == nil && c.opt.TLS.Report != nil {
		c.opt.TLS.Report(s)
	}
}

// report reports how TLS went on a connection.
func (c *Client) report(s *session, err error) {
	d := s.demand
	switch {
	case err != nil:
	case s.tls.Version == "":
		err = errNotOffered
	default:
		err = s.flaw
	}
	failure := failureOf(err)
	if d.policy.Type == "" || s.heard != nil || c.opt.TLS.Report == nil || err != nil && failure == "" {
		return
	}
	told := tlsrpt.Session{Policy: d.policy, Failure: failure, Host: s.peer.name, To: s.peer.addr.Addr(), From: ownAddress(s.conn)}
	if err != nil {
		told.Reason = err.Error()
	}
	c.opt.TLS.Report(told)
}

// ownAddress is that of our end of a connection.
func ownAddress(conn net.Conn) netip.Addr {
	if addr, err := netip.ParseAddrPort(conn.LocalAddr().String()); err == nil {
		return addr.Addr().Unmap()
	}
	return netip.Addr{}
}
