package delivery

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"

	"relayd/dns"
)

// A pipeNet is a network in memory, for tests in which time stands still until it is needed. At
// every address there is the same server, which falls silent at one stage. It offers what its
// fields ask for.
type pipeNet struct {
	silent     string      // greeting, ehlo, star (STARTTLS), handshake, auth, mail, rcpt, data, body or dot
	offer      string      // more lines of EHLO, each as "250-KEYWORD\r\n"
	tls        *tls.Config // for STARTTLS
	unanswered bool        // connecting takes for ever
	deaf       string      // the network, "tcp4" or "tcp6", where it does; "" for none
	ips        int         // how many addresses each name has; 0: one

	dialed int
	open   atomic.Int32 // servers that still talk
}

func newPipeNet() *pipeNet { return &pipeNet{} }

func (n *pipeNet) client() *Client {
	c := New(Options{Hostname: "relay.test", Port: 25, Resolver: n})
	c.dial = n.dial
	return c
}

func (n *pipeNet) MX(context.Context, string) (dns.Answer[dns.MX], error) {
	return dns.Answer[dns.MX]{Records: []dns.MX{{Host: "mx.test", Preference: 10}}}, nil
}

func (n *pipeNet) IP(context.Context, string, string) (dns.Answer[netip.Addr], error) {
	var a dns.Answer[netip.Addr]
	for i := range max(1, n.ips) {
		a.Records = append(a.Records, netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}))
	}
	if n.deaf != "" {
		a.Records = append(a.Records, netip.MustParseAddr("2001:db8::1"))
	}
	return a, nil
}

func (n *pipeNet) Confirm(context.Context, string) error { return nil }

func (n *pipeNet) dial(ctx context.Context, _ netip.Addr, _, addr string) (net.Conn, error) {
	n.dialed++
	if n.unanswered || n.deaf == "tcp6" && addr[0] == '[' || n.deaf == "tcp4" && addr[0] != '[' {
		ctx, cancel := context.WithTimeout(ctx, DefaultTimes().Dial) // as the net.Dialer has it
		defer cancel()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	client, server := net.Pipe()
	closed := make(chan struct{})
	n.open.Add(1)
	go func() {
		defer n.open.Add(-1)
		defer server.Close()
		n.serve(server, closed)
	}()
	return &pipeConn{Conn: client, closed: closed}, nil
}

// A pipeConn tells the server when it is closed, even if that does not read.
type pipeConn struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func (c *pipeConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// serve talks until the client closes. A silent server still reads, as its kernel would, except
// in the message.
func (n *pipeNet) serve(conn net.Conn, closed <-chan struct{}) {
	r := bufio.NewReader(conn)
	for line, stage := "", "greeting"; ; stage = strings.ToLower(strings.TrimSpace(line[:4])) {
		if stage == n.silent {
			io.Copy(io.Discard, conn)
			return
		}
		switch stage {
		case "greeting":
			io.WriteString(conn, "220 mx.test\r\n")
		case "ehlo", "lhlo":
			io.WriteString(conn, "250-mx.test\r\n"+n.offer+"250 8BITMIME\r\n")
		case "star":
			io.WriteString(conn, "220 go\r\n")
			if n.silent == "handshake" {
				io.Copy(io.Discard, conn)
				return
			}
			conn = tls.Server(conn, n.tls)
			r = bufio.NewReader(conn)
		case "data":
			io.WriteString(conn, "354 go\r\n")
			if n.silent == "body" {
				<-closed
				return
			}
			for line := ""; line != ".\r\n"; {
				var err error
				if line, err = r.ReadString('\n'); err != nil {
					return
				}
			}
			if n.silent == "dot" {
				io.Copy(io.Discard, conn)
				return
			}
			io.WriteString(conn, "250 done\r\n")
		case "quit":
			return
		default:
			io.WriteString(conn, "250 ok\r\n")
		}
		var err error
		if line, err = r.ReadString('\n'); err != nil || len(line) < 6 {
			return
		}
	}
}
