// Package sink is a small SMTP server that takes every message and keeps it byte for byte. It is
// the other end of our delivery client in tests, in benchmarks and in the playground of
// "relayd -demo", so it shares no code with the server that we are, nor with its library.
//
// It promises to be strict where a client's mistake would otherwise pass unseen (parameters and
// pipelining that were not offered, plaintext behind STARTTLS, commands out of sequence), to
// change nothing in a message but the dots that RFC 5321 section 4.5.2 stuffs, and to misbehave
// exactly as Options.Reply says. It is not made to face the internet: it has no timeouts.
package sink

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options say what a Sink offers and how it behaves. The zero value is a friendly server on a
// free port of 127.0.0.1.
type Options struct {
	Addr     string // to listen on, the path of a unix socket if it begins with "/"; default "127.0.0.1:0"
	Hostname string // in the greeting and after EHLO; default "sink.test"

	TLSConfig   *tls.Config // with it, STARTTLS is offered
	ImplicitTLS bool        // TLS from the first byte on, as on port 465; needs TLSConfig

	// LMTP has it speak LMTP (RFC 2033): LHLO in place of EHLO, and a reply for each recipient after
	// the message, for which Reply is asked with the recipient as arg.
	LMTP bool

	Without []string          // extensions that are not offered, such as "PIPELINING" or "DSN"
	MaxSize int               // of a message in bytes, for SIZE; default 64 MiB
	Users   map[string]string // passwords by name; with it, AUTH is offered and needed before MAIL
	Discard bool              // messages are only counted and given to Handler, not kept

	// Handler is called for each message, before it is answered, from its connection's goroutine.
	Handler func(*Message)

	// Reply scripts the server. It is asked before each reply to one of the stages greeting, ehlo,
	// helo, starttls, auth, mail, rcpt, data (the command), dot (after the message), rset and quit.
	// arg is what the command is about: the client's address for the greeting, the EHLO name, the
	// AUTH mechanism, the address of MAIL and RCPT, the reverse-path for dot. nth counts how often
	// the stage came up since Start, over all connections, from 1.
	//
	// It returns "" for the normal reply, or lines of a reply separated by "\n", each with its code.
	// The code decides what happens then: a 2xx accepts the recipient or the message, 220 goes on
	// with TLS, 354 with the message. An action may stand alone or behind a reply: "<close>" closes
	// the connection, "<reset>" aborts it (TCP RST), "<hang>" says nothing more until Close, and
	// "<cut>" closes it in the middle of the last line. Reply is called from many goroutines.
	Reply func(stage, arg string, nth int) string
}

// A Message is one transaction that was accepted.
type Message struct {
	ID         int    // counts messages of this Sink, from 1
	ConnID     int    // counts its connections, from 1
	RemoteAddr string // of the client
	Helo       string // name after EHLO or HELO
	User       string // who authenticated, if anybody
	TLS        *tls.ConnectionState
	From       string   // reverse-path without its brackets
	FromArgs   string   // parameters of MAIL as they came
	Rcpts      []string // those that were accepted
	RcptArgs   []string // the parameters of each
	Data       []byte   // the message, without dot-stuffing and end mark
	At         time.Time
}

// A Sink is a running server. Safe for concurrent use.
type Sink struct {
	opt      Options
	listener net.Listener
	closing  chan struct{}
	wg       sync.WaitGroup // the listener's goroutine and all connections'

	mu       sync.Mutex // guards the rest
	closed   bool
	open     map[net.Conn]bool
	accepted int // connections
	taken    int // messages
	messages []*Message
	arrived  chan struct{} // closed and replaced at every message
	stages   map[string]int
}

// Start listens and serves until Close.
func Start(opt Options) (*Sink, error) {
	if opt.Addr == "" {
		opt.Addr = "127.0.0.1:0"
	}
	if opt.Hostname == "" {
		opt.Hostname = "sink.test"
	}
	if opt.MaxSize == 0 {
		opt.MaxSize = 64 << 20
	}
	if opt.ImplicitTLS && opt.TLSConfig == nil {
		return nil, fmt.Errorf("sink: implicit TLS needs a TLS configuration")
	}
	network := "tcp"
	if strings.HasPrefix(opt.Addr, "/") {
		network = "unix"
	}
	l, err := net.Listen(network, opt.Addr)
	if err != nil {
		return nil, fmt.Errorf("sink: %w", err)
	}
	s := &Sink{
		opt: opt, listener: l, closing: make(chan struct{}), open: map[net.Conn]bool{},
		arrived: make(chan struct{}), stages: map[string]int{},
	}
	s.wg.Go(s.serve)
	return s, nil
}

func (s *Sink) serve() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			_ = conn.Close()
			return
		}
		s.open[conn] = true
		s.accepted++
		sess := newSession(s, conn, s.accepted)
		s.mu.Unlock()
		s.wg.Go(func() {
			defer s.drop(conn)
			sess.run()
		})
	}
}

func (s *Sink) drop(conn net.Conn) {
	_ = conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, conn)
}

// Addr is where the server listens, as IP:port or the path of its socket.
func (s *Sink) Addr() string { return s.listener.Addr().String() }

// Close stops listening, closes all connections and waits for their goroutines. It may be called
// more than once.
func (s *Sink) Close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.closing)
	}
	_ = s.listener.Close()
	for conn := range s.open {
		_ = conn.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// Connections is how many connections there have been since Start.
func (s *Sink) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted
}

// Count is how many messages were accepted since Start.
func (s *Sink) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken
}

// Messages returns what was accepted, in that order; nothing when the Sink discards.
func (s *Sink) Messages() []*Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.messages)
}

// Wait waits until n messages were accepted since Start, and returns all there are. Its error is
// that of ctx, with how many had come by then.
func (s *Sink) Wait(ctx context.Context, n int) ([]*Message, error) {
	for {
		s.mu.Lock()
		taken, arrived := s.taken, s.arrived
		s.mu.Unlock()
		if taken >= n {
			return s.Messages(), nil
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			return s.Messages(), fmt.Errorf("%d of %d messages arrived: %w", taken, n, ctx.Err())
		}
	}
}

// take numbers a message and hands it on; it returns the number.
func (s *Sink) take(m *Message) int {
	s.mu.Lock()
	s.taken++
	m.ID = s.taken
	if !s.opt.Discard {
		s.messages = append(s.messages, m)
	}
	close(s.arrived)
	s.arrived = make(chan struct{})
	s.mu.Unlock()
	if s.opt.Handler != nil {
		s.opt.Handler(m)
	}
	return m.ID
}

// scripted asks Options.Reply.
func (s *Sink) scripted(stage, arg string) string {
	s.mu.Lock()
	s.stages[stage]++
	nth := s.stages[stage]
	s.mu.Unlock()
	if s.opt.Reply == nil {
		return ""
	}
	return s.opt.Reply(stage, arg, nth)
}
