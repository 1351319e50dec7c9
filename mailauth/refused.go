package mailauth

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"

	"relayd/dns"
)

// A watched resolver notes what kind of answers were missing. A name server that serves a few zones
// and refuses all other questions, as in a closed network, will not do better in an hour: to put mail
// off because of it helps nobody. An outage, which passes, is another thing.
type watched struct {
	Resolver
	refused, outage atomic.Bool
}

// closed reports whether every answer that was missing was refused, and there was one.
func (w *watched) closed() bool { return w.refused.Load() && !w.outage.Load() }

func (w *watched) note(err error) {
	if e, ok := errors.AsType[*dns.Error](err); ok && e.Temporary() {
		if e.Refused() {
			w.refused.Store(true)
		} else {
			w.outage.Store(true)
		}
	}
}

// TXT implements Resolver.
func (w *watched) TXT(ctx context.Context, name string) ([]string, error) {
	r, err := w.Resolver.TXT(ctx, name)
	w.note(err)
	return r, err
}

// MX implements Resolver.
func (w *watched) MX(ctx context.Context, domain string) (dns.Answer[dns.MX], error) {
	r, err := w.Resolver.MX(ctx, domain)
	w.note(err)
	return r, err
}

// IP implements Resolver.
func (w *watched) IP(ctx context.Context, host, network string) (dns.Answer[netip.Addr], error) {
	r, err := w.Resolver.IP(ctx, host, network)
	w.note(err)
	w.note(r.Partial)
	return r, err
}

// PTR implements Resolver.
func (w *watched) PTR(ctx context.Context, ip netip.Addr) ([]string, error) {
	r, err := w.Resolver.PTR(ctx, ip)
	w.note(err)
	return r, err
}
