package delivery

import (
	"errors"
	"fmt"
	"io"
	"net"

	"relayd/reply"
)

// errNotPromised says that a server is not one for a message with REQUIRETLS.
var errNotPromised = errors.New("REQUIRETLS cannot be kept")

// promises is nil if m may go over s. REQUIRETLS wants a certificate that verified, and a server
// that offers to want the same of the next one (RFC 8689). A mailbox server is the end of the way.
func (s *session) promises(m *Message) error {
	switch {
	case !m.RequireTLS || s.key.lmtp:
		return nil
	case !s.isVerified():
		return s.notPromised("there is no TLS with a certificate that verifies")
	case !s.offers("REQUIRETLS"):
		return s.notPromised("REQUIRETLS is not offered")
	}
	return nil
}

func (s *session) notPromised(why string) error {
	return reply.New(550, "5.7.30", "The message may only go to servers that keep it under TLS (REQUIRETLS), and %s does not promise to", s.peer).
		Because(fmt.Errorf("%w: %s", errNotPromised, why))
}

// withRequireTLS is err for a message with REQUIRETLS: a server without proper TLS is none for it
// for good (RFC 8689). A handshake that the network has broken off may go well next time.
func withRequireTLS(err error) error {
	r := reply.From(err)
	_, network := errors.AsType[net.Error](err)
	if r.Enhanced != "4.7.5" || network || errors.Is(err, io.EOF) {
		return err
	}
	return reply.New(550, "5.7.30", "The message may only go under TLS (REQUIRETLS): %s", r.Text).
		Because(fmt.Errorf("%w: %w", errNotPromised, err))
}

// isMeant reports whether a host is known to be the one that mail of a route is for, so that a
// certificate with its name proves something: the administrator or the address names it, or DNSSEC
// vouches for the MX record. (An MTA-STS policy does too.) The name that any other MX record gives
// is whose who answers for DNS.
func isMeant(route Route, f found) bool {
	return len(route.Hosts) > 0 || f.host.name == "" || f.host.zone != "" || f.host.implicit && f.secure
}

// isVerified reports whether the server has proved by its certificate to be the one that was meant.
func (s *session) isVerified() bool {
	return s.tls.Version != "" && s.tls.By != ByNothing
}
