package smtpd

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"relayd/reply"
)

// A gate is the net.Conn that go-smtp sees. It stands above TLS and decides, line by line, what
// the library gets to read and how its replies reach the client:
//
//   - commands out of order, unknown, malformed or too many are answered here;
//   - STARTTLS is done here, so that a failed handshake ends the connection and nothing that was
//     sent before it survives it;
//   - the body of DATA is read here, watched for its end and for bare CR and LF, and handed to the
//     session; go-smtp sees an empty one. What stands behind a body that was broken off never
//     becomes a command;
//   - every error is sticky: after one, nothing is read again;
//   - replies are collected until the next read from the network, so that a pipelined batch is
//     answered in one packet;
//   - all deadlines are set here; those that go-smtp sets are ignored.
//
// go-smtp drives a gate from one goroutine. Only drain, abort, unusedSince and makeRoom may be called from
// others.
type gate struct {
	srv    *Server
	raw    net.Conn
	conn   net.Conn // raw, or TLS over it
	tls    *tls.ConnectionState
	in     *bufio.Reader
	behind []byte    // read with the end of a body and yet to be read by in
	out    []byte    // replies on their way
	reply  []byte    // what go-smtp has answered since its last read
	line   []byte    // command line being read
	asked  time.Time // when its first octet was waited for
	ahead  []byte    // what go-smtp gets to read next
	mode   mode
	verb   string // command that go-smtp is answering
	err    error  // sticky
	body   bodyScanner
	budget budget
	counts counts

	greeted   bool // EHLO or HELO done since the start or STARTTLS
	inMail    bool
	mailBegan time.Time // of the transaction
	recipient bool      // at least one RCPT accepted
	authed    bool
	begun     bool      // the greeting is on its way
	linger    bool      // the close follows an error reply that the client must get to read
	useful    time.Time // when the last message was taken, or the connection

	mu       sync.Mutex // guards what follows
	idle     bool       // waiting for a client that has no transaction open
	unused   time.Time  // useful, while waiting for a command of a client that is not logged in; else zero
	draining bool       // to be closed when idle
	unwanted bool       // to be closed when unused
}

type mode int

const (
	commands mode = iota // command lines
	dialog               // AUTH: lines that answer a challenge
	data                 // the body
)

func newGate(srv *Server, raw net.Conn) *gate {
	g := &gate{srv: srv, raw: raw, conn: raw, useful: time.Now()}
	g.in = bufio.NewReaderSize(networkReader{g}, 4096)
	return g
}

// networkReader reads from the network, after everything that was answered has been sent.
type networkReader struct{ g *gate }

func (r networkReader) Read(p []byte) (int, error) {
	g := r.g
	if len(g.behind) > 0 {
		n := copy(p, g.behind)
		g.behind = g.behind[n:]
		return n, nil
	}
	g.noteEarly()
	if err := g.flush(); err != nil {
		return 0, err
	}
	if err := g.conn.SetReadDeadline(g.readDeadline()); err != nil {
		return 0, err
	}
	g.await(g.mode == commands && !g.inMail)
	n, err := g.conn.Read(p)
	g.resume()
	return n, err
}

// await marks a wait for the client that others may cut short. What was asked for before it is honoured
// by a deadline that has passed.
func (g *gate) await(idle bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.idle = idle
	if g.mode != data && !g.authed {
		g.unused = g.useful
	}
	g.cutShort()
}

func (g *gate) resume() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.idle, g.unused = false, time.Time{}
}

// cutShort ends the wait for the client if it may end. The caller holds mu.
func (g *gate) cutShort() {
	if g.draining && g.idle || g.unwanted && !g.unused.IsZero() {
		g.conn.SetReadDeadline(time.Now())
	}
}

// drain ends the connection as soon as no transaction is open. Safe to call at any time.
func (g *gate) drain() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.draining = true
	g.cutShort()
}

// unusedSince is since when the client has brought nothing, while a command of it is awaited and it is not
// logged in; else the zero Time. Safe to call at any time.
func (g *gate) unusedSince() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.unwanted {
		return time.Time{}
	}
	return g.unused
}

// makeRoom ends the connection if it is unused. Safe to call at any time.
func (g *gate) makeRoom() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.unused.IsZero() {
		return false
	}
	g.unwanted = true
	g.cutShort()
	return true
}

func (g *gate) isUnwanted() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.unwanted
}

func (g *gate) isDraining() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.draining
}

// abort cuts the connection. Safe to call at any time.
func (g *gate) abort() { g.raw.Close() }

// Read gives go-smtp one command line, one dialog line or the end of an empty body.
func (g *gate) Read(p []byte) (n int, err error) {
	defer func() {
		if r := recover(); r != nil {
			g.logPanic(r)
			g.say(errPanicked)
			g.fail(errClosed)
			n, err = 0, g.err
		}
	}()
	if len(g.ahead) == 0 {
		g.settle()
		if g.err == nil {
			g.next()
		}
		if len(g.ahead) == 0 {
			return 0, g.err
		}
	}
	n = copy(p, g.ahead)
	g.ahead = g.ahead[n:]
	return n, nil
}

func (g *gate) logPanic(p any) {
	g.srv.log.Error("panic while talking to a client", "client", g.raw.RemoteAddr().String(), "panic", p, "stack", string(debug.Stack()))
}

// errClosed tells go-smtp to end the connection without a word of its own.
var errClosed = fmt.Errorf("session over: %w", net.ErrClosed)

// fail makes err sticky.
func (g *gate) fail(err error) {
	if g.err == nil {
		g.err = err
		g.mode = commands
	}
}

// next fills ahead, or sets err.
func (g *gate) next() {
	switch g.mode {
	case data:
		g.nextBody()
	case dialog:
		g.nextDialog()
	default:
		for len(g.ahead) == 0 && g.err == nil {
			g.nextCommand()
		}
	}
}

// Sizes of lines in octets, line end included. RFC 5321 section 4.5.3.1.4 gives a command 512,
// to which every extension adds; RFC 4954 section 4 gives an AUTH line 12288.
const (
	maxCommandLine = 2048
	maxAuthLine    = 12288 + 2
)

var (
	errLineTooLong = errors.New("line too long")
	errLineEnd     = errors.New("line does not end with CR LF")
)

// readLine reads a line with its end into g.line. A line that is too long or ends badly is read
// to its end first, so that its rest is no command.
func (g *gate) readLine(limit int) ([]byte, error) {
	g.line, g.asked = g.line[:0], time.Now()
	total := 0
	for {
		part, err := g.in.ReadSlice('\n')
		total += len(part)
		if len(g.line) <= limit {
			g.line = append(g.line, part...)
		}
		if err == bufio.ErrBufferFull && total < 1<<20 {
			continue
		}
		if err == bufio.ErrBufferFull {
			return nil, errClosed
		}
		if err != nil {
			return nil, err
		}
		break
	}
	switch {
	case total > limit:
		return nil, errLineTooLong
	case total < 2 || g.line[total-2] != '\r':
		return nil, errLineEnd
	}
	return g.line, nil
}

// lineError answers what readLine found wrong; anything but a bad line ends the session.
func (g *gate) lineError(err error) {
	switch {
	case err == errLineTooLong:
		g.refuse(reply.New(500, "5.5.6", "That line is too long"))
	case err == errLineEnd:
		g.refuse(reply.New(500, "5.5.2", "Lines must end with CR LF (openssl s_client wants -crlf)"))
	case g.isUnwanted():
		g.say(reply.New(421, "4.7.0", "%s has too many connections and needs this one for others, please try again", g.srv.opt.Hostname))
		g.srv.log.Info("connection closed", "client", g.raw.RemoteAddr().String(), "reason", "others need it")
		g.fail(errClosed)
	case g.isDraining():
		g.say(reply.New(421, "4.3.2", "%s is shutting down, please try again in a minute", g.srv.opt.Hostname))
		g.fail(errClosed)
	case isTimeout(err):
		g.say(reply.New(421, "4.4.2", "%s heard nothing for too long and closes the connection", g.srv.opt.Hostname))
		g.fail(errClosed)
	default:
		g.fail(errClosed)
	}
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

func (g *gate) nextDialog() {
	line, err := g.readLine(maxAuthLine)
	if err == errLineTooLong || err == errLineEnd {
		// go-smtp waits for an answer to its challenge; "*" is the client's way to cancel.
		g.lineError(err)
		g.ahead = []byte("*\r\n")
		g.verb = "AUTH cancelled"
		return
	}
	if err != nil {
		g.lineError(err)
		return
	}
	g.ahead = line
}

// Write takes go-smtp's reply in; settle sends it on.
func (g *gate) Write(p []byte) (int, error) {
	g.reply = append(g.reply, p...)
	return len(p), nil
}

// say puts a reply of our own on its way.
func (g *gate) say(r *reply.Reply) {
	g.out = fmt.Appendf(g.out, "%d %s %s\r\n", r.Code, r.Enhanced, printable(r.Text))
}

// refuse answers a command that was wrong in itself, and closes after too many of them.
func (g *gate) refuse(r *reply.Reply) {
	g.say(r)
	g.counts.errors++
	g.tooMany(g.counts.errors > g.srv.opt.Limits.Errors, "wrong commands")
}

// tooMany ends the session with 421 when over is true.
func (g *gate) tooMany(over bool, what string) {
	if !over || g.err != nil {
		return
	}
	g.say(reply.New(421, "4.7.0", "Too many %s on this connection, closing it", what))
	g.srv.log.Info("connection closed", "client", g.raw.RemoteAddr().String(), "reason", "too many "+what)
	g.linger = true
	g.fail(errClosed)
}

// flush sends what was answered. A client that does not read within WriteTimeout is gone.
func (g *gate) flush() error {
	if len(g.out) == 0 {
		return nil
	}
	if err := g.handshake(); err != nil {
		return err
	}
	patience := g.srv.opt.Limits.WriteTimeout
	if g.isUnwanted() {
		patience = g.srv.opt.Limits.Linger
	}
	if err := g.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	_, err := g.conn.Write(g.out)
	g.out = g.out[:0]
	return err
}

// Close sends what is left, says goodbye and, after an error reply, gives the client time to
// read it: closing with unread input would make the kernel send a reset that overtakes it.
func (g *gate) Close() (err error) {
	defer func() { // nobody above recovers, and the place is to be given back
		if p := recover(); p != nil {
			g.logPanic(p)
			err = g.raw.Close()
		}
	}()
	g.settle()
	g.fail(errClosed)
	g.flush()
	if tc, ok := g.conn.(*tls.Conn); ok {
		tc.CloseWrite()
	}
	if c, ok := g.raw.(interface{ CloseWrite() error }); ok && g.linger {
		c.CloseWrite()
		g.raw.SetReadDeadline(time.Now().Add(g.srv.opt.Limits.Linger))
		io.CopyN(io.Discard, g.raw, 1<<20)
	}
	return g.raw.Close()
}

// LocalAddr and RemoteAddr are those of the TCP connection.
func (g *gate) LocalAddr() net.Addr  { return g.raw.LocalAddr() }
func (g *gate) RemoteAddr() net.Addr { return g.raw.RemoteAddr() }

// The deadlines that go-smtp sets are one for a whole body; the gate has its own.
func (g *gate) SetDeadline(time.Time) error      { return nil }
func (g *gate) SetReadDeadline(time.Time) error  { return nil }
func (g *gate) SetWriteDeadline(time.Time) error { return nil }

// handshake does the TLS handshake of an implicit-TLS port, once, before the greeting leaves.
func (g *gate) handshake() error {
	if !g.srv.opt.ImplicitTLS || g.tls != nil || g.err != nil {
		return nil
	}
	return g.startTLS()
}

// startTLS replaces the connection by TLS over it. Anything that was read before is dropped, as
// is everything the session knew (RFC 3207 section 4.2); a failure ends the connection.
func (g *gate) startTLS() error {
	if err := g.raw.SetDeadline(time.Now().Add(g.srv.opt.Limits.Handshake)); err != nil {
		return err
	}
	tc := tls.Server(g.raw, g.srv.opt.TLS)
	g.await(true)
	err := tc.Handshake()
	g.resume()
	if err != nil {
		g.srv.log.Info("TLS handshake failed", "client", g.raw.RemoteAddr().String(), "error", err.Error())
		g.out = nil
		g.fail(errClosed)
		return g.err
	}
	state := tc.ConnectionState()
	g.mu.Lock()
	g.conn = tc
	g.mu.Unlock()
	g.tls = &state
	g.in.Discard(g.in.Buffered())
	g.behind = nil
	g.greeted, g.inMail, g.recipient, g.authed = false, false, false, false
	return nil
}
