package doctor

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"

	"relayd/delivery"
	"relayd/reply"
)

// Bounds on what a server may say.
const (
	maxSession = 64 << 10 // bytes
	maxLines   = 100      // of one reply
)

// A rehearsal is an SMTP session in which nothing is sent. Its connection has a deadline.
type rehearsal struct {
	conn net.Conn
	r    *bufio.Reader
	host string
	tls  string // version; "" in the clear
}

// play plays a transaction up to RCPT. It returns where it ended, and a *reply.Reply as the error
// where the server said no.
func (r *rehearsal) play(ctx context.Context, p Probe) (delivery.Stage, error) {
	if _, err := r.expect(220, ""); err != nil {
		return delivery.AtGreeting, err
	}
	offers, err := r.expect(250, "EHLO "+p.Hostname)
	if err != nil {
		return delivery.AtEHLO, err
	}
	startTLS := func(line string) bool { return strings.EqualFold(strings.TrimSpace(line), "STARTTLS") }
	if slices.ContainsFunc(strings.Split(offers.Text, "\n"), startTLS) {
		if err := r.startTLS(ctx, &tls.Config{ServerName: r.host, InsecureSkipVerify: true}); err != nil { // as mail is sent
			return delivery.AtSTARTTLS, err
		}
		if _, err := r.expect(250, "EHLO "+p.Hostname); err != nil {
			return delivery.AtEHLO, err
		}
	}
	if _, err := r.expect(250, "MAIL FROM:<>"); err != nil {
		return delivery.AtMail, err
	}
	if p.Recipient != "" {
		if _, err := r.expect(250, "RCPT TO:<"+p.Recipient+">"); err != nil {
			return delivery.AtRcpt, err
		}
	}
	if _, err := r.expect(250, "RSET"); err != nil {
		return delivery.AtMail, err
	}
	_, _ = r.expect(221, "QUIT") // all is known already
	return delivery.AtRcpt, nil
}

// startTLS goes over to TLS.
func (r *rehearsal) startTLS(ctx context.Context, conf *tls.Config) error {
	if _, err := r.expect(220, "STARTTLS"); err != nil {
		return err
	}
	return r.handshake(ctx, conf)
}

func (r *rehearsal) handshake(ctx context.Context, conf *tls.Config) error {
	conn := tls.Client(r.conn, conf)
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	r.conn, r.r, r.tls = conn, bufio.NewReader(io.LimitReader(conn, maxSession)), tls.VersionName(conn.ConnectionState().Version)
	return nil
}

// expect sends a command, if it is one, and reads the reply. One of another code is the error.
func (r *rehearsal) expect(code int, command string) (*reply.Reply, error) {
	if command != "" {
		if _, err := io.WriteString(r.conn, command+"\r\n"); err != nil {
			return nil, err
		}
	}
	answer, err := readReply(r.r)
	if err == nil && answer.Code != code {
		return nil, answer
	}
	return answer, err
}

var errNoSMTP = errors.New("what answers does not speak SMTP")

// readReply reads a reply of one or several lines (RFC 5321 section 4.2.1).
func readReply(r *bufio.Reader) (*reply.Reply, error) {
	answer := &reply.Reply{}
	var lines []string
	for range maxLines {
		line, err := r.ReadString('\n')
		if err != nil {
			return nil, err
		}
		line = strings.TrimRight(line, "\r\n")
		code, err := strconv.Atoi(line[:min(3, len(line))])
		if err != nil || code < 200 || code > 599 || len(line) > 3 && line[3] != ' ' && line[3] != '-' {
			return nil, errNoSMTP
		}
		answer.Code = code
		text := ""
		if len(line) > 3 {
			text = line[4:]
		}
		enhanced, rest := reply.SplitEnhanced(code, text)
		if enhanced != "" {
			answer.Enhanced = enhanced
		}
		lines = append(lines, rest)
		if len(line) <= 3 || line[3] == ' ' {
			answer.Text = strings.Join(lines, "\n")
			return answer, nil
		}
	}
	return nil, errNoSMTP
}
