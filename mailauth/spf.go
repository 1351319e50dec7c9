package mailauth

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"

	"blitiri.com.ar/go/spf"

	"relayd/address"
	"relayd/dns"
	"relayd/tasks"
)

// A Result is how a check came out, in the words of RFC 8601 section 2.7.
type Result string

// The results of SPF (RFC 7208 section 2.6) and of DMARC; DMARC has neither neutral nor softfail.
const (
	None      Result = "none"
	Neutral   Result = "neutral"
	Pass      Result = "pass"
	Fail      Result = "fail"
	SoftFail  Result = "softfail"
	TempError Result = "temperror"
	PermError Result = "permerror"
)

// An SPF is the outcome for one identity.
type SPF struct {
	Domain string // whose policy was asked for; "" when the client named none
	Result Result
	Err    error // why, with TempError and PermError
}

// checkSPF checks both identities of RFC 7208 section 2, at the same time: either may have a slow
// DNS. That of a null sender is postmaster@HELO (section 2.4), so both are then the same.
func (c *Checker) checkSPF(ctx context.Context, m Message) (from, helo SPF) {
	name, err := address.Domain(m.Helo)
	if err != nil || strings.HasPrefix(name, "[") {
		name = ""
	}
	r := spfResolver{c.resolver, m.IP.Unmap().WithZone("")}
	var checks tasks.Group
	checks.Go(func() { helo = r.check(ctx, name, address.Address{Local: "postmaster", Domain: name}) })
	if !m.Sender.IsNull() {
		from = r.check(ctx, name, m.Sender)
	}
	checks.Wait()
	if m.Sender.IsNull() {
		from = helo
	}
	return from, helo
}

// check is check_host of RFC 7208 section 4. What is no domain name of several labels has no policy.
func (r spfResolver) check(ctx context.Context, helo string, sender address.Address) SPF {
	out := SPF{Domain: sender.Domain, Result: None}
	if !strings.Contains(sender.Domain, ".") || strings.HasPrefix(sender.Domain, "[") || !r.client.IsValid() {
		return out
	}
	// The library cuts at the first @, and address lets none into a local part.
	res, err := spf.CheckHostWithSender(net.IP(r.client.AsSlice()), helo, sender.Local+"@"+sender.Domain,
		spf.WithContext(ctx), spf.WithResolver(r))
	out.Result = Result(res)
	switch out.Result {
	case TempError:
		out.Err = &unanswered{err}
	case PermError:
		out.Err = err
	}
	return out
}

// An spfResolver is a Resolver as the SPF library wants one: it tells errors apart by *net.DNSError.
type spfResolver struct {
	dns    Resolver
	client netip.Addr
}

// LookupTXT refuses a policy with a syntax error anywhere, for the library does not look behind the
// mechanism that matches (RFC 7208 section 4.6).
func (r spfResolver) LookupTXT(ctx context.Context, name string) ([]string, error) {
	txts, err := r.dns.TXT(ctx, name)
	if err != nil {
		return nil, netError(err)
	}
	for _, txt := range txts {
		if err := checkPolicy(txt); err != nil {
			return nil, err
		}
	}
	return txts, nil
}

func (r spfResolver) LookupMX(ctx context.Context, name string) ([]*net.MX, error) {
	ans, err := r.dns.MX(ctx, name)
	if err != nil {
		return nil, netError(err)
	}
	var list []*net.MX
	for _, mx := range ans.Records {
		if mx.Host != "" {
			list = append(list, &net.MX{Host: mx.Host, Pref: mx.Preference})
		}
	}
	return list, nil
}

// LookupIPAddr asks for the family of the client (RFC 7208 section 5), and for an IPv6 client for
// IPv4 as well, since "exists" always means that (section 5.7).
func (r spfResolver) LookupIPAddr(ctx context.Context, host string) ([]net.IPAddr, error) {
	network := "ip"
	if r.client.Is4() {
		network = "ip4"
	}
	ans, err := r.dns.IP(ctx, host, network)
	if err == nil {
		err = ans.Partial // the family that would have matched may be the one that is missing
	}
	if err != nil {
		return nil, netError(err)
	}
	list := make([]net.IPAddr, len(ans.Records))
	for i, ip := range ans.Records {
		list[i] = net.IPAddr{IP: ip.AsSlice()}
	}
	return list, nil
}

func (r spfResolver) LookupAddr(ctx context.Context, addr string) ([]string, error) {
	ip, err := netip.ParseAddr(addr)
	if err != nil {
		return nil, err
	}
	names, err := r.dns.PTR(ctx, ip)
	if err != nil {
		return nil, netError(err)
	}
	return names, nil
}

// netError is err in the type of package net. Whatever is not known to be a fact is temporary.
func netError(err error) error {
	if e, ok := errors.AsType[*dns.Error](err); ok {
		return e.DNSError()
	}
	return &net.DNSError{Err: err.Error(), UnwrapErr: err, IsTemporary: true}
}

// absent reports whether err says that there is no such record, as opposed to no answer.
func absent(err error) bool {
	return errors.Is(err, dns.ErrNotExist) || errors.Is(err, dns.ErrNoData)
}
