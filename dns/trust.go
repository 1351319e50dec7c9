package dns

import (
	"net/netip"
	"slices"
)

// A Trust says whether the AD bit of the servers is believed. What stands on the way to a server
// can set it at will, and a server that does not validate may pass it on.
type Trust int

const (
	// TrustLocal believes it as long as every server is on a loopback address of this machine.
	TrustLocal Trust = iota
	// TrustAll believes it: the servers validate, and the way to them is safe.
	TrustAll
	// TrustNone never does: no answer is Secure.
	TrustNone
)

// trusts reports whether an answer that comes now can be Secure.
func (r *Resolver) trusts() bool {
	return r.trust == TrustAll || r.trust == TrustLocal && r.servers.local()
}

// local reports whether every server is on this machine. One that is not could be made to answer in
// place of one that is, by keeping that busy.
func (s *servers) local() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !slices.ContainsFunc(s.list, func(server string) bool {
		addr, err := netip.ParseAddrPort(server)
		return err != nil || !addr.Addr().Unmap().IsLoopback()
	})
}
