package delivery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"relayd/address"
	"relayd/dns"
	"relayd/reply"
)

// A Route is a way out. Without Hosts it is the domain's mail exchangers.
type Route struct {
	Domain   string   // of the recipients
	Hosts    []string // "host", "host:port", "[address]" or "[address]:port", tried in this order
	TLS      TLSMode
	User     string // with a password: AUTH is needed
	Password string
}

// TLSMode says how TLS begins, and whether mail may go without.
type TLSMode int

const (
	// Opportunistic: STARTTLS where it is offered, any certificate, else in the clear.
	Opportunistic TLSMode = iota
	// StartTLS: STARTTLS with a certificate that verifies, or no mail.
	StartTLS
	// Implicit TLS from the first byte with a certificate that verifies (RFC 8314).
	Implicit
)

// host is a mail server by name, before its addresses are known.
type host struct {
	name string // "" when ip is given
	ip   netip.Addr
	port int
}

// target is one address to connect to.
type target struct {
	name string
	addr netip.AddrPort
}

func (t target) String() string {
	if t.name == "" {
		return "[" + t.addr.Addr().String() + "]"
	}
	return t.name + " [" + t.addr.Addr().String() + "]"
}

// hosts lists where to try, best first. An error carries the reply for all recipients.
func (c *Client) hosts(ctx context.Context, route Route) ([]host, error) {
	if len(route.Hosts) > 0 {
		hosts := make([]host, len(route.Hosts))
		for i, s := range route.Hosts {
			h, err := c.parseHost(s)
			if err != nil {
				return nil, reply.Internal(err)
			}
			hosts[i] = h
		}
		return hosts, nil
	}
	if ip, ok := (address.Address{Domain: route.Domain}).Literal(); ok {
		return []host{{ip: ip, port: c.opt.Port}}, nil
	}
	answer, err := c.opt.Resolver.MX(ctx, route.Domain)
	switch {
	case errors.Is(err, dns.ErrNotExist):
		return nil, c.confirm(ctx, route.Domain)
	case errors.Is(err, dns.ErrNoData): // RFC 5321 section 5.1: the domain is its own host
		return []host{{name: route.Domain, port: c.opt.Port}}, nil
	case err != nil:
		return nil, dnsReply(route.Domain, err)
	case answer.Records[0].Host == "":
		return nil, reply.New(556, "5.1.10", "%s takes no mail (it has a null MX)", route.Domain)
	}
	return c.order(answer.Records), nil
}

// confirm makes sure that a domain does not exist before its mail is given up.
func (c *Client) confirm(ctx context.Context, domain string) error {
	switch err := c.opt.Resolver.Confirm(ctx, domain); {
	case errors.Is(err, dns.ErrNotExist):
		return reply.New(550, "5.1.2", "The domain %s does not exist", domain).Because(err)
	case err != nil:
		return dnsReply(domain, err)
	}
	return reply.New(451, "4.4.3", "DNS servers disagree about whether %s exists", domain)
}

func dnsReply(name string, err error) error {
	return reply.New(451, "4.4.3", "DNS gives no answer about %s at the moment", name).Because(err)
}

// order sorts by preference, at random within one (RFC 5321 section 5.1).
func (c *Client) order(records []dns.MX) []host {
	records = slices.Clone(records)
	rand.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	slices.SortStableFunc(records, func(a, b dns.MX) int { return int(a.Preference) - int(b.Preference) })
	hosts := make([]host, len(records))
	for i, mx := range records {
		hosts[i] = host{name: mx.Host, port: c.opt.Port}
	}
	return hosts
}

// parseHost reads an entry of Route.Hosts.
func (c *Client) parseHost(s string) (host, error) {
	h := host{name: s, port: c.opt.Port}
	if name, port, err := net.SplitHostPort(s); err == nil {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return host{}, fmt.Errorf("port of host %q: %w", s, err)
		}
		h = host{name: name, port: int(n)}
	} else if s[0] == '[' {
		h.name = s[1 : len(s)-1]
	}
	if ip, err := netip.ParseAddr(h.name); err == nil {
		h.name, h.ip = "", ip
	}
	return h, nil
}

// addresses resolves a host, in the order in which its addresses are tried: IPv4 first, because
// Gmail and others want more of an IPv6 sender than a small server's network often gives.
func (c *Client) addresses(ctx context.Context, h host, route Route) ([]target, error) {
	ips := []netip.Addr{h.ip}
	if !h.ip.IsValid() {
		network := map[string]string{"ipv4": "ip4", "ipv6": "ip6"}[c.opt.Family]
		if network == "" {
			network = "ip"
		}
		answer, err := c.opt.Resolver.IP(ctx, h.name, network)
		if err != nil {
			return nil, dnsReply(h.name, err)
		}
		ips = slices.Clone(answer.Records)
		slices.SortStableFunc(ips, func(a, b netip.Addr) int { return boolInt(a.Is6()) - boolInt(b.Is6()) })
	}
	var targets []target
	for _, ip := range ips {
		t := target{h.name, netip.AddrPortFrom(ip.Unmap(), uint16(h.port))}
		if len(route.Hosts) == 0 && c.opt.IsSelf(t.addr) {
			return nil, reply.New(554, "5.4.6", "Mail for %s leads back to this server, where the domain is not hosted: "+
				"add it here with `relay-util domain-add %s`, or mend its MX", route.Domain, route.Domain)
		}
		targets = append(targets, t)
	}
	return targets, nil
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
