package doctor

import (
	"context"
	"net/netip"
	"strings"
)

// A BlockList is a list of addresses in DNS (RFC 5782).
type BlockList struct {
	Zone    string
	IPv6    bool   // it has IPv6 addresses too
	Serious bool   // so many ask it that mail does not arrive
	Help    string // where to look and how to get off
}

// BlockLists are the well-known ones that anybody may ask a little.
func BlockLists() []BlockList {
	return []BlockList{
		{Zone: "zen.spamhaus.org", IPv6: true, Serious: true, Help: "https://check.spamhaus.org"},
		{Zone: "bl.spamcop.net", Help: "https://www.spamcop.net/bl.shtml"},
		{Zone: "b.barracudacentral.org", Help: "https://www.barracudacentral.org/lookups"},
		{Zone: "psbl.surriel.com", Help: "https://psbl.org"},
	}
}

// CheckBlockList asks a list about our addresses.
func (d *Doctor) CheckBlockList(ctx context.Context, list BlockList, ours []netip.Addr) Finding {
	subject := "block list " + list.Zone
	// Every list has this address, so a resolver that says otherwise is not served (RFC 5782 section 5).
	if verdict, _ := d.listed(ctx, list.Zone, netip.AddrFrom4([4]byte{127, 0, 0, 2})); verdict != "listed" {
		return finding(Info, subject, "not checked: %s", strings.TrimPrefix(verdict, "listed"))
	}
	asked := 0
	for _, ip := range ours {
		if !ip.Is4() && !list.IPv6 {
			continue
		}
		asked++
		verdict, codes := d.listed(ctx, list.Zone, ip)
		switch {
		case verdict == "listed" && list.Serious:
			return finding(Fail, subject, "%s is listed (%s)", ip, codes).do("look why, and ask to be taken off: %s", list.Help)
		case verdict == "listed":
			return finding(Warn, subject, "%s is listed (%s)", ip, codes).do("look why, and ask to be taken off: %s", list.Help)
		case verdict != "":
			return finding(Info, subject, "not checked: %s", verdict)
		}
	}
	if asked == 0 {
		return finding(Info, subject, "not checked: no address of ours is known that could stand there")
	}
	return finding(OK, subject, "not listed")
}

// listed asks about one address: "listed" with the codes, "" for not, or why nobody knows.
func (d *Doctor) listed(ctx context.Context, zone string, ip netip.Addr) (verdict, codes string) {
	ans, err := d.opt.Resolver.IP(ctx, reversed(ip, zone, zone), "ip4")
	switch {
	case err != nil && isAbsent(err) && ip.IsLoopback():
		return "the list does not answer this resolver", ""
	case err != nil && isAbsent(err):
		return "", ""
	case err != nil:
		return brief(err).Error(), ""
	}
	var all []string
	for _, code := range ans.Records {
		b := code.As4()
		switch {
		case b[0] != 127:
			return "something between makes up answers (" + code.String() + ")", ""
		case b[1] == 255 && b[2] == 255:
			return "the list does not answer this resolver (" + code.String() + "): it is a public one, or asks too much", ""
		}
		all = append(all, code.String())
	}
	return "listed", strings.Join(all, ", ")
}
