package smtpd

import (
	"errors"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"relayd/reply"
)

// AuthMechanisms lists what EHLO offers: nothing before TLS, on the MX port, or while there is
// no certificate that a client could trust.
func (s *session) AuthMechanisms() []string {
	if !s.srv.opt.Submission || s.gate.tls == nil || !s.srv.opt.CanLogin(s.gate.tls.ServerName) {
		return nil
	}
	return []string{sasl.Plain, sasl.Login}
}

// Auth starts a login. The gate has seen to TLS and to the order of commands.
func (s *session) Auth(mechanism string) (sasl.Server, error) {
	if !s.srv.opt.CanLogin(s.gate.tls.ServerName) {
		return nil, toSMTP(reply.New(454, "4.7.0", "This server has no certificate yet, so no passwords are taken: its admin must put one under certs/"))
	}
	switch mechanism {
	case sasl.Plain:
		return answering{sasl.NewPlainServer(s.login)}, nil
	case sasl.Login:
		return answering{&loginServer{login: s.login}}, nil
	}
	return nil, toSMTP(reply.New(504, "5.5.4", "Unknown mechanism: PLAIN and LOGIN are offered"))
}

// login checks a password. An authorization identity other than the user's own is refused: here
// nobody logs in for somebody else (RFC 4616 section 2).
func (s *session) login(identity, user, password string) (err error) {
	defer s.contain(nil, &err)
	if identity != "" && identity != user {
		return reply.New(535, "5.7.8", "Leave the authorization identity empty")
	}
	c := s.client()
	who, err := s.srv.relay.Login(s.srv.ctx, c, user, password)
	if err != nil {
		r := reply.From(err)
		tried := who.String()
		if who.IsNull() {
			tried = "(not an address of a hosted domain)"
		}
		attrs := []any{"client", c.IP.String(), "user", tried, "reply", r.String()}
		if r.Cause != nil {
			attrs = append(attrs, "cause", r.Cause.Error())
		}
		s.srv.log.Warn("login refused", attrs...)
		return r
	}
	s.user = who
	return nil
}

// answering turns every error of a mechanism into an SMTP reply.
type answering struct{ sasl.Server }

func (a answering) Next(response []byte) ([]byte, bool, error) {
	challenge, done, err := a.Server.Next(response)
	if err == nil {
		return challenge, done, nil
	}
	if r, ok := errors.AsType[*reply.Reply](err); ok {
		return nil, false, toSMTP(r)
	}
	if e, ok := errors.AsType[*smtp.SMTPError](err); ok { // after a panic
		return nil, false, e
	}
	return nil, false, toSMTP(reply.New(501, "5.5.2", "Malformed AUTH response"))
}

// loginServer is the server side of LOGIN, which old clients and some devices need: two prompts,
// user name and password. An initial response is taken as the user name.
type loginServer struct {
	login func(identity, user, password string) error
	step  int
	user  string
}

func (l *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	if response == nil && l.step == 0 {
		l.step = 1
		return []byte("Username:"), false, nil
	}
	switch l.step {
	case 0, 1:
		l.user, l.step = string(response), 2
		return []byte("Password:"), false, nil
	case 2:
		l.step = 3
		return nil, true, l.login("", l.user, string(response))
	}
	return nil, false, sasl.ErrUnexpectedClientResponse
}
