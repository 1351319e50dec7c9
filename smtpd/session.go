package smtpd

import (
	"errors"
	"io"
	"runtime/debug"
	"strings"

	"github.com/emersion/go-smtp"

	"relayd/address"
	"relayd/message"
	"relayd/relay"
	"relayd/reply"
	"relayd/tasks"
)

// A session is what go-smtp calls. It lives from the first EHLO to the end of the connection.
type session struct {
	srv  *Server
	gate *gate
	conn *smtp.Conn
	user address.Address    // zero until the client has logged in
	tx   *relay.Transaction // nil outside a transaction; never reused
}

func (s *Server) newSession(c *smtp.Conn) (smtp.Session, error) {
	return &session{srv: s, gate: c.Conn().(*gate), conn: c}, nil
}

// client describes the other end as it is now.
func (s *session) client() *relay.Client {
	return &relay.Client{
		IP:         clientIP(s.gate.RemoteAddr()),
		Helo:       s.conn.Hostname(),
		TLS:        s.gate.tls,
		User:       s.user,
		Submission: s.srv.opt.Submission,
	}
}

// contain is to be deferred by whatever the library calls: a panic ends this session and nothing else.
// It is logged here because the library has no ID for it.
func (s *session) contain(tx *relay.Transaction, err *error) {
	p := recover()
	if p == nil {
		return
	}
	attrs := []any{"client", s.gate.RemoteAddr().String()}
	if tx != nil {
		attrs = tx.LogAttrs()
	}
	s.srv.log.Error("panic in a session", append(attrs, "panic", p, "stack", string(debug.Stack()))...)
	*err = toSMTP(errPanicked)
}

var errPanicked = reply.New(421, "4.3.0", "Something went wrong here, please try again later")

// Reset forgets the transaction (RSET, EHLO, the end of DATA).
func (s *session) Reset() { s.tx = nil }

// Logout has nothing to free.
func (s *session) Logout() error { return nil }

// Mail opens a transaction.
func (s *session) Mail(from string, opts *smtp.MailOptions) (err error) {
	tx := relay.NewTransaction(s.client())
	defer s.contain(tx, &err)
	tasks.RoomyStack()
	tx.Size, tx.UTF8, tx.RequireTLS = opts.Size, opts.UTF8, opts.RequireTLS
	tx.Return, tx.EnvelopeID = string(opts.Return), opts.EnvelopeID
	if tx.RequireTLS && s.gate.tls == nil {
		return s.answer(tx, reply.New(530, "5.7.10", "REQUIRETLS is only for mail that comes under TLS: say STARTTLS first"))
	}
	if from != "" {
		a, err := address.FromPath(from, opts.UTF8)
		if err != nil {
			return s.answer(tx, badAddress("5.1.7", err), "tried", from)
		}
		tx.Sender = a
	}
	if err := s.srv.relay.Mail(s.srv.ctx, tx); err != nil {
		return s.answer(tx, err)
	}
	s.tx = tx
	return nil
}

// badAddress is the answer to a mailbox that is none; which error it was is public.
func badAddress(enhanced string, err error) error {
	return reply.New(553, enhanced, "Not an address that mail can go to: %v", err)
}

// Rcpt adds a recipient.
func (s *session) Rcpt(to string, opts *smtp.RcptOptions) (err error) {
	defer s.contain(s.tx, &err)
	a, err := address.FromPath(to, s.tx.UTF8)
	if err != nil {
		return s.answer(s.tx, badAddress("5.1.3", err), "refused", to)
	}
	r := relay.Recipient{Address: s.named(a)}
	if opts.OriginalRecipient != "" {
		r.Original = string(opts.OriginalRecipientType) + ";" + opts.OriginalRecipient
	}
	for _, n := range opts.Notify {
		r.Notify = append(r.Notify, string(n))
	}
	if err := s.srv.relay.Recipient(s.srv.ctx, s.tx, r); err != nil {
		return s.answer(s.tx, err, "refused", "<"+a.String()+">")
	}
	return nil
}

// named puts our hostname for the address literal of this server in the postmaster's address, who
// must be reached even if no name of ours works (RFC 5321 sections 4.1.3 and 4.5.1). It knows no
// address but that which the client has connected to.
func (s *session) named(a address.Address) address.Address {
	ip, ok := a.Literal()
	if ok && ip.Unmap() == clientIP(s.gate.LocalAddr()) && strings.EqualFold(a.Local, "postmaster") {
		a.Domain = s.srv.opt.Hostname
	}
	return a
}

// Data takes the body, from the gate and not through the library. The error that it returns on success
// is go-smtp's way to set the text of a 250.
func (s *session) Data(io.Reader) (err error) {
	defer s.contain(s.tx, &err)
	m, err := s.srv.opt.Memory.Read(bodyReader{s.gate}, s.srv.opt.SpoolDir, s.srv.opt.Limits.MessageSize)
	if err != nil {
		return s.answer(s.tx, s.bodyError(err))
	}
	defer m.Close()
	ok, err := s.srv.relay.Accept(s.srv.ctx, s.tx, m)
	if err != nil {
		return s.answer(s.tx, err)
	}
	return toSMTP(ok)
}

// bodyError is the reply to what message.Read has found.
func (s *session) bodyError(err error) error {
	_, storage := errors.AsType[*message.StorageError](err)
	switch {
	case storage:
		return reply.New(452, "4.3.1", "There is no room for the message now, please try again later").Because(err)
	case errors.Is(err, message.ErrTooLarge):
		return tooLarge(s.srv.opt.Limits.MessageSize)
	case errors.Is(err, message.ErrHeaderTooLarge):
		return reply.New(552, "5.3.4", "The header of the message is larger than the %d KiB that are taken here", message.MaxHeaderBytes>>10)
	case errors.Is(err, message.ErrTooManyFields):
		return reply.New(552, "5.3.4", "The header of the message has more than the %d fields that are taken here", message.MaxHeaderFields)
	case errors.Is(err, message.ErrLoneDot):
		return relay.ReadError(err, 0)
	}
	return err
}

// answer is the one place where an error becomes a reply: anything that is not one already
// becomes 451 4.3.0, and every refusal stands in the log with its private cause.
func (s *session) answer(tx *relay.Transaction, err error, about ...any) error {
	r := reply.From(err)
	attrs := append(append(tx.LogAttrs(), about...), "reply", r.String())
	if r.Cause != nil {
		attrs = append(attrs, "cause", r.Cause.Error())
	}
	if r.Cause != nil && (r.Code == 451 || r.Code == 452) {
		s.srv.log.Error("refused for a fault of ours", attrs...)
	} else {
		s.srv.log.Info("refused", attrs...)
	}
	return toSMTP(r)
}

// toSMTP puts a reply into the type by which go-smtp knows replies: it looks for exactly this
// type, not for a wrapped one.
func toSMTP(r *reply.Reply) *smtp.SMTPError {
	e := &smtp.SMTPError{Code: r.Code, EnhancedCode: smtp.EnhancedCodeNotSet, Message: printable(r.Text)}
	if parts := strings.Split(r.Enhanced, "."); len(parts) == 3 {
		for i, p := range parts {
			n := 0
			for _, c := range p {
				n = 10*n + int(c-'0')
			}
			e.EnhancedCode[i] = n
		}
	}
	return e
}

// printable keeps a reply's text to what may stand in one, ASCII without control characters
// (RFC 5321 section 4.2): it may quote what a client or a remote server sent.
func printable(s string) string {
	const longest = 400 // with code and enhanced code well under the 512 octets of a reply line
	s = strings.Map(func(r rune) rune {
		switch {
		case r < ' ' || r == 0x7f:
			return ' '
		case r > 0x7f:
			return '?'
		}
		return r
	}, s)
	if len(s) > longest {
		s = s[:longest] + "..."
	}
	return s
}
