//go:build interop

package interop

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// A dialog is one SMTP connection, spoken word by word.
type dialog struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

// dial opens a connection and reads the greeting.
func dial(t testing.TB, addr string) *dialog {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	d := newDialog(t, conn)
	d.expect("the greeting", "220 ")
	return d
}

// dialTLS is dial for implicit TLS.
func dialTLS(t testing.TB, addr string, conf *tls.Config) *dialog {
	t.Helper()
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", addr, conf)
	if err != nil {
		t.Fatal(err)
	}
	d := newDialog(t, conn)
	d.expect("the greeting", "220 ")
	return d
}

func newDialog(t testing.TB, conn net.Conn) *dialog {
	t.Cleanup(func() { conn.Close() })
	return &dialog{t: t, conn: conn, r: bufio.NewReader(conn)}
}

func (d *dialog) close() { d.conn.Close() }

// play sends every line after "> " and expects the reply to begin as the line after "< " says.
func (d *dialog) play(script string) {
	d.t.Helper()
	sent := ""
	for line := range strings.Lines(script) {
		line = strings.TrimSpace(line)
		if text, ok := strings.CutPrefix(line, "> "); ok {
			sent = text
			d.send([]byte(text + "\r\n"))
		} else if want, ok := strings.CutPrefix(line, "< "); ok {
			d.expect(sent, want)
		}
	}
}

// say sends a command and returns the reply, which must begin with want.
func (d *dialog) say(command, want string) string {
	d.t.Helper()
	d.send([]byte(command + "\r\n"))
	return d.expect(command, want)
}

// message sends a message by DATA and returns the reply to it.
func (d *dialog) message(text []byte) string {
	d.t.Helper()
	d.say("DATA", "354")
	d.send(stuff(text))
	return d.reply()
}

// transaction sends a message and returns the last reply: that to the message, or to the command
// that was refused.
func (d *dialog) transaction(from, to string, text []byte) string {
	d.t.Helper()
	for _, command := range []string{"MAIL FROM:<" + from + ">", "RCPT TO:<" + to + ">", "DATA"} {
		d.send([]byte(command + "\r\n"))
		if got := d.reply(); got[0] > '3' {
			d.play("> RSET\n< 250")
			return got
		}
	}
	d.send(stuff(text))
	return d.reply()
}

// stuff makes text ready for DATA: dots doubled, the end mark behind (RFC 5321 section 4.5.2).
func stuff(text []byte) []byte {
	out := bytes.ReplaceAll(text, []byte("\r\n."), []byte("\r\n.."))
	if bytes.HasPrefix(out, []byte(".")) {
		out = append([]byte("."), out...)
	}
	if !bytes.HasSuffix(out, []byte("\r\n")) {
		out = append(out, "\r\n"...)
	}
	return append(out, ".\r\n"...)
}

func (d *dialog) send(b []byte) {
	d.t.Helper()
	d.conn.SetDeadline(time.Now().Add(patience))
	if _, err := d.conn.Write(b); err != nil {
		d.t.Fatalf("sending: %v", err)
	}
}

// expect reads a reply whose last line must begin with want.
func (d *dialog) expect(to, want string) string {
	d.t.Helper()
	got := d.reply()
	last := got[strings.LastIndexByte(strings.TrimSuffix(got, "\n"), '\n')+1:]
	if !strings.HasPrefix(last, want) {
		d.t.Fatalf("reply to %.200q:\ngot  %swant %s", to, got, want)
	}
	return got
}

// reply reads one reply, all of its lines.
func (d *dialog) reply() string {
	d.t.Helper()
	d.conn.SetDeadline(time.Now().Add(patience))
	var all strings.Builder
	for {
		line, err := d.r.ReadString('\n')
		if err != nil {
			d.t.Fatalf("reading a reply: %v after %q", err, all.String()+line)
		}
		all.WriteString(strings.TrimRight(line, "\r\n") + "\n")
		if len(line) < 4 || line[3] != '-' {
			return all.String()
		}
	}
}

// startTLS says EHLO and STARTTLS, and EHLO again under TLS; it returns the last reply.
func (d *dialog) startTLS(conf *tls.Config) string {
	d.t.Helper()
	d.say("EHLO client.test", "250 ")
	d.say("STARTTLS", "220 ")
	if err := d.handshake(conf); err != nil {
		d.t.Fatalf("TLS: %v", err)
	}
	return d.say("EHLO client.test", "250 ")
}

// handshake goes on under TLS.
func (d *dialog) handshake(conf *tls.Config) error {
	conn := tls.Client(d.conn, conf)
	d.conn, d.r = conn, bufio.NewReader(conn)
	return conn.Handshake()
}

// login is AUTH PLAIN; it returns the reply.
func (d *dialog) login(user, password string) string {
	d.t.Helper()
	d.send(fmt.Appendf(nil, "AUTH PLAIN %s\r\n", base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+password))))
	return d.reply()
}

// tlsConfig trusts the site's certificate.
func (s *site) tlsConfig() *tls.Config {
	return &tls.Config{RootCAs: s.cert.Pool, ServerName: hostname}
}

// submit opens a session on one of the submission services and logs in.
func (s *site) submit(d *daemon, service, user string) *dialog {
	s.t.Helper()
	var c *dialog
	if service == "submissions" {
		c = dialTLS(s.t, d.address(service), s.tlsConfig())
		c.say("EHLO client.test", "250 ")
	} else {
		c = dial(s.t, d.address(service))
		c.startTLS(s.tlsConfig())
	}
	if got := c.login(user, password); !strings.HasPrefix(got, "235 2.7.0") {
		s.t.Fatalf("login as %s on %s: %s", user, service, got)
	}
	return c
}
