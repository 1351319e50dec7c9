package smtpd

import (
	"bytes"
	"strconv"
	"strings"

	"relayd/reply"
)

// counts are what one connection has done so far, each against its limit.
type counts struct {
	errors     int // commands that were wrong in themselves
	recipients int // RCPTs refused for good
	logins     int // AUTHs failed
	empty      int // commands since the last message was taken
}

// nextCommand reads one command line and either answers it or hands it to go-smtp.
func (g *gate) nextCommand() {
	line, err := g.readLine(maxCommandLine)
	if err != nil {
		g.lineError(err)
		return
	}
	if g.isDraining() && !g.inMail {
		g.lineError(err)
		return
	}
	g.counts.empty++
	g.tooMany(g.counts.empty > g.srv.opt.Limits.Commands, "commands without a message")
	if g.err != nil {
		return
	}
	verb, arg := splitCommand(line)
	if i := bytes.IndexFunc(line[:len(line)-2], func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }); i >= 0 {
		g.refuse(reply.New(501, "5.5.2", "Commands must not hold control characters"))
		return
	}
	if r := g.judge(verb, arg); r != nil {
		g.answer(verb, arg, r)
		return
	}
	g.verb = verb
	g.ahead = line
	switch verb {
	case "RCPT":
		g.ahead = g.completePostmaster(line, arg)
	case "DATA", "RSET": // go-smtp refuses a space behind them, which RFC 5321 section 4.1.1 wants to be tolerated
		g.ahead = []byte(verb + "\r\n")
	}
}

// splitCommand takes the verb, upper case, off a line.
func splitCommand(line []byte) (verb, arg string) {
	verb, arg, _ = strings.Cut(strings.TrimRight(string(line), "\r\n"), " ")
	return strings.ToUpper(verb), strings.TrimSpace(arg)
}

// judge returns the answer to a command that go-smtp shall not see, nil for one that it shall.
func (g *gate) judge(verb, arg string) *reply.Reply {
	switch verb {
	case "EHLO", "HELO":
		return g.judgeHello(verb, arg)
	case "NOOP":
		return reply.New(250, "2.0.0", "Ok")
	case "QUIT":
		return reply.New(221, "2.0.0", "%s says goodbye", g.srv.opt.Hostname)
	case "VRFY":
		return reply.New(252, "2.5.2", "Addresses are not verified here; send the message and see")
	case "EXPN", "TURN", "SEND", "SOML", "SAML":
		return reply.New(502, "5.5.1", "%s is not offered here", verb)
	case "HELP":
		return reply.New(214, "2.0.0", "relayd: EHLO STARTTLS AUTH MAIL RCPT DATA RSET NOOP QUIT, as in RFC 5321")
	case "BDAT":
		return reply.New(502, "5.5.1", "CHUNKING is not offered here: use DATA")
	case "STARTTLS":
		return g.judgeSTARTTLS(arg)
	case "AUTH":
		return g.judgeAUTH(arg)
	case "MAIL":
		return g.judgeMail(arg)
	case "RSET": // at any time (RFC 5321 section 4.1.4)
		if arg != "" {
			return reply.New(501, "5.5.4", "RSET takes no argument")
		}
		return nil
	case "RCPT":
		return need(g.inMail, "MAIL comes before RCPT")
	case "DATA":
		return g.judgeData(arg)
	case "GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "DELETE", "PATCH", "TRACE", "PRI", "HOST:":
		g.srv.log.Debug("connection closed", "client", g.raw.RemoteAddr().String(), "reason", "it speaks HTTP")
		return reply.New(421, "4.7.0", "This is a mail server, not a web server")
	}
	return reply.New(500, "5.5.2", "Unknown command %.20q", verb)
}

// need is nil if ok, else the reply to a command out of order.
func need(ok bool, what string) *reply.Reply {
	if ok {
		return nil
	}
	return reply.New(503, "5.5.1", "%s", what)
}

func (g *gate) judgeHello(verb, arg string) *reply.Reply {
	if arg == "" || strings.ContainsAny(arg, " \t") {
		return reply.New(501, "5.5.4", "%s needs your host name and nothing else", verb)
	}
	return nil
}

func (g *gate) judgeSTARTTLS(arg string) *reply.Reply {
	switch {
	case arg != "":
		return reply.New(501, "5.5.4", "STARTTLS takes no argument")
	case g.tls != nil:
		return reply.New(503, "5.5.1", "TLS is on already")
	case g.srv.opt.TLS == nil:
		return reply.New(502, "5.5.1", "STARTTLS is not offered here")
	}
	return reply.New(220, "2.0.0", "Ready to start TLS")
}

func (g *gate) judgeAUTH(arg string) *reply.Reply {
	switch {
	case !g.srv.opt.Submission:
		return reply.New(502, "5.5.1", "AUTH is offered on the submission ports, 587 and 465, only")
	case !g.greeted:
		return need(false, "Say EHLO first")
	case g.tls == nil:
		return reply.New(530, "5.7.0", "Say STARTTLS first: passwords are not taken in the clear")
	case g.authed:
		return need(false, "You are logged in already")
	case g.inMail:
		return need(false, "AUTH is not allowed inside a transaction")
	case arg == "":
		return reply.New(501, "5.5.4", "AUTH needs a mechanism: PLAIN or LOGIN")
	case len(strings.Fields(arg)) > 2:
		return reply.New(501, "5.5.4", "AUTH takes a mechanism and at most one word behind it")
	case g.counts.logins >= g.srv.opt.Limits.Logins:
		return reply.New(421, "4.7.0", "Too many failed logins, try again later with the right password")
	}
	return nil
}

func (g *gate) judgeMail(arg string) *reply.Reply {
	switch {
	case !g.greeted:
		return need(false, "Say EHLO first")
	case g.inMail:
		return need(false, "A transaction is open: finish it or say RSET")
	case g.srv.opt.Submission && g.tls == nil:
		return reply.New(530, "5.7.0", "Say STARTTLS first, then AUTH")
	case g.srv.opt.Submission && !g.authed:
		return reply.New(530, "5.7.0", "Log in first: AUTH comes before MAIL on this port")
	}
	for word := range strings.FieldsSeq(arg) {
		size, ok := cutPrefixFold(word, "SIZE=")
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(size, 10, 64)
		if isTooBig := err != nil && len(size) > 19 && strings.Trim(size, "0123456789") == ""; isTooBig || err == nil && n > uint64(g.srv.opt.Limits.MessageSize) {
			return tooLarge(g.srv.opt.Limits.MessageSize)
		}
	}
	return nil
}

func tooLarge(limit int64) *reply.Reply {
	return reply.New(552, "5.3.4", "The message is larger than the %d bytes that are taken here", limit)
}

func (g *gate) judgeData(arg string) *reply.Reply {
	switch {
	case arg != "":
		return reply.New(501, "5.5.4", "DATA takes no argument")
	case !g.inMail:
		return need(false, "MAIL and RCPT come before DATA")
	case !g.recipient:
		return need(false, "No recipient was accepted: there is nobody to send this to")
	}
	return nil
}

// answer sends a reply of the gate's own, with what follows from it.
func (g *gate) answer(verb, arg string, r *reply.Reply) {
	switch {
	case verb == "STARTTLS" && r.Positive():
		g.say(r)
		if g.flush() != nil || g.startTLS() != nil {
			g.fail(errClosed)
		}
	case verb == "QUIT" || r.Code == 421:
		g.say(r)
		g.linger = r.Code == 421
		g.fail(errClosed)
	case verb == "BDAT":
		if g.skipChunk(arg) {
			g.refuse(r)
		}
	case r.Positive():
		g.say(r)
	default:
		g.refuse(r)
	}
}

// skipChunk throws away the bytes that follow a BDAT command (RFC 3030 section 2), so that they
// are not read as commands. A size that makes no sense ends the connection, and it returns false.
func (g *gate) skipChunk(arg string) bool {
	size, _, _ := strings.Cut(arg, " ")
	n, err := strconv.ParseUint(size, 10, 31)
	if err != nil {
		g.tooMany(true, "malformed BDAT commands")
		return false
	}
	if _, err := g.in.Discard(int(n)); err != nil {
		g.fail(errClosed)
		return false
	}
	return true
}

// completePostmaster writes RCPT TO:<postmaster>, which RFC 5321 section 4.5.1 wants to be taken
// and go-smtp's parser does not, with our hostname as the domain, and likewise <abuse>, whom a
// victim may have no other way to reach.
func (g *gate) completePostmaster(line []byte, arg string) []byte {
	path, ok := cutPrefixFold(arg, "TO:")
	path = strings.TrimSpace(path)
	for _, name := range []string{"postmaster", "abuse"} {
		if rest, found := cutPrefixFold(path, "<"+name+">"); ok && found {
			return []byte("RCPT TO:<" + name + "@" + g.srv.opt.Hostname + ">" + rest + "\r\n")
		}
	}
	return line
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix) {
		return s[len(prefix):], true
	}
	return s, false
}
