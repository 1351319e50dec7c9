package sink

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A session is one connection.
type session struct {
	sink *Sink
	raw  net.Conn // as accepted, below TLS
	conn net.Conn
	r    *bufio.Reader
	w    *bufio.Writer

	id   int
	helo string
	user string
	tls  *tls.ConnectionState
	txn  *Message // since MAIL; nil outside of a transaction
}

// errQuit ends a session without anything being wrong.
var errQuit = errors.New("session is over")

func newSession(s *Sink, conn net.Conn, id int) *session {
	return &session{sink: s, raw: conn, conn: conn, id: id}
}

// run holds the dialog until one side ends it.
func (c *session) run() {
	if c.sink.opt.ImplicitTLS && c.handshake() != nil {
		return
	}
	c.r, c.w = bufio.NewReader(c.conn), bufio.NewWriter(c.conn)
	_, err := c.reply("greeting", c.raw.RemoteAddr().String(), "220 "+c.sink.opt.Hostname+" ESMTP sink")
	for err == nil {
		var line string
		if line, err = c.readLine(); err == nil {
			err = c.command(line)
		}
	}
	_ = c.w.Flush()
}

func (c *session) command(line string) error {
	verb, arg, _ := strings.Cut(line, " ")
	verb = strings.ToUpper(verb)
	if c.r.Buffered() > 0 && !c.offers("PIPELINING") {
		_ = c.say("554 5.5.0 pipelining was not offered")
		return errQuit
	}
	switch verb {
	case "EHLO", "HELO", "LHLO":
		if (verb == "LHLO") != c.sink.opt.LMTP {
			return c.say("500 5.5.1 this server speaks another protocol")
		}
		return c.hello(verb, arg)
	case "STARTTLS":
		return c.startTLS()
	case "AUTH":
		return c.auth(arg)
	case "MAIL":
		return c.mail(arg)
	case "RCPT":
		return c.rcpt(arg)
	case "DATA":
		return c.data()
	case "RSET":
		c.txn = nil
		_, err := c.reply("rset", "", "250 2.0.0 Ok")
		return err
	case "QUIT":
		if _, err := c.reply("quit", "", "221 2.0.0 Bye"); err != nil {
			return err
		}
		return errQuit
	case "NOOP":
		return c.say("250 2.0.0 Ok")
	case "VRFY":
		return c.say("252 2.5.0 Send some mail and see")
	}
	return c.say("500 5.5.2 unknown command")
}

// extensions are those that can be offered, in the order of the EHLO reply.
var extensions = []string{"PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN", "STARTTLS", "AUTH", "REQUIRETLS"}

func (c *session) offers(extension string) bool {
	if slices.Contains(c.sink.opt.Without, extension) {
		return false
	}
	switch extension {
	case "STARTTLS":
		return c.sink.opt.TLSConfig != nil && c.tls == nil
	case "AUTH":
		return c.sink.opt.Users != nil
	case "REQUIRETLS":
		return c.tls != nil // RFC 8689
	}
	return true
}

func (c *session) hello(verb, name string) error {
	if name == "" {
		return c.say("501 5.5.4 say your name")
	}
	c.helo, c.txn = name, nil
	if verb == "HELO" {
		_, err := c.reply("helo", name, "250 "+c.sink.opt.Hostname)
		return err
	}
	lines := []string{c.sink.opt.Hostname}
	for _, ext := range extensions {
		switch {
		case !c.offers(ext):
		case ext == "SIZE":
			lines = append(lines, fmt.Sprintf("SIZE %d", c.sink.opt.MaxSize))
		case ext == "AUTH":
			lines = append(lines, "AUTH PLAIN LOGIN")
		default:
			lines = append(lines, ext)
		}
	}
	for i := range lines {
		lines[i] = "250-" + lines[i]
	}
	last := len(lines) - 1
	lines[last] = "250 " + lines[last][len("250-"):]
	_, err := c.reply("ehlo", name, strings.Join(lines, "\n"))
	return err
}

func (c *session) startTLS() error {
	switch {
	case !c.offers("STARTTLS"):
		return c.say("502 5.5.1 STARTTLS was not offered")
	case c.r.Buffered() > 0:
		_ = c.say("554 5.5.0 plaintext behind STARTTLS") // it would run as if it came through TLS
		return errQuit
	}
	code, err := c.reply("starttls", "", "220 2.0.0 Go ahead")
	if err != nil || code != 220 {
		return err
	}
	if err := c.w.Flush(); err != nil {
		return err
	}
	if err := c.handshake(); err != nil {
		return err
	}
	c.r, c.w = bufio.NewReader(c.conn), bufio.NewWriter(c.conn)
	c.helo, c.user, c.txn = "", "", nil // RFC 3207 section 4.2
	return nil
}

func (c *session) handshake() error {
	conn := tls.Server(c.raw, c.sink.opt.TLSConfig)
	if err := conn.Handshake(); err != nil {
		return err
	}
	state := conn.ConnectionState()
	c.conn, c.tls = conn, &state
	return nil
}

func (c *session) mail(arg string) error {
	path, args, ok := parsePath(arg, "FROM:")
	switch {
	case c.helo == "" || c.txn != nil:
		return c.say("503 5.5.1 bad sequence of commands")
	case !ok:
		return c.say("501 5.5.4 syntax: MAIL FROM:<address>")
	case c.offers("AUTH") && c.user == "":
		return c.say("530 5.7.0 authentication is required")
	}
	for arg := range strings.FieldsSeq(args) {
		keyword, value, _ := strings.Cut(arg, "=")
		ext := mailParams[strings.ToUpper(keyword)]
		if ext == "" || !c.offers(ext) {
			return c.say("555 5.5.4 " + keyword + " was not offered")
		}
		if size, err := strconv.Atoi(value); ext == "SIZE" && (err != nil || size > c.sink.opt.MaxSize) {
			return c.say("552 5.3.4 message is too large")
		}
	}
	code, err := c.reply("mail", path, "250 2.1.0 Ok")
	if code/100 == 2 {
		c.txn = &Message{
			ConnID: c.id, RemoteAddr: c.raw.RemoteAddr().String(), Helo: c.helo, User: c.user, TLS: c.tls,
			From: path, FromArgs: args,
		}
	}
	return err
}

// mailParams and rcptParams say which extension a parameter belongs to.
var (
	mailParams = map[string]string{
		"SIZE": "SIZE", "BODY": "8BITMIME", "SMTPUTF8": "SMTPUTF8", "RET": "DSN", "ENVID": "DSN", "AUTH": "AUTH", "REQUIRETLS": "REQUIRETLS",
	}
	rcptParams = map[string]string{"NOTIFY": "DSN", "ORCPT": "DSN"}
)

func (c *session) rcpt(arg string) error {
	path, args, ok := parsePath(arg, "TO:")
	switch {
	case c.txn == nil:
		return c.say("503 5.5.1 bad sequence of commands")
	case !ok || path == "":
		return c.say("501 5.5.4 syntax: RCPT TO:<address>")
	}
	for arg := range strings.FieldsSeq(args) {
		keyword, _, _ := strings.Cut(arg, "=")
		if ext := rcptParams[strings.ToUpper(keyword)]; ext == "" || !c.offers(ext) {
			return c.say("555 5.5.4 " + keyword + " was not offered")
		}
	}
	code, err := c.reply("rcpt", path, "250 2.1.5 Ok")
	if code/100 == 2 {
		c.txn.Rcpts = append(c.txn.Rcpts, path)
		c.txn.RcptArgs = append(c.txn.RcptArgs, args)
	}
	return err
}

func (c *session) data() error {
	if c.txn == nil || len(c.txn.Rcpts) == 0 {
		return c.say("503 5.5.1 no valid recipients")
	}
	code, err := c.reply("data", "", "354 End with a dot on a line of its own")
	if err != nil || code != 354 {
		return err
	}
	if err := c.w.Flush(); err != nil {
		return err
	}
	body, fits, err := readBody(c.r, c.sink.opt.MaxSize)
	if err != nil {
		return err
	}
	m := c.txn
	c.txn = nil
	if !fits {
		return c.say("552 5.3.4 message is too large")
	}
	m.Data, m.At = body, time.Now()
	if c.sink.opt.LMTP {
		return c.answerEach(m)
	}
	script := c.sink.scripted("dot", m.From)
	if script == "" {
		return c.say(fmt.Sprintf("250 2.0.0 Ok: queued as %d", c.sink.take(m)))
	}
	if strings.HasPrefix(script, "2") {
		c.sink.take(m)
	}
	_, err = c.act(script)
	return err
}

// answerEach gives each recipient a reply of its own, and keeps the message for those who took it.
func (c *session) answerEach(m *Message) error {
	replies := make([]string, len(m.Rcpts))
	var took, args []string
	for i, rcpt := range m.Rcpts {
		if replies[i] = c.sink.scripted("dot", rcpt); replies[i] == "" {
			replies[i] = "250 2.0.0 <" + rcpt + "> saved"
		}
		if replies[i][0] == '2' {
			took, args = append(took, rcpt), append(args, m.RcptArgs[i])
		}
	}
	if m.Rcpts, m.RcptArgs = took, args; len(took) > 0 {
		c.sink.take(m)
	}
	for _, r := range replies {
		if _, err := c.act(r); err != nil {
			return err
		}
	}
	return nil
}
