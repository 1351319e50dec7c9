// Package delivery is the SMTP and LMTP client (RFC 5321, RFC 2033): it finds where mail goes, keeps
// connections open for more of it, and always knows what the other side said. One attempt tries the
// mail exchangers in order and every address of each before it gives up. What a server answers to
// MAIL, RCPT or the message itself ends the attempt for that recipient; a 421 there, for all who
// have no answer yet. What goes wrong before is the next address's chance, and so is whoever has
// no answer when a connection is lost, until the final dot is sent: after it, trying again at once
// could make a duplicate. A server that could not be reached or fell silent is left alone for some
// minutes; see firstPause. So is a smarthost that refused our login; see firstLoginPause.
//
// What follows from a server's reply is its Verdict. A reply about rate or reputation ends the
// attempt, and one that is about IPv6 is answered by going on over IPv4: at once, and for a day with
// all servers of that provider. IPv6 comes first only where a Source has found it fit.
//
// Bytes leave as they came: the only change is dot-stuffing (RFC 5321 section 4.5.2). TLS is
// required, with a certificate that verifies, wherever a password is sent. At mail exchangers it is
// what the administrator demands, or else DANE (RFC 7672), or else MTA-STS (RFC 8461), and
// opportunistic (RFC 7435) where they demand nothing; a host that has had TLS for long and has none
// any more is waited for, see tlsPatience. A password never stands in a reply, an error or the log.
package delivery

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"relayd/address"
	"relayd/dns"
	"relayd/reply"
)

// A Message is one transaction's worth of mail.
type Message struct {
	ReturnPath address.Address
	Recipients []Recipient // all of them go the same way
	Body       func() (io.ReadCloser, error)
	Size       int64  // of the body in bytes
	EightBit   bool   // BODY=8BITMIME where it is offered
	UTF8       bool   // needs SMTPUTF8 (RFC 6531), as it also does when an address is not ASCII
	Return     string // DSN RET, ENVID: passed on where DSN is offered
	EnvelopeID string
	// RequireTLS is REQUIRETLS (RFC 8689): it goes over TLS with a certificate that verifies, to a
	// server that promises the same, or fails. A mailbox server is where it ends, and exempt.
	RequireTLS bool
	// TLSOptional is "TLS-Required: No" (RFC 8689): what the recipients' domain demands by
	// MTA-STS or DANE does not keep the message back. It is not set with RequireTLS.
	TLSOptional bool
	// Insist tries addresses, lookups and logins too that are left alone because they failed of late.
	Insist bool
}

// needsUTF8 reports whether the message can only go to a server that offers SMTPUTF8.
func (m *Message) needsUTF8() bool {
	if m.UTF8 || !m.ReturnPath.ASCII() {
		return true
	}
	return slices.ContainsFunc(m.Recipients, func(r Recipient) bool { return !r.Address.ASCII() })
}

// A Recipient is one forward-path with its DSN parameters (RFC 3461).
type Recipient struct {
	Address  address.Address
	Original string   // ORCPT as "type;address", decoded; "" when there is none
	Notify   []string // NEVER, or some of SUCCESS, FAILURE and DELAY
}

// A Result is what became of one recipient.
type Result struct {
	Reply *reply.Reply // the server's, or ours when it never came to one; 2xx means delivered
	Host  string       // who gave it, as "name [address]"; "" when nobody was reached
	TLS   TLS          // of the connection that it came over
	DSN   bool         // the server took the message, and the DSN parameters with it
	// Verdict is what follows from the server's reply. It is zero for a reply of ours, from which
	// follows what its code says: see Fate.
	Verdict Verdict
	// Strained says that a server showed signs of load: a reply whose Verdict says so, silence, a
	// connection that it refused or dropped. It is not set where it was not asked, because of such a
	// sign before.
	Strained bool
	// Until, if it is not zero, says that nothing was tried: the route has refused our login of late,
	// and at least until then the recipient has to wait. Reply tells of that.
	Until time.Time
}

// Fate is what becomes of the message for this recipient.
func (r *Result) Fate() Fate {
	switch {
	case r.Reply.Positive():
		return Accepted
	case r.Verdict == (Verdict{}) && r.Reply.Permanent(): // ours: a server's would be judged Final
		return Final
	}
	return r.Verdict.Fate
}

// A Resolver answers from DNS; *dns.Resolver is one.
type Resolver interface {
	MX(ctx context.Context, domain string) (dns.Answer[dns.MX], error)
	IP(ctx context.Context, host, network string) (dns.Answer[netip.Addr], error)
	Confirm(ctx context.Context, domain string) error
}

// Options are a Client's.
type Options struct {
	Hostname string // said in EHLO; a mail exchanger of this name is ourselves
	Port     int    // of mail exchangers
	Family   string // "auto", "ipv4" or "ipv6"
	// SourceIPv4 and SourceIPv6 are the addresses of ours that SMTP connections come from; the zero
	// Addr leaves the choice to the system, as it has it for LMTP.
	SourceIPv4, SourceIPv6 netip.Addr
	// Source says whether IPv6 comes first with "auto"; nil: it never does.
	Source   *Source
	Resolver Resolver
	// IsSelf reports whether an address is one that this relay listens on for the world's mail;
	// nil: none is.
	IsSelf  func(netip.AddrPort) bool
	RootCAs *x509.CertPool // who may vouch for a server; nil: whom the system trusts
	TLS     TLSOptions     // of connections to mail exchangers
	Times   Times          // all zero: DefaultTimes
	Log     *slog.Logger   // nil: nothing is logged
	// Now is the clock by which certificates are judged and what is remembered of domains and servers
	// grows old; nil: time.Now.
	Now func() time.Time
}

// Times are how long the client waits, by phase: RFC 5321 section 4.5.3.2.
type Times struct {
	Dial time.Duration
	// OtherFamily is instead of Dial while a host has an address of the other family left to try;
	// 0: Dial.
	OtherFamily time.Duration
	Greeting    time.Duration
	Command     time.Duration // MAIL, RCPT, EHLO, STARTTLS, AUTH
	DataInit    time.Duration // for 354
	Block       time.Duration // for a piece of the body to be taken
	Dot         time.Duration // for the answer to the final dot: giving up early makes duplicates
	Idle        time.Duration // how long a connection is kept open for more
	Age         time.Duration // after which a connection is not used again
	Messages    int           // transactions after which a connection is not used again
}

// DefaultTimes are those of RFC 5321, and 100 messages or 5 minutes for a connection. A server that
// wants fewer says so, or ends it; the message is then sent over another one. Within 5 seconds the
// system asks for a connection three times.
func DefaultTimes() Times {
	return Times{
		Dial:        30 * time.Second,
		OtherFamily: 5 * time.Second,
		Greeting:    5 * time.Minute,
		Command:     5 * time.Minute,
		DataInit:    2 * time.Minute,
		Block:       3 * time.Minute,
		Dot:         10 * time.Minute,
		Idle:        20 * time.Second,
		Age:         5 * time.Minute,
		Messages:    100,
	}
}

// A Client delivers mail. It is safe for concurrent use.
type Client struct {
	opt      Options
	pool     pool
	dial     func(ctx context.Context, from netip.Addr, network, addr string) (net.Conn, error)
	tls      *tls.Config
	secure   tlsMemory                // of hosts
	ways     *memory[string, way]     // by domain
	troubles *memory[target, trouble] // by target.place
	sixes    sixes                    // who takes no mail over IPv6
	logins   logins
}

// New makes a client. Close ends the connections that it keeps.
func New(opt Options) *Client {
	if opt.Times == (Times{}) {
		opt.Times = DefaultTimes()
	}
	if opt.IsSelf == nil {
		opt.IsSelf = func(netip.AddrPort) bool { return false }
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	c := &Client{
		opt: opt, dial: dialer(opt.Times.Dial),
		ways: newMemory[string, way](maxDomains), troubles: newMemory[target, trouble](maxTroubles),
	}
	c.tls = &tls.Config{
		MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(256),
	}
	c.secure.hosts = map[string]tlsHost{}
	c.loadHosts()
	c.pool.init(opt.Times.Idle)
	for _, w := range c.foreignSources() {
		opt.Log.Warn(w)
	}
	return c
}

// Close ends the idle connections, and saves what is known of hosts. A delivery that ends after it
// keeps no connection.
func (c *Client) Close() {
	c.pool.close()
	c.saveHosts()
}
