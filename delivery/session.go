package delivery

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
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
	key      poolKey
	peer     target
	demand   *demand
	heard    *transcript       // nil where nobody wants to know
	tls      TLS               // how it is protected
	flaw     error             // of a certificate that was taken all the same
	ext      map[string]string // keyword, upper case → parameters; empty after HELO
	opened   time.Time
	begun    int          // transactions
	domains  []string     // of the recipients that were named, each once
	dirty    bool         // a transaction was left open: RSET comes first
	broken   bool         // the connection is of no more use
	goodbye  *reply.Reply // a 421: the server wants no more of us
	hung     error        // the server did not answer in time
}

var (
	// errNoTLS says that a mail exchanger offers TLS and then there is none.
	errNoTLS = errors.New("TLS handshake failed")
	// errUnreachable says that there was no connection at all.
	errUnreachable = errors.New("no connection")
	// errLost says that there was one, and it ended or fell silent.
	errLost = errors.New("connection lost")
)

// connect opens a session. Where TLS is opportunistic and its handshake fails, it is tried again
// without: mail in the clear beats mail that does not come (RFC 7435).
func (c *Client) connect(ctx context.Context, route Route, a target) (*session, error) {
	s, err := c.open(ctx, route, a, true)
	if errors.Is(err, errNoTLS) && route.demand.level == mayTLS && ctx.Err() == nil {
		if deferred := c.forgo(a, err); deferred != nil {
			return nil, deferred
		}
		c.opt.Log.Info("sending without TLS, its handshake failed", "host", a.String(), "error", err.Error())
		s, err = c.open(ctx, route, a, false)
	}
	return s, err
}

func (c *Client) open(ctx context.Context, route Route, a target, useTLS bool) (*session, error) {
	route.heard.begin("connect")
	from := c.sourceOf(route, a)
	conn, err := c.connection(ctx, route.dial, from, a)
	if err != nil {
		err = unreachable(a, from, err)
		tellStep(ctx, a, Step{Err: err})
		return nil, err
	}
	tellStep(ctx, a, Step{})
	s := &session{
		conn: conn, times: c.opt.Times, hostname: c.opt.Hostname, key: newPoolKey(route, a), peer: a, opened: time.Now(),
		demand: route.demand, tls: TLS{By: ByNone}, heard: route.heard,
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	err = c.introduce(ctx, s, route, useTLS)
	if useTLS && ctx.Err() == nil {
		c.report(s, err)
	}
	if err != nil {
		conn.Close()
		tellStep(ctx, a, Step{Err: err})
		return nil, err
	}
	tellStep(ctx, a, Step{Ready: true, TLS: s.tls})
	c.remember(s)
	return s, nil
}

// connection connects within limit, unless that is 0.
func (c *Client) connection(ctx context.Context, limit time.Duration, from netip.Addr, a target) (net.Conn, error) {
	if limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	network, address := a.network()
	return c.dial(ctx, from, network, address)
}

// unreachable is the error of a connection to a that could not be made from that source.
func unreachable(a target, from netip.Addr, err error) error {
	if from.IsValid() && isNotOurs(err) {
		foreign := &foreignSource{from}
		return reply.New(451, "4.3.5", "%v", foreign).Because(fmt.Errorf("%w: %w", foreign, err))
	}
	return reply.New(451, "4.4.1", "%s cannot be reached", a).Because(fmt.Errorf("%w: %w", errUnreachable, err))
}

// introduce brings a new connection to where MAIL can be said.
func (c *Client) introduce(ctx context.Context, s *session, route Route, useTLS bool) error {
	mode := route.tls()
	if mode == Implicit {
		if err := s.startTLS(ctx, c.tlsConfig(s)); err != nil {
			return err
		}
	}
	s.buffer()
	if err := s.greeting(); err != nil {
		return err
	}
	if err := s.hello(); err != nil {
		return err
	}
	if mode != Implicit && s.demand.level != noTLS && useTLS {
		if err := c.secureOrNot(ctx, s); err != nil {
			return err
		}
	}
	if route.Password != "" {
		return c.logIn(ctx, s, route)
	}
	return nil
}

// secureOrNot does STARTTLS where it is offered, and goes without only if that will do.
func (c *Client) secureOrNot(ctx context.Context, s *session) error {
	switch _, offered := s.ext["STARTTLS"]; {
	case offered:
		return s.upgrade(ctx, c.tlsConfig(s))
	case s.demand.level == mayTLS:
		return c.forgo(s.peer, errNotOffered)
	}
	return reply.New(451, "4.7.5", "%s does not offer STARTTLS%s", s.peer, s.demand.whose()).Because(errNotOffered)
}

func (s *session) buffer() {
	s.r = bufio.NewReaderSize(s.conn, maxReplyLine)
	s.w = bufio.NewWriterSize(s.conn, 8192)
}

func (s *session) startTLS(ctx context.Context, conf *tls.Config) error {
	s.heard.begin("TLS")
	s.conn.SetDeadline(deadline(s.times.Command))
	tc := tls.Client(s.conn, conf)
	if err := tc.HandshakeContext(ctx); err != nil && s.flaw != nil && !s.demand.audit {
		return s.unproven()
	} else if err != nil {
		return s.noTLS(err)
	}
	s.conn, s.tls = tc, tlsOf(tc.ConnectionState(), s.demand.by)
	return nil
}

func (s *session) noTLS(err error) error {
	s.heard.flawed(err)
	return reply.New(451, "4.7.5", "No TLS with %s", s.peer).Because(fmt.Errorf("%w: %w", errNoTLS, err))
}

// upgrade does STARTTLS, and then asks again for what is offered (RFC 3207 section 4.2). A server
// that sends more in the clear behind its 220 is not one to be trusted with anything: somebody on
// the way put it there to be read as if it came through TLS.
func (s *session) upgrade(ctx context.Context, conf *tls.Config) error {
	r, err := s.command(s.times.Command, "STARTTLS")
	switch {
	case err != nil:
		return s.noTLS(err)
	case r.Code == 421:
		return s.refused(r, AtSTARTTLS, "STARTTLS")
	case r.Code != 220:
		return s.noTLS(fmt.Errorf("%w: %w", errNotOffered, r))
	case s.r.Buffered() > 0:
		return reply.New(451, "4.7.5", "%s sends more after the answer to STARTTLS", s.peer).Because(errInjected)
	}
	if err := s.startTLS(ctx, conf); err != nil {
		return err
	}
	s.buffer()
	return s.hello()
}

// hello says EHLO, or HELO to a server that does not know it, and notes what is offered. A server of
// mailboxes hears LHLO (RFC 2033 section 4.1).
func (s *session) hello() error {
	s.ext = map[string]string{}
	verb := "EHLO"
	if s.key.lmtp {
		verb = "LHLO"
	}
	r, err := s.command(s.times.Command, verb+" "+s.hostname)
	if err != nil {
		return err
	}
	if r.Permanent() && !s.key.lmtp {
		if r, err = s.command(s.times.Command, "HELO "+s.hostname); err != nil {
			return err
		}
		if r.Code != 250 {
			return s.refused(r, AtEHLO, "HELO")
		}
		return nil
	}
	if r.Code != 250 {
		return s.refused(r, AtEHLO, verb)
	}
	for _, l := range strings.Split(r.Text, "\n")[1:] {
		word, params, _ := strings.Cut(strings.TrimSpace(l), " ")
		s.ext[strings.ToUpper(word)] = params
	}
	return nil
}

// refused is a server's no before MAIL. It speaks about this connection and not about the message:
// another host, or the same one later, may take it. So it is temporary, and its enhanced code
// keeps only what tells rate from reputation. What follows from it is told by judge.
func (s *session) refused(r *reply.Reply, at Stage, stage string) error {
	code, enhanced := 451, "4.3.0"
	if r.Temporary() {
		code = r.Code
	}
	if r.Enhanced != "" && !r.Positive() {
		enhanced = "4" + r.Enhanced[1:]
	}
	return reply.New(code, enhanced, "%s refuses service (%s): %s", s.peer, stage, r.String()).Because(&refusal{r, at})
}

// command sends a line and reads its reply.
func (s *session) command(wait time.Duration, line string) (*reply.Reply, error) {
	if err := s.inStep(); err != nil {
		return nil, err
	}
	s.heard.begin(line)
	s.conn.SetDeadline(deadline(wait))
	if _, err := s.w.WriteString(line + "\r\n"); err != nil {
		return nil, s.lost(err)
	}
	if err := s.w.Flush(); err != nil {
		return nil, s.lost(err)
	}
	return s.read(wait)
}

// inStep makes sure that what is read next can be the answer to what is sent next.
func (s *session) inStep() error {
	if s.r.Buffered() > 0 {
		return s.lost(fmt.Errorf("%w: more replies than commands", errBadReply))
	}
	return nil
}

func (s *session) read(wait time.Duration) (*reply.Reply, error) {
	s.conn.SetDeadline(deadline(wait))
	r, err := readReply(s.r)
	if err != nil {
		return nil, s.lost(err)
	}
	s.heard.hear(r, s.key)
	if r.Code == 421 {
		s.broken, s.goodbye = true, r
	}
	return r, nil
}

// lost notes that the connection is of no more use, and says so in a reply.
func (s *session) lost(err error) error {
	s.broken = true
	if errors.Is(err, errBadReply) {
		return reply.New(451, "4.5.0", "%s gives answers that are not SMTP", s.peer).Because(err)
	}
	lost := reply.New(451, "4.4.2", "The connection to %s was lost", s.peer).Because(fmt.Errorf("%w: %w", errLost, err))
	if isTimeout(err) {
		lost.Text = fmt.Sprintf("%s did not answer in time", s.peer)
		s.hung = lost
	}
	return lost
}

func (s *session) greeting() error {
	s.heard.begin("greeting")
	r, err := s.read(s.times.Greeting)
	if err != nil {
		return err
	}
	if r.Code != 220 {
		return s.refused(r, AtGreeting, "greeting")
	}
	return nil
}

func (s *session) reusable() bool {
	return !s.broken && !s.spent() && time.Since(s.opened) < s.times.Age
}

// spent reports whether this connection is for no more transactions: the server takes no more, or
// we give no more.
func (s *session) spent() bool {
	most := s.limit("MAILMAX")
	return most > 0 && s.begun >= most || s.begun >= max(1, s.times.Messages)
}

// takes reports whether a recipient in domain may still be named in this session.
func (s *session) takes(domain string) bool {
	most := s.limit("RCPTDOMAINMAX")
	return most == 0 || len(s.domains) < most || slices.Contains(s.domains, domain)
}

// limit is one of RFC 9422, 0 when the server states none.
func (s *session) limit(name string) int {
	for word := range strings.FieldsSeq(s.ext["LIMITS"]) {
		if key, value, ok := strings.Cut(word, "="); ok && strings.EqualFold(key, name) {
			if n, err := strconv.Atoi(value); err == nil && n > 0 {
				return n
			}
		}
	}
	return 0
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
