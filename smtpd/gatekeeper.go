package smtpd

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"relayd/reply"
)

// A Gatekeeper counts connections, all and by source. A source is an IPv4 address or an IPv6
// /64, which is what one customer of a provider gets. Where all places are taken, those who only hold
// one make room, so that nobody is locked out by connections that do nothing. Safe for concurrent use.
type Gatekeeper struct {
	total, perSource int

	mu      sync.Mutex
	open    int
	sources map[netip.Prefix]int
	servers []*Server
}

// unhurried is how long a place may be held to no purpose, however many want one.
const unhurried = 10 * time.Second

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
	case k.sources[src] >= k.perSource:
		return nil, reply.New(421, "4.7.0", "Too many connections from %s, please close some first", src.Addr())
	case k.open >= k.total && !k.makeRoom():
		return nil, reply.New(421, "4.7.0", "Too many connections, please try again in a minute")
	}
	k.open++
	k.sources[src]++
	return func() { k.leave(src) }, nil
}

// serve has the connections of s make room.
func (k *Gatekeeper) serve(s *Server) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.servers = append(k.servers, s)
}

// makeRoom ends the connection that has been open for longest to no purpose, and reports whether there is
// one. Until it is closed, which takes no time worth mentioning, there is one more than total.
func (k *Gatekeeper) makeRoom() bool {
	var longest *gate
	since := time.Now().Add(-unhurried)
	for _, s := range k.servers {
		for _, g := range s.open() {
			if t := g.unusedSince(); !t.IsZero() && t.Before(since) {
				longest, since = g, t
			}
		}
	}
	return longest != nil && longest.makeRoom()
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
