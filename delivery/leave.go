package delivery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// dialer connects to the network; from is the zero Addr for what the system would choose.
func dialer(timeout time.Duration) func(ctx context.Context, from netip.Addr, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, from netip.Addr, network, addr string) (net.Conn, error) {
		d := net.Dialer{Timeout: timeout}
		if from.IsValid() {
			d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		}
		return d.DialContext(ctx, network, addr)
	}
}

// sourceOf is the address of ours that a connection to t along route comes from. Mailbox servers are
// near, and may be where that address does not lead.
func (c *Client) sourceOf(route Route, t target) netip.Addr {
	switch {
	case route.LMTP:
		return netip.Addr{}
	case t.isIPv6():
		return c.opt.SourceIPv6
	}
	return c.opt.SourceIPv4
}

// A foreignSource says that the settings name a source address which this machine does not have.
type foreignSource struct{ ip netip.Addr }

func (f *foreignSource) Error() string {
	key := "source_ipv4"
	if f.ip.Is6() {
		key = "source_ipv6"
	}
	return fmt.Sprintf("No connection can come from %s, for it is not an address of this machine: give it to the machine, or correct %s under [outbound]", f.ip, key)
}

// isForeign reports whether err says that a source address is not ours.
func isForeign(err error) bool {
	_, ok := errors.AsType[*foreignSource](err)
	return ok
}

// isNotOurs tells from the error of a system call that its address is not this machine's. When
// connecting EADDRNOTAVAIL would say that there is no port left, or no way.
func isNotOurs(err error) bool {
	call, ok := errors.AsType[*os.SyscallError](err)
	if ok && call.Syscall == "socket" && errors.Is(call.Err, syscall.EAFNOSUPPORT) {
		return true // it has none of that family
	}
	return ok && call.Syscall == "bind" && errors.Is(call.Err, syscall.EADDRNOTAVAIL)
}

// checkSource returns a *foreignSource if nothing can leave from ip. It is tried, for addresses come
// and go, and some that no interface has can be used all the same; nothing is sent.
func checkSource(ip netip.Addr) error {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 0)))
	if err == nil {
		conn.Close()
		return nil
	}
	if isNotOurs(err) {
		return &foreignSource{ip}
	}
	return nil
}

// foreignSources are the sentences about source addresses that are not this machine's.
func (c *Client) foreignSources() []string {
	return CheckSources(c.opt.SourceIPv4, c.opt.SourceIPv6)
}

// CheckSources returns a sentence for the admin about each source address that this machine does
// not have. The zero Addr is none.
func CheckSources(sources ...netip.Addr) []string {
	var list []string
	for _, ip := range sources {
		if !ip.IsValid() {
			continue
		}
		if err := checkSource(ip); err != nil {
			list = append(list, err.Error())
		}
	}
	return list
}
