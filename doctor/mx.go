package doctor

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	mdns "github.com/miekg/dns"
)

// checkMX looks at where mail for a domain goes, and at whether that is a host with addresses.
func (d *Doctor) checkMX(ctx context.Context, s Site, r Record) []Finding {
	f := d.judged(ctx, r, func(a answer) Finding { return d.judgeMX(ctx, s, r, a) })
	return []Finding{f}
}

func (d *Doctor) judgeMX(ctx context.Context, s Site, r Record, a answer) Finding {
	best, others, ours := uint16(0), []string(nil), false
	for i, mx := range a.mx() {
		if i == 0 {
			best = mx.Preference
		}
		host := bare(mx.Mx)
		switch {
		case host == s.Hostname:
			ours = ours || mx.Preference == best
		case host == "":
			return r.about(Fail, a, "it says that the domain takes no mail at all (null MX)").do("change it to %s", r.text())
		default:
			others = append(others, host)
			if f := d.judgeExchanger(ctx, r, a, host); f != nil {
				return *f
			}
			if d.leadsHere(ctx, s, host) && mx.Preference == best {
				return r.about(OK, a, "%s, which is this server too", host)
			}
		}
	}
	switch {
	case len(a.records) == 0:
		return r.missing(a)
	case !ours && !slices.ContainsFunc(a.mx(), func(mx *mdns.MX) bool { return bare(mx.Mx) == s.Hostname }):
		return r.about(Fail, a, "mail goes elsewhere: %s", strings.Join(others, ", ")).do("change it to %s", r.text())
	case !ours:
		return r.about(Fail, a, "mail goes to %s first", others[0]).do("give this server the lowest preference: %s, and no other beside it", r.text())
	case len(others) > 0:
		return r.about(Warn, a, "some mail goes to %s, from where it is not forwarded here", strings.Join(others, ", ")).
			do("let %s be the only one", r.text())
	}
	return r.about(OK, a, "%s", strings.Join(a.values(), ", "))
}

// mx are the records of an answer by preference.
func (a answer) mx() []*mdns.MX {
	var list []*mdns.MX
	for _, rr := range a.records {
		if mx, ok := rr.(*mdns.MX); ok {
			list = append(list, mx)
		}
	}
	slices.SortStableFunc(list, func(x, y *mdns.MX) int { return int(x.Preference) - int(y.Preference) })
	return list
}

// judgeExchanger says what is wrong with a host that an MX record names; nil if nothing is.
func (d *Doctor) judgeExchanger(ctx context.Context, r Record, a answer, host string) *Finding {
	var f Finding
	alias, err := d.one(ctx, host, mdns.TypeCNAME)
	switch {
	case err != nil:
		return nil
	case len(alias.records) > 0:
		f = r.about(Fail, a, "it names %s, which is a CNAME: some servers deliver no mail to that", host).do("change it to %s", r.text())
	case len(d.HostAddresses(ctx, host)) == 0:
		f = r.about(Fail, a, "it names %s, which has no address", host).do("change it to %s", r.text())
	default:
		return nil
	}
	return &f
}

// leadsHere reports whether all addresses of a host are ours.
func (d *Doctor) leadsHere(ctx context.Context, s Site, host string) bool {
	have := d.HostAddresses(ctx, host)
	return len(have) > 0 && !slices.ContainsFunc(have, func(ip netip.Addr) bool { return !slices.Contains(s.Addresses, ip) })
}
