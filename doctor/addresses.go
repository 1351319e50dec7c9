package doctor

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// PublicAddresses are the addresses of this machine that the world can reach, IPv4 first: none behind
// a network address translation. Where the system has several of IPv6, as with privacy extensions,
// the one that it sends from stands alone.
func PublicAddresses() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("reading the addresses of this machine: %w", err)
	}
	var four, six []netip.Addr
	for _, a := range all {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		switch ip := prefix.Addr().Unmap(); {
		case !isPublic(ip) || slices.Contains(append(four, six...), ip):
		case ip.Is4():
			four = append(four, ip)
		default:
			six = append(six, ip)
		}
	}
	if from, ok := sendsFrom(); ok && slices.Contains(six, from) {
		six = []netip.Addr{from}
	}
	return append(four, six...), nil
}

// Leaving is PublicAddresses where the settings say which address of a family mail leaves from: that
// one stands alone, unless it is behind a translation. The zero Addr says nothing.
func Leaving(sources ...netip.Addr) func() ([]netip.Addr, error) {
	return func() ([]netip.Addr, error) {
		list, err := PublicAddresses()
		for _, source := range sources {
			if !source.IsValid() {
				continue
			}
			list = slices.DeleteFunc(list, func(ip netip.Addr) bool { return ip.Is4() == source.Is4() })
			if isPublic(source) {
				list, err = append(list, source), nil
			}
		}
		slices.SortStableFunc(list, func(a, b netip.Addr) int { return a.BitLen() - b.BitLen() })
		return list, err
	}
}

// sharedSpace is what providers put customers behind (RFC 6598).
var sharedSpace = netip.MustParsePrefix("100.64.0.0/10")

func isPublic(ip netip.Addr) bool {
	return ip.IsGlobalUnicast() && !ip.IsPrivate() && !sharedSpace.Contains(ip)
}

// sendsFrom asks the system which IPv6 address it would use: to connect a UDP socket sends nothing.
func sendsFrom() (netip.Addr, bool) {
	conn, err := net.Dial("udp6", "[2001:4860:4860::8888]:25")
	if err != nil {
		return netip.Addr{}, false
	}
	defer conn.Close()
	here, err := netip.ParseAddrPort(conn.LocalAddr().String())
	return here.Addr().Unmap().WithZone(""), err == nil
}
