package delivery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"relayd/address"
	"relayd/dns"
	"relayd/reply"
)

// A Route is a way out. Without Hosts it is the domain's mail exchangers.
type Route struct {
	Domain   string   // of the recipients
	Hosts    []string // "host", "host:port", "[address]" or "[address]:port", tried in this order; with LMTP also "unix:/path"
	LMTP     bool     // the hosts keep mailboxes and speak LMTP (RFC 2033)
	TLS      TLSMode
	User     string      // with a password: AUTH is needed
	Password string      // with it, Opportunistic is as strict as StartTLS
	demand   *demand     // of the host that is being tried
	heard    *transcript // of a rehearsal, else nil

	insist bool          // Message.Insist
	dial   time.Duration // for the address that is being tried; 0: Times.Dial
}

// tls is the mode in which the password is safe.
func (r Route) tls() TLSMode {
	if r.TLS == Opportunistic && r.Password != "" {
		return StartTLS
	}
	return r.TLS
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
	name     string // "" when ip is given
	ip       netip.Addr
	path     string // of a unix socket, instead of all others
	port     int
	implicit bool   // the domain itself, for lack of an MX
	zone     string // where the MX records stand, if DNSSEC vouches for them; else ""
}

// target is one address to connect to.
type target struct {
	name string
	addr netip.AddrPort
	path string // of a unix socket, instead of the others
}

// place is t without the name by which it was found.
func (t target) place() target { return target{addr: t.addr, path: t.path} }

func (t target) isIPv6() bool { return t.addr.Addr().Is6() }

// network is what net.Dial needs.
func (t target) network() (network, address string) {
	if t.path != "" {
		return "unix", t.path
	}
	return "tcp", t.addr.String()
}

func (t target) String() string {
	if t.path != "" {
		return t.path
	}
	if t.name == "" {
		return "[" + t.addr.Addr().String() + "]"
	}
	return t.name + " [" + t.addr.Addr().String() + "]"
}

// hosts lists where to try, best first: groups of hosts that are as good as each other. An error
// carries the reply for all recipients. insist is Message.Insist.
func (c *Client) hosts(ctx context.Context, route Route, insist bool) ([][]host, error) {
	if len(route.Hosts) > 0 {
		groups := make([][]host, len(route.Hosts))
		for i, s := range route.Hosts {
			h, err := c.parseHost(s, route.LMTP)
			if err != nil {
				return nil, reply.Internal(err)
			}
			groups[i] = []host{h}
		}
		return groups, nil
	}
	if ip, ok := (address.Address{Domain: route.Domain}).Literal(); ok {
		return [][]host{{{ip: ip, port: c.opt.Port}}}, nil
	}
	answer, err := c.lookupMX(ctx, route.Domain, insist)
	switch {
	case errors.Is(err, dns.ErrNotExist):
		return nil, c.confirm(ctx, route.Domain)
	case errors.Is(err, dns.ErrNoData): // RFC 5321 section 5.1: the domain is its own host
		return [][]host{{{name: route.Domain, port: c.opt.Port, implicit: true}}}, nil
	case err != nil:
		return nil, dnsReply(route.Domain, err)
	case answer.Records[0].Host == "":
		return nil, reply.New(556, "5.1.10", "%s takes no mail (it has a null MX)", route.Domain)
	}
	return c.order(answer), nil
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

func loop(domain string) *reply.Reply {
	return reply.New(554, "5.4.6", "Mail for %s leads back to this server, where the domain is not hosted: "+
		"add it here with `relay-util domain-add %s`, or mend its MX", domain, domain)
}

// order groups by preference, at random within one (RFC 5321 section 5.1).
func (c *Client) order(answer dns.Answer[dns.MX]) [][]host {
	zone := ""
	if answer.Secure {
		zone = answer.Name
	}
	byPreference := map[uint16][]host{}
	for _, mx := range answer.Records {
		byPreference[mx.Preference] = append(byPreference[mx.Preference], host{name: mx.Host, port: c.opt.Port, zone: zone})
	}
	var groups [][]host
	for _, preference := range slices.Sorted(maps.Keys(byPreference)) {
		group := byPreference[preference]
		rand.Shuffle(len(group), func(i, j int) { group[i], group[j] = group[j], group[i] })
		groups = append(groups, group)
	}
	return groups
}

// parseHost reads an entry of Route.Hosts.
func (c *Client) parseHost(s string, lmtp bool) (host, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok && lmtp {
		return host{path: path}, nil
	}
	h := host{name: s, port: c.opt.Port}
	if name, port, err := net.SplitHostPort(s); err == nil {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return host{}, fmt.Errorf("host %q: the port is not a number from 1 to 65535", s)
		}
		h = host{name: name, port: int(n)}
	}
	if strings.HasPrefix(h.name, "[") && strings.HasSuffix(h.name, "]") {
		h.name = h.name[1 : len(h.name)-1]
	}
	if ip, err := netip.ParseAddr(strings.TrimPrefix(h.name, "IPv6:")); err == nil {
		h.name, h.ip = "", ip
	} else if h.name == "" || strings.ContainsAny(h.name, "[]:") {
		return host{}, fmt.Errorf("host %q is neither a name nor an address", s)
	}
	return h, nil
}
