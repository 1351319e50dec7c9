package smtpd

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// A web browser that a page makes speak to a port of mail is sent away at its first line, on every port.
func TestEveryVerbOfHTTPOnEveryPort(t *testing.T) {
	for _, port := range []string{"smtp", "submission", "submissions"} {
		s := serve(t, func(o *Options) { o.Submission, o.ImplicitTLS = port != "smtp", port == "submissions" })
		for _, first := range []string{"GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT", "DELETE", "PATCH", "TRACE", "PRI", "Host:", "get"} {
			d := s.dial(t)
			if port == "submissions" {
				tc := tls.Client(d.c, &tls.Config{InsecureSkipVerify: true})
				d.c, d.r = tc, bufio.NewReader(tc)
			}
			d.expect("220")
			d.send(first + " / HTTP/1.1\r\nContent-Length: 300\r\n\r\nEHLO x\r\n" + envelope + "x\r\n.\r\n")
			d.expect("421 4.7.0 This is a mail server")
			d.closed()
		}
		if n := len(s.relay.taken()); n != 0 {
			t.Errorf("%s: %d messages were taken", port, n)
		}
	}
}

// A control character is refused wherever it stands in whatever command, and an octet over 127 in every verb and
// envelope without SMTPUTF8. What was wrong changes nothing: the transaction goes on.
func TestNoCommandHoldsAControlCharacter(t *testing.T) {
	sessions := 0
	for _, command := range []string{
		"EHLO client.test", "HELO client.test", "MAIL FROM:<c@client.test> SIZE=1", "RCPT TO:<c@example.test>", "DATA", "RSET", "NOOP", "QUIT", "VRFY a", "STARTTLS", "AUTH PLAIN AAAA", "BDAT 0 LAST",
	} {
		for _, c := range []byte{0, 1, 7, 8, 0x0b, 0x0c, '\r', 0x1b, 0x7f, 0x80, 0xc3, 0xff} {
			for at := range len(command) + 1 {
				verb, _, _ := strings.Cut(command, " ")
				if c >= 0x80 && at > len(verb) && verb != "MAIL" && verb != "RCPT" {
					continue // a host name or a word that nobody looks at
				}
				sessions++
				broken := command[:at] + string([]byte{c}) + command[at:]
				open := "MAIL FROM:<a@client.test>\r\nRCPT TO:<b@example.test>\r\n"
				if verb == "MAIL" {
					open = "RSET\r\nNOOP\r\n"
				}
				replies, messages := converse(false, []byte("EHLO client.test\r\n"+open+broken+"\r\nRSET\r\n"+envelope+"x\r\n.\r\n"))
				codes := strings.Split(codesOf(replies), ", ")
				if len(codes) != 9 || codes[3][0] != '5' || !slices.Equal(codes[4:], []string{"250 2.0.0", "250 2.1.0", "250 2.1.5", "354", "250 2.0.0"}) || len(messages) != 1 {
					t.Errorf("%q: %q, %d messages", broken, codes, len(messages))
				}
			}
		}
	}
	t.Logf("%d sessions", sessions)
}

// The longest line passes, and one octet more is refused whole: no part of it runs as a command.
func TestLimitsOfLinesAreExact(t *testing.T) {
	s := serve(t, func(o *Options) { o.Submission = true })
	d := s.hello(t)
	d.startTLS()
	d.do("EHLO client.test", "250")
	long := "NOOP " + strings.Repeat("x", maxCommandLine-len("NOOP \r\n"))
	d.do(long, "250 2.0.0")
	d.do(long+"x", "500 5.5.6")
	d.do(strings.Repeat("QUIT ", maxCommandLine), "500 5.5.6")
	d.do("AUTH PLAIN", "334")
	d.do(strings.Repeat("A", maxAuthLine-2), "501 5.5.2")
	d.do("AUTH PLAIN", "334")
	d.do(strings.Repeat("A", maxAuthLine-1), "500 5.5.6")
	d.do("NOOP", "250 2.0.0")
}

// Commands in every order of three, all in one packet: each is answered once, in its order, and a message is taken
// only where MAIL, RCPT and DATA came in theirs.
func TestPipelinedNonsense(t *testing.T) {
	commands := []string{"EHLO x", "MAIL FROM:<a@client.test>", "RCPT TO:<b@example.test>", "RCPT TO:<b@other.test>", "DATA", "RSET", "NOOP", "FROB", "", ".", "AUTH PLAIN AAAA", "STARTTLS", "BDAT 0 LAST"}
	sessions, taken := 0, 0
	for _, first := range commands {
		for _, second := range commands {
			for _, third := range commands {
				sessions++
				replies, messages := converse(false, fmt.Appendf(nil, "EHLO x\r\n%s\r\n%s\r\n%s\r\n.\r\nNOOP\r\n", first, second, third))
				list := strings.Split(codesOf(replies), ", ")
				inOrder := first == commands[1] && second == commands[2] && third == "DATA"
				data := slices.Index(list, "354")
				if (data >= 0) != inOrder || (len(messages) == 1) != inOrder || len(list) != 6 || list[5] != "250 2.0.0" {
					t.Errorf("%q, %q, %q: %q, %d messages", first, second, third, list, len(messages))
				}
				taken += len(messages)
			}
		}
	}
	t.Logf("%d sessions, %d messages", sessions, taken)
}
