// Package proxied tells who is really at the other end of a connection that comes through a proxy or a
// load balancer, by the header of the PROXY protocol, version 1 or 2, that it sends first (HAProxy's
// proxy-protocol.txt).
//
// Only from networks that are named is a header believed, and there it is required: who could leave
// it out would pass for the proxy itself. All other connections are ordinary ones, in which such a
// header is a command that nobody knows. A header is at most 4 KiB and must be there within 5 seconds;
// connections that wait for theirs, 1000 at most, hold up nobody else.
package proxied

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"
)

const (
	maxHeader  = 4096
	patience   = 5 * time.Second
	maxPending = 1000
)

// A Listener gives connections with the address of the real client. Close ends all that it does.
type Listener struct {
	net.Listener
	from  []netip.Prefix
	log   *slog.Logger
	ready chan accepted
	done  chan struct{}
	close func() error
	all   sync.WaitGroup
	slots chan struct{} // of connections whose header is awaited
}

type accepted struct {
	conn net.Conn
	err  error
}

// Listen takes connections from l, and headers from those that come from these networks.
func Listen(l net.Listener, from []netip.Prefix, log *slog.Logger) *Listener {
	p := &Listener{
		Listener: l, from: from, log: log,
		ready: make(chan accepted), done: make(chan struct{}), slots: make(chan struct{}, maxPending),
	}
	p.close = sync.OnceValue(func() error {
		close(p.done)
		err := l.Close()
		p.all.Wait()
		return err
	})
	p.all.Go(p.take)
	return p
}

// Accept waits for a connection of which it is known who is at its other end.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case a := <-l.ready:
		return a.conn, a.err
	case <-l.done:
		return nil, fmt.Errorf("accepting: %w", net.ErrClosed)
	}
}

// Close closes the listener and the connections that nobody has got.
func (l *Listener) Close() error { return l.close() }

// take takes connections until the listener is closed.
func (l *Listener) take() {
	for {
		conn, err := l.Listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil || !l.isProxy(conn.RemoteAddr()):
			l.give(accepted{conn, err})
			continue
		}
		select {
		case l.slots <- struct{}{}:
			l.all.Go(func() {
				defer func() { <-l.slots }()
				l.greet(conn)
			})
		default:
			l.refuse(conn, errors.New("too many connections wait for theirs"))
		}
	}
}

func (l *Listener) isProxy(addr net.Addr) bool {
	peer, err := netip.ParseAddrPort(addr.String())
	ip := peer.Addr().Unmap().WithZone("")
	return err == nil && slices.ContainsFunc(l.from, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// give hands a connection over, or closes it with the listener.
func (l *Listener) give(a accepted) {
	select {
	case l.ready <- a:
	case <-l.done:
		if a.conn != nil {
			a.conn.Close()
		}
	}
}

// greet reads the header of a connection and hands it over.
func (l *Listener) greet(conn net.Conn) {
	got := make(chan struct{})
	ended := make(chan struct{})
	go func() { // a listener that is closed does not wait for it
		defer close(ended)
		select {
		case <-got:
		case <-l.done:
			conn.SetReadDeadline(time.Unix(1, 0))
		}
	}()
	conn.SetReadDeadline(time.Now().Add(patience))
	c, err := l.read(conn)
	close(got)
	<-ended
	if err != nil {
		l.refuse(conn, err)
		return
	}
	conn.SetReadDeadline(time.Time{})
	l.give(accepted{conn: c})
}

func (l *Listener) refuse(conn net.Conn, err error) {
	l.log.Warn("connection without a PROXY header, which listen.proxy_from asks for, is closed", "client", conn.RemoteAddr().String(), "error", err.Error())
	conn.Close()
}

// read takes the header off a connection. A panic over it ends that connection only.
func (l *Listener) read(conn net.Conn) (c net.Conn, err error) {
	defer func() {
		if p := recover(); p != nil {
			l.log.Error("panic over a PROXY header", "client", conn.RemoteAddr().String(), "panic", p, "stack", string(debug.Stack()))
			err = errors.New("it has made relayd fail")
		}
	}()
	return read(conn)
}

// read takes the header off a connection.
func read(conn net.Conn) (net.Conn, error) {
	in := bufio.NewReaderSize(&io.LimitedReader{R: conn, N: maxHeader}, maxHeader)
	h, err := proxyproto.Read(in)
	if err != nil {
		return nil, fmt.Errorf("reading the PROXY header: %w", err)
	}
	c := &clientConn{Conn: conn, client: conn.RemoteAddr()}
	// The proxy's own connections, such as health checks, and those of which it knows nothing are from it.
	if source, _, ok := h.TCPAddrs(); ok && h.Command.IsProxy() {
		if source == nil || source.AddrPort().Addr().IsUnspecified() || !source.AddrPort().IsValid() {
			return nil, errors.New("the PROXY header names no address that a client can have")
		}
		c.client = source
	}
	c.ahead, _ = in.Peek(in.Buffered())
	return c, nil
}

// A clientConn is a connection whose client is not its other end.
type clientConn struct {
	net.Conn
	client net.Addr
	ahead  []byte // what came with the header
}

func (c *clientConn) RemoteAddr() net.Addr { return c.client }

func (c *clientConn) Read(p []byte) (int, error) {
	if len(c.ahead) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.ahead)
	if c.ahead = c.ahead[n:]; len(c.ahead) == 0 {
		c.ahead = nil // with the buffer behind it
	}
	return n, nil
}

// CloseWrite sends the client the end, if the connection can.
func (c *clientConn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}
