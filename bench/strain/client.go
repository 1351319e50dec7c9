package main

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strings"
	"time"

	"relayd/bench/site"
)

// A client speaks SMTP as badly as it is told to.
type client struct {
	net.Conn
	in *textproto.Reader
}

// dial connects to a service and reads the greeting. from is the address that a proxy's header says,
// where the site has proxies.
func dial(d *site.Daemon, service, from string) (*client, error) {
	conn, err := net.Dial("tcp", d.Addrs[service])
	if err != nil {
		return nil, err
	}
	var config *tls.Config
	if service == "submissions" {
		config = &tls.Config{InsecureSkipVerify: true, ServerName: "mx.example.test"}
	}
	return greet(conn, from, config)
}

// greet is the beginning of a connection, under TLS where there is a config for it.
func greet(conn net.Conn, from string, config *tls.Config) (*client, error) {
	conn.SetDeadline(time.Now().Add(2 * time.Minute))
	if from != "" {
		fmt.Fprintf(conn, "PROXY TCP4 %s 127.0.0.1 40000 465\r\n", from)
	}
	if config != nil {
		conn = tls.Client(conn, config)
	}
	c := &client{conn, textproto.NewReader(bufio.NewReaderSize(conn, 512))}
	if _, _, err := c.in.ReadResponse(220); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// ask sends a command and returns the code of the reply, 0 if there is none.
func (c *client) ask(format string, args ...any) int {
	code, _ := c.hear(format, args...)
	return code
}

// hear is ask with the text of the reply.
func (c *client) hear(format string, args ...any) (code int, text string) {
	if _, err := fmt.Fprintf(c, format+"\r\n", args...); err != nil {
		return 0, ""
	}
	code, text, _ = c.in.ReadResponse(0) // a code of any kind is an answer
	return code, text
}

func (c *client) login(user, password string) (code int, text string) {
	return c.hear("AUTH PLAIN %s", base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00"+password)))
}

// begin takes a connection as far as the octets of a message.
func (c *client) begin(from string) error {
	for _, command := range []string{"EHLO client.test", "MAIL FROM:<" + from + ">", "RCPT TO:<me@example.test>", "DATA"} {
		if code := c.ask("%s", command); code != 250 && code != 354 {
			return fmt.Errorf("%s is answered %d", command, code)
		}
	}
	return nil
}

// send sends a whole message, with its CRLFs and without dots that begin a line, and returns the code
// of the answer.
func (c *client) send(from string, message io.Reader) (int, error) {
	if err := c.begin(from); err != nil {
		return 0, err
	}
	if _, err := io.Copy(c, message); err != nil {
		return 0, err
	}
	code := c.ask(".")
	if code == 0 {
		return 0, errors.New("a message is not answered")
	}
	return code, nil
}

// text is a message of about so many octets.
func text(from string, size int) io.Reader {
	line := strings.Repeat("0123456789", 7) + "\r\n"
	return io.MultiReader(strings.NewReader("From: <"+from+">\r\nTo: <me@example.test>\r\nSubject: large\r\n\r\n"),
		io.LimitReader(&repeated{text: line}, int64(size/len(line)*len(line))))
}

// repeated is a text again and again.
type repeated struct {
	text string
	at   int
}

func (r *repeated) Read(p []byte) (n int, err error) {
	for n < len(p) {
		k := copy(p[n:], r.text[r.at:])
		n, r.at = n+k, (r.at+k)%len(r.text)
	}
	return n, nil
}
