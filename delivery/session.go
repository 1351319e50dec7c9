package delivery

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"relayd/reply"
)

// A session is one connection to a server, past its EHLO.
type session struct {
	conn     net.Conn
	r        *bufio.Reader
	w        *bufio.Writer
	times    Times
	hostname string
	key      string
	peer     target
	ext      map[string]string // keyword, upper case → parameters
	opened   time.Time
	sent     int  // messages
	dirty    bool // a transaction was left open: RSET comes first
	broken   bool // the connection is of no more use
}

// errNoTLS says that a TLS handshake with a mail exchanger failed.
var errNoTLS = errors.New("TLS handshake failed")

// connect opens a session. Where TLS is opportunistic and its handshake fails, it is tried again
// without: mail in the clear beats mail that does not come (RFC 7435).
func (c *Client) connect(ctx context.Context, route Route, a target) (*session, error) {
	s, err := c.open(ctx, route, a, true)
	if errors.Is(err, errNoTLS) && route.TLS == Opportunistic {
		c.opt.Log.Warn("sending without TLS, its handshake failed", "host", a.String(), "error", err.Error())
		s, err = c.open(ctx, route, a, false)
	}
	return s, err
}

func (c *Client) open(ctx context.Context, route Route, a target, useTLS bool) (*session, error) {
	conn, err := c.dial(ctx, "tcp", a.addr.String())
	if err != nil {
		return nil, unreachable(a, err)
	}
	s := &session{conn: conn, times: c.opt.Times, hostname: c.opt.Hostname, key: poolKey(route, a), peer: a, opened: time.Now()}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := c.introduce(ctx, s, route, useTLS); err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

func unreachable(a target, err error) error {
	return reply.New(451, "4.4.1", "%s cannot be reached", a).Because(err)
}

// introduce brings a new connection to where MAIL can be said.
func (c *Client) introduce(ctx context.Context, s *session, route Route, useTLS bool) error {
	if route.TLS == Implicit {
		if err := s.startTLS(ctx, c.tlsConfig(route, s.peer)); err != nil {
			return err
		}
	}
	s.buffer()
	if err := s.expect(s.times.Greeting, 220, "greeting"); err != nil {
		return err
	}
	if err := s.hello(); err != nil {
		return err
	}
	_, offered := s.ext["STARTTLS"]
	switch {
	case route.TLS == StartTLS && !offered:
		return reply.New(451, "4.7.5", "%s does not offer STARTTLS", s.peer)
	case route.TLS != Implicit && offered && useTLS:
		if err := s.upgrade(ctx, c.tlsConfig(route, s.peer)); err != nil {
			return err
		}
	}
	if route.Password != "" {
		return s.login(route)
	}
	return nil
}

// tlsConfig verifies certificates where a password depends on it; a mail exchanger's name comes
// from DNS, which proves nothing, so any certificate does there (RFC 7435).
func (c *Client) tlsConfig(route Route, a target) *tls.Config {
	conf := c.tls.Clone()
	conf.ServerName = a.name
	if a.name == "" {
		conf.ServerName = a.addr.Addr().String()
	}
	conf.InsecureSkipVerify = route.TLS == Opportunistic
	return conf
}

func (s *session) buffer() {
	s.r = bufio.NewReaderSize(s.conn, maxReplyLine)
	s.w = bufio.NewWriterSize(s.conn, 8192)
}

func (s *session) startTLS(ctx context.Context, conf *tls.Config) error {
	s.conn.SetDeadline(deadline(s.times.Command))
	tc := tls.Client(s.conn, conf)
	if err := tc.HandshakeContext(ctx); err != nil {
		return reply.New(451, "4.7.5", "No TLS with %s", s.peer).Because(fmt.Errorf("%w: %w", errNoTLS, err))
	}
	s.conn = tc
	return nil
}

// upgrade does STARTTLS. What the server sent in the clear behind its 220 is thrown away with
// the buffer, and what it offered before is asked for again (RFC 3207 section 4.2).
func (s *session) upgrade(ctx context.Context, conf *tls.Config) error {
	r, err := s.command(s.times.Command, "STARTTLS")
	if err != nil {
		return err
	}
	if r.Code != 220 {
		return reply.New(451, "4.7.5", "%s offers STARTTLS and refuses it", s.peer).Because(fmt.Errorf("%w: %s", errNoTLS, r))
	}
	if s.r.Buffered() > 0 {
		return reply.New(451, "4.7.5", "%s sends more after the answer to STARTTLS", s.peer)
	}
	if err := s.startTLS(ctx, conf); err != nil {
		return err
	}
	s.buffer()
	return s.hello()
}

// hello says EHLO, or HELO to a server that does not know it, and notes what is offered.
func (s *session) hello() error {
	r, err := s.command(s.times.Command, "EHLO "+s.hostname)
	if err != nil {
		return err
	}
	s.ext = map[string]string{}
	if r.Code/100 == 5 {
		if r, err = s.command(s.times.Command, "HELO "+s.hostname); err != nil {
			return err
		}
	}
	if r.Code != 250 {
		return s.refused(r, "EHLO")
	}
	for i, l := range strings.Split(r.Text, "\n") {
		if i > 0 {
			word, params, _ := strings.Cut(strings.TrimSpace(l), " ")
			s.ext[strings.ToUpper(word)] = params
		}
	}
	return nil
}

// refused is a server's no before MAIL. Whatever its code, it speaks about this connection and
// not about the message: another host, or the same one later, may take it.
func (s *session) refused(r *reply.Reply, stage string) error {
	return reply.New(451, "4.3.0", "%s refuses service (%s): %s", s.peer, stage, r.String()).Because(r)
}

func (s *session) login(route Route) error {
	mechanisms := strings.Fields(strings.ToUpper(s.ext["AUTH"]))
	var r *reply.Reply
	var err error
	switch {
	case slices.Contains(mechanisms, "PLAIN") || !slices.Contains(mechanisms, "LOGIN"):
		r, err = s.command(s.times.Command, "AUTH PLAIN "+b64("\x00"+route.User+"\x00"+route.Password))
	default:
		r, err = s.command(s.times.Command, "AUTH LOGIN")
		for _, answer := range []string{route.User, route.Password} {
			if err == nil && r.Code == 334 {
				r, err = s.command(s.times.Command, b64(answer))
			}
		}
	}
	if err != nil {
		return err
	}
	if r.Code != 235 {
		return reply.New(451, "4.7.8", "%s does not accept our login: check user and password of the smarthost", s.peer).Because(r)
	}
	return nil
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// command sends a line and reads its reply.
func (s *session) command(wait time.Duration, line string) (*reply.Reply, error) {
	s.conn.SetDeadline(deadline(wait))
	if _, err := s.w.WriteString(line + "\r\n"); err != nil {
		return nil, s.lost(err)
	}
	if err := s.w.Flush(); err != nil {
		return nil, s.lost(err)
	}
	return s.read(wait)
}

func (s *session) read(wait time.Duration) (*reply.Reply, error) {
	s.conn.SetDeadline(deadline(wait))
	r, err := readReply(s.r)
	if err != nil {
		return nil, s.lost(err)
	}
	if r.Code == 421 {
		s.broken = true
	}
	return r, nil
}

// lost notes that the connection is of no more use, and says so in a reply.
func (s *session) lost(err error) error {
	s.broken = true
	return reply.New(451, "4.4.2", "The connection to %s was lost", s.peer).Because(err)
}

func (s *session) expect(wait time.Duration, code int, stage string) error {
	r, err := s.read(wait)
	if err != nil {
		return err
	}
	if r.Code != code {
		return s.refused(r, stage)
	}
	return nil
}

func (s *session) reusable() bool {
	return !s.broken && s.sent < s.times.Messages && time.Since(s.opened) < s.times.Age
}

// close says goodbye without waiting for an answer.
func (s *session) close() {
	if !s.broken {
		s.conn.SetDeadline(deadline(time.Second))
		s.w.WriteString("QUIT\r\n")
		s.w.Flush()
	}
	s.conn.Close()
}
