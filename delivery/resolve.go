package delivery

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"relayd/dns"
	"relayd/reply"
	"relayd/tasks"
)

// found is a host with its addresses, or with why it has none.
type found struct {
	host    host
	targets []target
	name    string // where the CNAMEs of the host lead
	secure  bool   // DNSSEC vouches for the addresses
	err     error
}

// network is over what mail goes, as a Resolver wants it.
func (c *Client) network() string {
	switch c.opt.Family {
	case "ipv4":
		return "ip4"
	case "ipv6":
		return "ip6"
	}
	return "ip"
}

// resolve looks up the addresses of hosts, all at the same time.
func (c *Client) resolve(ctx context.Context, hosts []host, network string) []found {
	all := make([]found, len(hosts))
	var lookups tasks.Group
	for i, h := range hosts {
		lookups.Go(func() { all[i] = c.addresses(ctx, h, network) })
	}
	lookups.Wait()
	return all
}

// hasSelf reports whether this relay is one of the hosts, by an address that it listens on or by
// its name: behind address translation it does not know its addresses.
func (c *Client) hasSelf(hosts []found) bool {
	return slices.ContainsFunc(hosts, func(f found) bool {
		return strings.EqualFold(f.host.name, c.opt.Hostname) && f.host.name != "" ||
			slices.ContainsFunc(f.targets, func(t target) bool { return c.opt.IsSelf(t.addr) })
	})
}

// addresses resolves a host, in the order in which its addresses are tried: IPv4 first, because
// Gmail and others want more of an IPv6 sender than a small server's network often gives, unless
// ours was found to have it.
func (c *Client) addresses(ctx context.Context, h host, network string) found {
	if h.path != "" {
		return found{host: h, targets: []target{{path: h.path}}}
	}
	f, ips := found{host: h}, []netip.Addr{h.ip}
	if !h.ip.IsValid() {
		answer, err := c.opt.Resolver.IP(ctx, h.name, network)
		if err != nil {
			f.err = noAddress(h, network, err)
			return f
		}
		ips, f.name, f.secure = answer.Records, answer.Name, answer.Secure
	}
	f.targets = make([]target, len(ips))
	for i, ip := range ips {
		f.targets[i] = target{name: h.name, addr: netip.AddrPortFrom(ip.Unmap(), uint16(h.port))}
	}
	order := 1
	if c.opt.Family == "auto" && c.opt.Source.isGood() {
		order = -1
	}
	slices.SortStableFunc(f.targets, func(a, b target) int { return order * (a.addr.Addr().BitLen() - b.addr.Addr().BitLen()) })
	return f
}

// noAddress is the reply when a host cannot be resolved. None of it is final: a zone that lost its
// records is mended more often than a domain is given up with its name left standing.
func noAddress(h host, network string, err error) error {
	switch {
	case h.implicit && network == "ip" && errors.Is(err, dns.ErrNoData):
		return reply.New(451, "4.4.4", "%s has neither a mail server nor an address in DNS", h.name).Because(err)
	case errors.Is(err, dns.ErrNoData), errors.Is(err, dns.ErrNotExist):
		kind := map[string]string{"ip": "IP", "ip4": "IPv4", "ip6": "IPv6"}[network]
		return reply.New(451, "4.4.4", "The mail server %s has no %s address", h.name, kind).Because(err)
	}
	return dnsReply(h.name, err)
}
