package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// checkPTR looks at the reverse DNS of one address. It is asked for at the resolver: its zone is the
// provider's.
func (d *Doctor) checkPTR(ctx context.Context, s Site, r Record) Finding {
	i := slices.IndexFunc(s.Addresses, func(ip netip.Addr) bool { return reverseName(ip) == r.Name })
	f := d.reverse(ctx, s.Addresses[i], s.Hostname, len(s.Addresses) > 1)
	f.Name, f.Type, f.Value = r.Name, r.Type, r.Value
	return f
}

// CheckReverse looks at the reverse DNS of the server's addresses.
func (d *Doctor) CheckReverse(ctx context.Context, hostname string, ours []netip.Addr) []Finding {
	if len(ours) == 0 {
		return []Finding{finding(Fail, "reverse DNS", "no address of this server is known: it has no public one, and DNS tells none of %s", hostname).
			do("publish the address of the server in DNS as %s", hostname)}
	}
	list := make([]Finding, len(ours))
	each(len(ours), func(i int) { list[i] = d.reverse(ctx, ours[i], hostname, len(ours) > 1) })
	return list
}

// reverse judges the reverse DNS of an address. Where IPv6 is not the only family, mail goes out over
// IPv4 without it.
func (d *Doctor) reverse(ctx context.Context, ip netip.Addr, hostname string, several bool) Finding {
	bad := Fail
	if several && !ip.Is4() {
		bad = Warn
	}
	subject := "reverse DNS of " + ip.String()
	names, err := d.opt.Resolver.PTR(ctx, ip)
	if err != nil && !isAbsent(err) {
		return finding(bad, subject, "nobody can say: %v", brief(err)).do("look again later")
	}
	network := map[bool]string{true: "ip4", false: "ip6"}[ip.Is4()]
	const most = 10 // names that are looked at
	var mu sync.Mutex
	var confirmed []string
	each(min(len(names), most), func(i int) {
		ans, err := d.opt.Resolver.IP(ctx, names[i], network)
		if err == nil && slices.Contains(ans.Records, ip) {
			mu.Lock()
			confirmed = append(confirmed, bare(names[i]))
			mu.Unlock()
		}
	})
	set := fmt.Sprintf("set the reverse DNS (PTR) of %s to %s where the server is hosted", ip, hostname)
	f := finding(OK, subject, "%s, and it leads back", hostname)
	switch {
	case len(names) == 0:
		f = finding(bad, subject, "there is none, so Gmail and others refuse mail from it").do("%s", set)
	case len(confirmed) == 0:
		f = finding(bad, subject, "it is %s, which does not lead back to the address", strings.Join(names[:min(len(names), most)], ", ")).do("%s", set)
	case !slices.Contains(confirmed, hostname):
		f = finding(Warn, subject, "it is %s, which leads back, but the server calls itself %s", confirmed[0], hostname).do("%s", set)
	}
	for _, name := range names {
		f.Found = append(f.Found, plain(name))
	}
	return f
}
