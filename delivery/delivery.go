// Package delivery is the SMTP client (RFC 5321): it finds where mail goes, keeps connections
// open for more of it, and always knows what the other side said. One attempt tries the mail
// exchangers in order and every address of each before it gives up; what a server answers to
// MAIL, RCPT or the message itself ends the attempt for that recipient, what goes wrong before
// is the next host's chance.
//
// Bytes leave as they came: the only change is dot-stuffing (RFC 5321 section 4.5.2). TLS is
// opportunistic for mail exchangers and required, with a certificate that verifies, wherever a
// password is sent.
package delivery

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/netip"
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
	UTF8       bool   // needs SMTPUTF8 (RFC 6531)
	Return     string // DSN RET, ENVID: passed on where DSN is offered
	EnvelopeID string
}

// A Recipient is one forward-path with its DSN parameters.
type Recipient struct {
	Address  address.Address
	Original string
	Notify   []string
}

// A Result is what became of one recipient.
type Result struct {
	Reply *reply.Reply // the server's, or ours when it never came to one; 2xx means delivered
	Host  string       // who gave it, as "name [address]"; "" when nobody was reached
	DSN   bool         // the server has taken over the DSN parameters
}

// A Resolver answers from DNS; *dns.Resolver is one.
type Resolver interface {
	MX(ctx context.Context, domain string) (dns.Answer[dns.MX], error)
	IP(ctx context.Context, host, network string) (dns.Answer[netip.Addr], error)
	Confirm(ctx context.Context, domain string) error
}

// Options are a Client's.
type Options struct {
	Hostname string // said in EHLO
	Port     int    // of mail exchangers
	Family   string // "auto", "ipv4" or "ipv6"
	Resolver Resolver
	// IsSelf reports whether an address is one that this relay listens on for the world's mail.
	IsSelf func(netip.AddrPort) bool
	Times  Times
	Log    *slog.Logger
}

// Times are how long the client waits, by phase: RFC 5321 section 4.5.3.2.
type Times struct {
	Dial     time.Duration
	Greeting time.Duration
	Command  time.Duration // MAIL, RCPT, EHLO, STARTTLS, AUTH
	DataInit time.Duration // for 354
	Block    time.Duration // for a piece of the body to be taken
	Dot      time.Duration // for the answer to the final dot: giving up early makes duplicates
	Idle     time.Duration // how long a connection is kept open for more
	Age      time.Duration // after which a connection is not used again
	Messages int           // after which a connection is not used again
}

// DefaultTimes are those of RFC 5321, and 20 messages or 5 minutes for a connection.
func DefaultTimes() Times {
	return Times{
		Dial:     30 * time.Second,
		Greeting: 5 * time.Minute,
		Command:  5 * time.Minute,
		DataInit: 2 * time.Minute,
		Block:    3 * time.Minute,
		Dot:      10 * time.Minute,
		Idle:     20 * time.Second,
		Age:      5 * time.Minute,
		Messages: 20,
	}
}

// A Client delivers mail. It is safe for concurrent use.
type Client struct {
	opt  Options
	pool pool
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
	tls  *tls.Config
}

// New makes a client. Close ends the connections that it keeps.
func New(opt Options) *Client {
	d := &net.Dialer{Timeout: opt.Times.Dial}
	c := &Client{opt: opt, dial: d.DialContext}
	c.tls = &tls.Config{MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(256)}
	c.pool.init(opt.Times.Idle)
	return c
}

// Close ends the idle connections.
func (c *Client) Close() { c.pool.close() }

// Deliver makes one attempt along route and returns one result for each recipient, in order.
// It returns within seconds after ctx ends, with temporary results for what was not finished.
func (c *Client) Deliver(ctx context.Context, route Route, m *Message) []Result {
	hosts, err := c.hosts(ctx, route)
	if err != nil {
		return all(m, Result{Reply: reply.From(err)})
	}
	last := Result{Reply: reply.New(451, "4.4.1", "No address of any mail server for %s could be used", route.Domain)}
	tried := 0
	for _, h := range hosts {
		addrs, err := c.addresses(ctx, h, route)
		if err != nil {
			last = Result{Reply: reply.From(err), Host: h.name}
			continue
		}
		for _, a := range addrs {
			if tried++; tried > maxAddresses || ctx.Err() != nil {
				return all(m, last)
			}
			results, err := c.tryAddress(ctx, route, a, m)
			if err == nil {
				return results
			}
			last = Result{Reply: reply.From(err), Host: a.String()}
			c.opt.Log.Debug("next address", "host", a.String(), "error", err.Error())
		}
	}
	return all(m, last)
}

// maxAddresses bounds one attempt: with every one of them hanging at connect it ends in minutes.
const maxAddresses = 10

// tryAddress delivers over a kept connection or a new one. An error means that nothing was
// decided: the next address may do better.
func (c *Client) tryAddress(ctx context.Context, route Route, a target, m *Message) ([]Result, error) {
	for {
		s := c.pool.get(poolKey(route, a))
		if s == nil {
			break
		}
		results, err := c.transact(ctx, s, m)
		if err == nil {
			return results, nil
		}
		// A kept connection that was closed meanwhile is nobody's fault and proves nothing.
	}
	s, err := c.connect(ctx, route, a)
	if err != nil {
		return nil, err
	}
	return c.transact(ctx, s, m)
}

// transact sends m over s and puts s back into the pool, or closes it.
func (c *Client) transact(ctx context.Context, s *session, m *Message) ([]Result, error) {
	stop := context.AfterFunc(ctx, func() { s.conn.Close() })
	results, err := s.send(m)
	if stop() && err == nil && s.reusable() {
		c.pool.put(s)
		return results, nil
	}
	s.close()
	return results, err
}

func all(m *Message, r Result) []Result {
	results := make([]Result, len(m.Recipients))
	for i := range results {
		results[i] = r
	}
	return results
}
