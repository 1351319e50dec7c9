package delivery

import (
	"context"
	"errors"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"relayd/address"
	"relayd/dns"
)

const (
	// groupTime is for how long the group of a domain is believed: about as long as the MX records
	// of most domains may be. A wrong one does no harm, for mail goes where DNS says.
	groupTime = time.Hour
	// dnsPause is for how long a domain whose lookup failed is not looked up again: so the many
	// messages for it are deferred without each of them waiting for servers that do not answer.
	dnsPause = 30 * time.Second
	// maxDomains bounds the domains that are remembered, at about 200 bytes each.
	maxDomains = 50_000
)

// A way is what is known of a domain's mail exchangers.
type way struct {
	group string    // "" when never learned
	until time.Time // when group is to be learned anew
	err   error     // why the last lookup failed
	again time.Time // when the next is made, if it failed
}

// Group names the servers that take mail for domain, as far as Learn or Deliver has found out: the
// registrable domain of its best mail exchanger, so that all domains whose mail Google takes are
// in "google.com"; the domain itself if it has none. Until that is known it is "mx? domain".
// The domain is in lower case, as address.Parse makes it.
func (c *Client) Group(domain string) string {
	if _, ok := (address.Address{Domain: domain}).Literal(); ok {
		return domain
	}
	if w, _ := c.ways.get(domain); w.group != "" {
		return w.group
	}
	return "mx? " + domain
}

// Learn looks up what Group does not know or has known for an hour. It returns soon after ctx
// ends. Where DNS fails Group stays as it is, and the delivery will tell.
func (c *Client) Learn(ctx context.Context, domain string) {
	if _, ok := (address.Address{Domain: domain}).Literal(); ok {
		return
	}
	if w, _ := c.ways.get(domain); w.group == "" || !c.before(w.until, groupTime) {
		_, _ = c.lookupMX(ctx, domain, false) // an error is remembered
	}
}

// before reports whether t is still to come. One that is further away than it can have been meant
// to be is not: the clock was set back.
func (c *Client) before(t time.Time, most time.Duration) bool {
	left := t.Sub(c.opt.Now())
	return left > 0 && left <= most
}

// lookupMX asks DNS and remembers what follows from the answer. Unless insist is set, an error of
// late is the answer.
func (c *Client) lookupMX(ctx context.Context, domain string, insist bool) (dns.Answer[dns.MX], error) {
	if w, _ := c.ways.get(domain); w.err != nil && !insist && c.before(w.again, dnsPause) {
		return dns.Answer[dns.MX]{}, w.err
	}
	answer, err := c.opt.Resolver.MX(ctx, domain)
	if ctx.Err() != nil {
		return answer, err // nobody waited for the servers
	}
	c.ways.change(domain, func(w way, _ bool) (way, bool) {
		now := c.opt.Now()
		switch {
		case err == nil:
			return way{group: groupOf(domain, answer.Records), until: now.Add(groupTime)}, true
		case errors.Is(err, dns.ErrNoData):
			return way{group: domain, until: now.Add(groupTime)}, true
		case errors.Is(err, dns.ErrNotExist): // it costs little to ask about, and will be asked about once
			return w, w.group != ""
		}
		w.err, w.again = err, now.Add(dnsPause)
		return w, true
	})
	return answer, err
}

// groupOf is the registrable domain of the best host; of several, the first by name, because DNS
// gives them in another order each time.
func groupOf(domain string, records []dns.MX) string {
	best := records[0]
	for _, mx := range records[1:] {
		if mx.Preference < best.Preference || mx.Preference == best.Preference && mx.Host < best.Host {
			best = mx
		}
	}
	if best.Host == "" { // a null MX
		return domain
	}
	return registrable(best.Host)
}

// registrable is the registrable domain of a host, or the host itself where that is none.
func registrable(host string) string {
	host = strings.ToLower(host)
	if domain, err := publicsuffix.EffectiveTLDPlusOne(host); err == nil {
		return domain
	}
	return host
}
