package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	mdns "github.com/miekg/dns"
)

// CheckRecords compares what the world is told about a domain with what it needs. The addresses of
// the site are those that it should have; without any, they are those of Addresses.
func (d *Doctor) CheckRecords(ctx context.Context, s Site) []Finding {
	if len(s.Addresses) == 0 {
		s.Addresses = d.Addresses(ctx, s.Hostname)
	}
	if z := d.zoneOf(ctx, s.Domain); z.err != nil {
		f := finding(Fail, "name servers of "+s.Domain, "nobody can say which records there are: %v", z.err)
		return append(z.trouble, f.do("mend the name servers of the domain, or the resolver here, then look again"))
	}
	var jobs []func() []Finding
	seen := map[string]bool{}
	for _, r := range Needed(s) {
		if key := r.Kind + " " + r.Name + " " + r.Type; r.Kind == KindPTR || !seen[key] {
			seen[key] = true
			jobs = append(jobs, func() []Finding { return d.checkRecord(ctx, s, r) })
		}
	}
	jobs = append(jobs, func() []Finding { return d.checkStray(ctx, s) }, func() []Finding { return checkKeys(s) })
	found := make([][]Finding, len(jobs))
	each(len(jobs), func(i int) { found[i] = jobs[i]() })
	return append(d.troubles(ctx, s), slices.Concat(found...)...)
}

// Addresses are those of this machine as the world sees it. Without a public IPv4 address it is taken
// to be behind a translation of addresses, and what DNS says of the host counts.
func (d *Doctor) Addresses(ctx context.Context, host string) []netip.Addr {
	here, err := d.opt.Addresses()
	if err != nil {
		here = nil // what DNS says is all that is known then
	}
	if slices.ContainsFunc(here, netip.Addr.Is4) {
		return here
	}
	var list []netip.Addr
	for _, ip := range d.HostAddresses(ctx, host) {
		if ip.Is4() || len(here) == 0 {
			list = append(list, ip)
		}
	}
	return append(list, here...)
}

// checkKeys looks whether mail is signed at all.
func checkKeys(s Site) []Finding {
	if len(s.Keys) > 0 {
		return nil
	}
	f := finding(Warn, "DKIM "+s.Domain, "there is no key, so its mail leaves without a signature")
	return []Finding{f.do("relay-util dkim-keygen %s", s.Domain)}
}

// checkStray looks for IPv6 addresses in DNS on a machine that has none.
func (d *Doctor) checkStray(ctx context.Context, s Site) []Finding {
	r := Record{Kind: KindHost, Name: s.Hostname, Type: "AAAA"}
	if len(s.Addresses) == 0 || slices.ContainsFunc(s.Addresses, netip.Addr.Is6) {
		return nil
	}
	a, err := d.one(ctx, r.Name, mdns.TypeAAAA)
	if err != nil || len(a.records) == 0 || a.alias != "" {
		return nil
	}
	f := r.about(Fail, a, "%s is not an address of this server, which has none of IPv6", strings.Join(a.values(), ", "))
	return []Finding{f.do("remove it")}
}

// HostAddresses are the addresses that DNS says a host has, IPv4 first; none if it does not say.
func (d *Doctor) HostAddresses(ctx context.Context, host string) []netip.Addr {
	var list []netip.Addr
	for _, typ := range []uint16{mdns.TypeA, mdns.TypeAAAA} {
		if a, err := d.one(ctx, host, typ); err == nil {
			list = append(list, addresses(a)...)
		}
	}
	return list
}

func addresses(a answer) []netip.Addr {
	var list []netip.Addr
	for _, rr := range a.records {
		var ip netip.Addr
		switch rr := rr.(type) {
		case *mdns.A:
			ip, _ = netip.AddrFromSlice(rr.A.To4())
		case *mdns.AAAA:
			ip, _ = netip.AddrFromSlice(rr.AAAA)
		}
		if ip = ip.Unmap(); ip.IsValid() {
			list = append(list, ip)
		}
	}
	return list
}

// troubles are what is wrong with the name servers of the zones of a site, each zone once.
func (d *Doctor) troubles(ctx context.Context, s Site) []Finding {
	var list []Finding
	var zones []string
	for _, name := range []string{s.Domain, s.Hostname, s.SRSDomain} {
		if name == "" {
			continue
		}
		if z := d.zoneOf(ctx, name); !slices.Contains(zones, z.name) {
			zones = append(zones, z.name)
			list = append(list, z.trouble...)
		}
	}
	return list
}

func (d *Doctor) checkRecord(ctx context.Context, s Site, r Record) []Finding {
	switch r.Kind {
	case KindHost:
		return []Finding{d.checkHost(ctx, s, r)}
	case KindMX:
		return d.checkMX(ctx, s, r)
	case KindSPF, KindHelo:
		return d.checkSPF(ctx, s, r)
	case KindDKIM:
		return []Finding{d.judged(ctx, r, func(a answer) Finding { return judgeDKIM(r, a) })}
	case KindDMARC:
		return []Finding{d.checkDMARC(ctx, r)}
	}
	return []Finding{d.checkPTR(ctx, s, r)}
}

// subjects are what the kinds of records are called.
func (r Record) subject() string {
	if r.Type != "TXT" {
		return r.Type + " " + r.Name
	}
	name := map[string]string{KindSPF: "SPF", KindHelo: "SPF", KindDKIM: "DKIM", KindDMARC: "DMARC"}[r.Kind]
	return name + " " + r.Name
}

// about makes a finding about a record.
func (r Record) about(status Status, a answer, format string, args ...any) Finding {
	f := finding(status, r.subject(), format, args...)
	f.Name, f.Type, f.Value, f.Found = r.Name, r.Type, r.Value, a.values()
	return f
}

// missing is the finding of a record that is not there.
func (r Record) missing(a answer) Finding {
	f := r.about(Fail, a, "there is none")
	if r.Value == "" {
		return f.do("publish %s %s with the public address of the server", r.Name, r.Type)
	}
	return f.do("publish %s", r.text())
}

// text is how people read a record.
func (r Record) text() string { return r.Name + " " + r.Type + " " + r.Value }

// judged has what the servers say about a record judged. Where they disagree the worst counts.
func (d *Doctor) judged(ctx context.Context, r Record, judge func(answer) Finding) Finding {
	list, err := d.lookup(ctx, r.Name, mdns.StringToType[r.Type])
	if err != nil {
		return r.unknown(err)
	}
	return agreed(list, judge)
}

// unknown is the finding where nobody answers.
func (r Record) unknown(err error) Finding {
	return r.about(Fail, answer{}, "nobody can say: %v", brief(err)).do("mend the name servers of its zone, then look again")
}

// agreed judges each answer and returns the worst finding, with a word on that they differ.
func agreed(list []answer, judge func(answer) Finding) Finding {
	var worst Finding
	var texts []string
	for i, a := range list {
		f := judge(a)
		if i == 0 || rank(f.Status) > rank(worst.Status) {
			worst = f
		}
		texts = append(texts, fmt.Sprintf("%s: %s", strings.Join(a.servers, " and "), f.Text))
	}
	if len(list) > 1 {
		worst.Text = "the name servers disagree: " + strings.Join(texts, "; ")
		if rank(worst.Status) < rank(Warn) {
			worst.Status = Warn
		}
		worst.Do = strings.TrimPrefix(worst.Do+"; if it was changed just now, wait until all servers have it", "; ")
	}
	return worst
}

func rank(s Status) int { return slices.Index([]Status{Info, OK, Warn, Fail}, s) }

// checkHost looks at the addresses of the server, one family at a time.
func (d *Doctor) checkHost(ctx context.Context, s Site, r Record) Finding {
	var want []netip.Addr
	for _, ip := range s.Addresses {
		if addressType(ip) == r.Type {
			want = append(want, ip)
		}
	}
	return d.judged(ctx, r, func(a answer) Finding {
		have := addresses(a)
		var wrong, lacking []string
		for _, ip := range have {
			if !slices.Contains(want, ip) {
				wrong = append(wrong, ip.String())
			}
		}
		for _, ip := range want {
			if !slices.Contains(have, ip) {
				lacking = append(lacking, ip.String())
			}
		}
		switch {
		case a.alias != "":
			return r.about(Fail, a, "it is a CNAME, to %s, which the name of a mail server must not be", a.alias).
				do("publish %s in its place", r.text())
		case len(have) == 0:
			return r.missing(a)
		case len(wrong) > 0:
			return r.about(Fail, a, "%s is not an address of this server", strings.Join(wrong, ", ")).do("change it to %s", r.text())
		case len(lacking) > 0:
			return r.about(Warn, a, "%s is missing", strings.Join(lacking, ", ")).do("publish it too, or mail that leaves from it is suspect")
		}
		return r.about(OK, a, "%s", strings.Join(a.values(), ", "))
	})
}
