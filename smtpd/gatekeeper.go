package smtpd

import (
	"net"
	"net/netip"
	"sync"

	"relayd/reply"
)

// A Gatekeeper counts connections, all and by source. A source is an IPv4 address or an IPv6
// /64, which is what one customer of a provider gets. Safe for concurrent use.
type Gatekeeper struct {
	total, perSource int

	mu      sync.Mutex
	open    int
	sources map[netip.Prefix]int
}

// NewGatekeeper allows total connections at once, and perSource from one source.
func NewGatekeeper(total, perSource int) *Gatekeeper {
	return &Gatekeeper{total: total, perSource: perSource, sources: map[netip.Prefix]int{}}
}

// Admit takes a place for a connection from addr and returns how to give it back, or the reply
// that turns the connection away.
func (k *Gatekeeper) Admit(addr net.Addr) (release func(), refusal *reply.Reply) {
	src := source(addr)
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.open >= k.total:
		return nil, reply.New(421, "4.7.0", "Too many connections, please try again in a minute")
	case k.sources[src] >= k.perSource:
		return nil, reply.New(421, "4.7.0", "Too many connections from %s, please close some first", src.Addr())
	}
	k.open++
	k.sources[src]++
	return func() { k.leave(src) }, nil
}

func (k *Gatekeeper) leave(src netip.Prefix) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.open--
	if k.sources[src]--; k.sources[src] == 0 {
		delete(k.sources, src)
	}
}

func source(addr net.Addr) netip.Prefix {
	ip := clientIP(addr)
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits) // of a valid address and length; the zero Prefix serves for the rest
	return p
}

// clientIP is the address behind addr, an IPv4 one in its own form.
func clientIP(addr net.Addr) netip.Addr {
	ap, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap().WithZone("")
}
