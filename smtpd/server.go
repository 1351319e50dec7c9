// Package smtpd is the SMTP server: listeners, sessions, limits, replies (RFC 5321, 6409, 8314).
// It is the only room that knows go-smtp's server. Every connection passes through a gate (see
// there), which answers what is wrong in itself; what is left reaches a session, which asks the
// Relay. A session never reads a byte that the gate has not seen, and no text of an internal
// error reaches a client.
//
// It offers PIPELINING, SIZE, 8BITMIME, SMTPUTF8, ENHANCEDSTATUSCODES, STARTTLS, REQUIRETLS (under
// TLS) and LIMITS, and on the submission ports AUTH and DSN. DSN is not offered to strangers, for a success report to
// a forged sender would be backscatter. CHUNKING is not offered: it saves nothing and doubles
// the ways in which a body can end.
//
// Its limits; those with a key are settings of relayd.toml, and each refusal says what it is about:
//
//	connections, all                      1000       limits.connections          421 4.7.0
//	     one that brings nothing for 10 s makes room when all are taken          421 4.7.0
//	of one IPv4 address or IPv6 /64        100       limits.connections_per_ip   421 4.7.0
//	line of a command                     2048 octets                            500 5.5.6
//	line of an AUTH dialog               12290 octets                            500 5.5.6
//	commands since the last message       1000                                   421 4.7.0
//	wrong commands                          10                                   421 4.7.0
//	recipients of a transaction            100       limits.recipients           452 4.5.3
//	unknown recipients of a session         50 (from the 11th on each waits longer, up to 5 s)  421 4.7.0
//	unknown recipients of a source         500 an hour (see relay)               450 4.7.1
//	other addresses at a catch-all        1000 an hour  limits.catchall_addresses  450 4.2.1
//	wrong passwords of a session             3                                   421 4.7.0
//	wrong passwords of a source, account     5, 10 an hour (see bans)            421 4.7.0, slowed
//	messages of a user                    none an hour  limits.user_messages_per_hour, messages_per_hour  450 4.7.1
//	size of a message                     50 MB      limits.message_size         552 5.3.4
//	its header                           256 KiB, 1000 fields                    552 5.3.4
//	messages in memory                    64 KiB each, 32 MiB all; more goes to files
//	wait for a command                       5 min                               421 4.4.2
//	MAIL to DATA                            30 min                               421 4.4.2
//	wait for octets of a body                3 min                               421 4.4.2
//	rate of a body after that             1000 octets a second on average        421 4.4.2
//	a whole body                             2 h                                 421 4.4.2
//	TLS handshake, taking a reply            1 min                               (closed)
package smtpd

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/emersion/go-smtp"

	"relayd/address"
	"relayd/message"
	"relayd/relay"
	"relayd/reply"
)

// A Relay decides what becomes of mail. Its methods may be called from many goroutines, those
// about one transaction from one at a time. An error that carries a *reply.Reply is answered
// with it; any other error is answered 451 4.3.0 and logged.
type Relay interface {
	// Login returns the address of the user that the password belongs to; with an error the address
	// that was tried, if it may stand in the log.
	Login(ctx context.Context, c *relay.Client, user, password string) (address.Address, error)
	// Mail judges tx.Sender and tx.Size.
	Mail(ctx context.Context, tx *relay.Transaction) error
	// Recipient judges to and adds it to tx when it is accepted.
	Recipient(ctx context.Context, tx *relay.Transaction, to relay.Recipient) error
	// Accept takes responsibility for m and returns what the client is told, or does not and
	// returns why. The caller closes m.
	Accept(ctx context.Context, tx *relay.Transaction, m *message.Message) (*reply.Reply, error)
}

// Options are what a Server needs to know. All but TLS are required.
type Options struct {
	Hostname    string      // in the greeting and in replies
	Submission  bool        // AUTH is offered and needed; otherwise this is an MX
	ImplicitTLS bool        // TLS from the first byte (RFC 8314 section 3.3)
	TLS         *tls.Config // nil: no STARTTLS; must be set with ImplicitTLS
	// CanLogin reports whether passwords may be taken under the certificate that was shown for
	// this name (SNI). Only asked with Submission.
	CanLogin func(serverName string) bool
	Memory   *message.Memory // of all messages that come in; nil: no bound but message.MemoryLimit for each
	SpoolDir string          // where bodies over message.MemoryLimit are kept while they arrive
	Limits   Limits
	Gatekeep *Gatekeeper // shared by the servers of one process
	Log      *slog.Logger
}

// Limits bound what one connection may do. All must be positive.
type Limits struct {
	MessageSize       int64 // bytes
	Recipients        int   // of one transaction
	Errors            int   // wrong commands
	UnknownRecipients int   // and others refused for good, on the MX port; past Unhurried of them each waits longer
	Unhurried         int
	Logins            int // failed
	Commands          int // since the last message

	Delay          time.Duration // longest before a refusal past Unhurried
	Transaction    time.Duration // from MAIL to DATA
	CommandTimeout time.Duration // for the whole of the next command; RFC 5321 section 4.5.3.2.7 asks for 5 min
	WriteTimeout   time.Duration // for a reply to be taken
	Handshake      time.Duration // TLS
	DataTimeout    time.Duration // for the next byte of a body (section 4.5.3.2.5: 3 min)
	DataTotal      time.Duration // for a whole body
	MinimumRate    int64         // bytes a second that a body must keep up, after DataTimeout
	BareSilence    time.Duration // how long a client that sent a bare LF is waited for
	Linger         time.Duration // how long a refused client is given to read its last reply
}

// DefaultLimits are limits for the open Internet; MessageSize and Recipients come from the config.
func DefaultLimits() Limits {
	return Limits{
		MessageSize:       50 << 20,
		Recipients:        100,
		Errors:            10,
		UnknownRecipients: 50,
		Unhurried:         10,
		Delay:             5 * time.Second,
		Transaction:       30 * time.Minute,
		Logins:            3,
		Commands:          1000,
		CommandTimeout:    5 * time.Minute,
		WriteTimeout:      time.Minute,
		Handshake:         time.Minute,
		DataTimeout:       3 * time.Minute,
		DataTotal:         2 * time.Hour,
		MinimumRate:       1000,
		BareSilence:       5 * time.Second,
		Linger:            2 * time.Second,
	}
}

// A Server serves one kind of port.
type Server struct {
	opt   Options
	relay Relay
	log   *slog.Logger
	smtp  *smtp.Server
	ctx   context.Context // ends when sessions are cut off
	stop  context.CancelFunc

	mu        sync.Mutex
	gates     map[*gate]struct{}
	listeners []*listener
	draining  bool
}

// New makes a server; Serve starts it.
func New(opt Options, r Relay) *Server {
	s := &Server{opt: opt, relay: r, log: opt.Log, gates: map[*gate]struct{}{}}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.smtp = smtp.NewServer(smtp.BackendFunc(s.newSession))
	s.smtp.Domain = opt.Hostname
	s.smtp.MaxLineLength = 0   // the gate bounds commands; body lines may be of any length
	s.smtp.MaxMessageBytes = 0 // message.Read bounds bodies, exactly
	s.smtp.MaxRecipients = opt.Limits.Recipients
	s.smtp.AllowInsecureAuth = true // the gate asks for TLS: the library cannot see it
	s.smtp.EnableSMTPUTF8 = true
	s.smtp.EnableREQUIRETLS = true // the gate offers it under TLS, which the library cannot see
	s.smtp.EnableDSN = opt.Submission
	opt.Gatekeep.serve(s)
	s.smtp.ErrorLog = libraryLog{opt.Log}
	return s
}

// Serve takes connections from l until Shutdown; then it returns nil.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.draining {
		s.mu.Unlock()
		return l.Close()
	}
	own := &listener{Listener: l, srv: s}
	own.close = sync.OnceValue(l.Close)
	s.listeners = append(s.listeners, own)
	s.mu.Unlock()
	err := s.smtp.Serve(own)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return nil
	}
	return err
}

// Shutdown stops taking connections, answers 421 to idle ones, and waits for open transactions
// until ctx ends, when it cuts them off.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.draining = true
	for _, l := range s.listeners { // the library closes only those that it has begun to serve
		l.Close()
	}
	s.mu.Unlock()
	for _, g := range s.open() {
		g.drain()
	}
	err := s.smtp.Shutdown(ctx)
	s.stop()
	for _, g := range s.open() {
		g.abort()
	}
	return err
}

// Connections is the number of open connections.
func (s *Server) Connections() int { return len(s.open()) }

// Accepting reports whether every loop that takes connections has come back for the next one, or left
// for one no longer than within ago. One that does not come back hangs.
func (s *Server) Accepting(within time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	return !slices.ContainsFunc(s.listeners, func(l *listener) bool {
		left := l.left.Load()
		return left != nil && now.Sub(*left) > within
	})
}

// open lists the open connections. They are dealt with outside the lock, which closing one takes.
func (s *Server) open() []*gate {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.gates))
}

// A listener hands every connection to a gate of its own, or turns it away.
type listener struct {
	net.Listener
	srv   *Server
	close func() error
	left  atomic.Pointer[time.Time] // when the loop has left with a connection; nil while it waits for one
}

// Close closes the listener, once: Shutdown does, and the library does.
func (l *listener) Close() error { return l.close() }

func (l *listener) Accept() (net.Conn, error) {
	for {
		l.left.Store(nil)
		c, err := l.Listener.Accept()
		now := time.Now()
		l.left.Store(&now)
		if err != nil {
			return nil, err
		}
		release, r := l.srv.opt.Gatekeep.Admit(c.RemoteAddr())
		if r != nil {
			go l.srv.turnAway(c, r)
			continue
		}
		return l.srv.admit(c, release), nil
	}
}

func (s *Server) admit(c net.Conn, release func()) net.Conn {
	conn := &releasingConn{Conn: c}
	g := newGate(s, conn)
	conn.release = sync.OnceFunc(func() {
		s.mu.Lock()
		delete(s.gates, g)
		s.mu.Unlock()
		release()
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gates[g] = struct{}{}
	if s.draining {
		g.drain()
	}
	return g
}

// turnAway says why, where the client could read it, and closes.
func (s *Server) turnAway(c net.Conn, r *reply.Reply) {
	defer c.Close()
	s.log.Info("connection refused", "client", c.RemoteAddr().String(), "reason", r.Text)
	if s.opt.ImplicitTLS {
		return
	}
	c.SetDeadline(time.Now().Add(s.opt.Limits.Linger))
	c.Write([]byte(r.String() + "\r\n"))
}

// A releasingConn gives its place back when it is closed.
type releasingConn struct {
	net.Conn
	release func()
}

func (c *releasingConn) Close() error {
	c.release()
	return c.Conn.Close()
}

// SyscallConn is that of the connection underneath.
func (c *releasingConn) SyscallConn() (syscall.RawConn, error) {
	if s, ok := c.Conn.(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

func (c *releasingConn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}
