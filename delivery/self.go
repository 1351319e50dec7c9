package delivery

import (
	"net"
	"net/netip"
)

// ListensOn returns a test for Options.IsSelf: whether an address is one of those listened on,
// where a listener on the unspecified address takes every address of this machine.
func ListensOn(listeners []net.Addr) func(netip.AddrPort) bool {
	return func(a netip.AddrPort) bool {
		for _, l := range listeners {
			mine, err := netip.ParseAddrPort(l.String())
			if err != nil || mine.Port() != a.Port() {
				continue
			}
			if mine.Addr().Unmap() == a.Addr() || mine.Addr().IsUnspecified() && isLocal(a.Addr()) ||
				mine.Addr().IsLoopback() && a.Addr().IsUnspecified() {
				return true
			}
		}
		return false
	}
}

// isLocal reports whether this machine has an address. Addresses come and go, so it is asked anew.
// To connect to the unspecified address is to connect to this machine.
func isLocal(ip netip.Addr) bool {
	if ip.IsLoopback() || ip.IsUnspecified() {
		return true
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == ip {
			return true
		}
	}
	return false
}
