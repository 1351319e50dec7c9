package mailauth

import (
	"context"
	"errors"
	"net/netip"

	"relayd/dns"
)

// A patient resolver takes a server's refusal to answer for the absence of an answer. A name server
// that serves a few zones and refuses the rest of the world, as in a closed network, will not do
// better in an hour; to put all mail off because of it would help nobody. An outage is another thing.
type patient struct{ Resolver }

func (p patient) TXT(ctx context.Context, name string) ([]string, error) {
	r, err := p.Resolver.TXT(ctx, name)
	return r, resigned(err)
}

func (p patient) MX(ctx context.Context, domain string) (dns.Answer[dns.MX], error) {
	r, err := p.Resolver.MX(ctx, domain)
	return r, resigned(err)
}

func (p patient) IP(ctx context.Context, host, network string) (dns.Answer[netip.Addr], error) {
	r, err := p.Resolver.IP(ctx, host, network)
	return r, resigned(err)
}

func (p patient) PTR(ctx context.Context, ip netip.Addr) ([]string, error) {
	r, err := p.Resolver.PTR(ctx, ip)
	return r, resigned(err)
}

func resigned(err error) error {
	if e, ok := errors.AsType[*dns.Error](err); ok && e.Refused() {
		return &dns.Error{Name: e.Name, Type: e.Type, Server: e.Server, Kind: dns.NoData, Cause: e.Cause}
	}
	return err
}
