package smtpd

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
)

const plainLogin = "AUTH PLAIN AGFwcEBleGFtcGxlLnRlc3QAc2VjcmV0" // app@example.test, secret

// codesOf are the replies behind the greeting: code and enhanced code of each, the last line of those
// with several.
func codesOf(replies []string) string {
	var list []string
	for _, r := range replies[1:] {
		if len(r) > 3 && r[3] == '-' {
			continue
		}
		words := strings.Fields(r + " ")
		code := words[0]
		if len(words) > 1 && strings.Count(words[1], ".") == 2 && words[1][0] == code[0] {
			code += " " + words[1]
		}
		list = append(list, code)
	}
	return strings.Join(list, ", ")
}

// What is sent in one go, and the codes of all that is said to it: FROB, where it is heard, is answered with 500.
var abuses = []struct{ what, sent, want string }{
	{"HTTP", "GET / HTTP/1.1\r\nHost: mx.example.test\r\n\r\nFROB\r\n", "421 4.7.0"},
	{"mail in the body of a POST", "POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\nEHLO x\r\n" + envelope + "x\r\n.\r\n", "421 4.7.0"},
	{"a header of HTTP first", "Host: mx.example.test\r\nEHLO x\r\n" + envelope + "x\r\n.\r\n", "421 4.7.0"},
	{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "421 4.7.0"},
	{"HTTP in small letters", "get / http/1.0\r\nFROB\r\n", "421 4.7.0"},
	{"HTTP inside a transaction", "EHLO x\r\nMAIL FROM:<a@client.test>\r\nRCPT TO:<b@example.test>\r\nGET / HTTP/1.1\r\nDATA\r\n", "250, 250 2.1.0, 250 2.1.5, 421 4.7.0"},

	{"NUL in a command", "EHLO x\x00y\r\nNOOP\r\n", "501 5.5.2, 250 2.0.0"},
	{"NUL before a command", "\x00NOOP\r\nNOOP\r\n", "501 5.5.2, 250 2.0.0"},
	{"bare CR in a command", "EHLO x\rMAIL FROM:<a@client.test>\r\nNOOP\r\n", "501 5.5.2, 250 2.0.0"},
	{"bare LF between commands", "NOOP\nNOOP\r\n", "500 5.5.2, 250 2.0.0"},
	{"8-bit verb", "NO\xd6P\r\nNOOP\r\n", "500 5.5.2, 250 2.0.0"},
	{"8-bit address without SMTPUTF8", "EHLO x\r\nMAIL FROM:<\xc3\xa9@client.test>\r\nNOOP\r\n", "250, 553 5.1.7, 250 2.0.0"},
	{"bytes that are not UTF-8", "EHLO x\r\nMAIL FROM:<\xe9@client.test> SMTPUTF8\r\nNOOP\r\n", "250, 553 5.1.7, 250 2.0.0"},
	{"escape sequence", "EHLO \x1b[2J\r\nNOOP\r\n", "501 5.5.2, 250 2.0.0"},
	{"TLS on a port without it", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\nNOOP\r\n", "501 5.5.2, 250 2.0.0"},
	{"long line", "NOOP " + strings.Repeat("x", 5000) + "\r\nNOOP\r\n", "500 5.5.6, 250 2.0.0"},
	{"long line full of commands", strings.Repeat("RSET ", 1000) + "\r\nNOOP\r\n", "500 5.5.6, 250 2.0.0"},
	{"line without an end", strings.Repeat("x", 2<<20), ""},
	{"pipelined nonsense", "FROB\r\n\r\nDATA\r\nRCPT TO:<b@example.test>\r\nNOOP\r\n", "500 5.5.2, 500 5.5.2, 503 5.5.1, 503 5.5.1, 250 2.0.0"},
	{"DATA with nobody to go to, and its body", "EHLO x\r\nMAIL FROM:<a@client.test>\r\nRCPT TO:<b@other.test>\r\nDATA\r\nFrom: x\r\n.\r\nNOOP\r\n",
		"250, 250 2.1.0, 550 5.1.1, 503 5.5.1, 500 5.5.2, 500 5.5.2, 250 2.0.0"},

	{"BDAT between RCPT and DATA", "EHLO x\r\nMAIL FROM:<a@client.test>\r\nRCPT TO:<b@example.test>\r\nBDAT 6\r\nRSET\r\nDATA\r\nx\r\n.\r\n",
		"250, 250 2.1.0, 250 2.1.5, 502 5.5.1, 354, 250 2.0.0"},
	{"BDAT after RSET", "EHLO x\r\nMAIL FROM:<a@client.test>\r\nRCPT TO:<b@example.test>\r\nRSET\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n",
		"250, 250 2.1.0, 250 2.1.5, 250 2.0.0, 502 5.5.1, 250 2.0.0"},
	{"BDAT after DATA", "EHLO x\r\n" + envelope + "x\r\n.\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n", "250, 250 2.1.0, 250 2.1.5, 354, 250 2.0.0, 502 5.5.1, 250 2.0.0"},
	{"BDAT inside a body", "EHLO x\r\n" + envelope + "BDAT 6 LAST\r\nQUIT\r\n.\r\nNOOP\r\n", "250, 250 2.1.0, 250 2.1.5, 354, 250 2.0.0, 250 2.0.0"},
	{"RSET inside a chunk", "EHLO x\r\nMAIL FROM:<a@client.test>\r\nBDAT 6\r\nRSET\r\nBDAT 6 LAST\r\nRSET\r\nRCPT TO:<b@example.test>\r\n", "250, 250 2.1.0, 502 5.5.1, 502 5.5.1, 250 2.1.5"},
	{"LAST twice", "EHLO x\r\nBDAT 6 LAST\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n", "250, 502 5.5.1, 502 5.5.1, 250 2.0.0"},
	{"BDAT of nothing", "BDAT 0 LAST\r\nNOOP\r\n", "502 5.5.1, 250 2.0.0"},
	{"BDAT larger than what comes", "BDAT 2147483647 LAST\r\nMAIL FROM:<a@client.test>\r\n", ""},
	{"BDAT larger than a number", "BDAT 18446744073709551617\r\nFROB\r\n", "421 4.7.0"},
	{"BDAT of less than nothing", "BDAT -1\r\nFROB\r\n", "421 4.7.0"},
	{"BDAT of no size", "BDAT\r\nFROB\r\n", "421 4.7.0"},

	{"REQUIRETLS in the clear", "EHLO x\r\nMAIL FROM:<a@client.test> REQUIRETLS\r\nRCPT TO:<b@example.test>\r\n", "250, 530 5.7.10, 503 5.5.1"},
	{"AUTH on port 25", "EHLO x\r\n" + plainLogin + "\r\nNOOP\r\n", "250, 502 5.5.1, 250 2.0.0"},
	{"STARTTLS without TLS here", "EHLO x\r\nSTARTTLS\r\nNOOP\r\n", "250, 502 5.5.1, 250 2.0.0"},
}

func TestAbuseOfTheMXPort(t *testing.T) {
	for _, c := range abuses {
		t.Run(c.what, func(t *testing.T) {
			replies, messages := converse(false, []byte(c.sent))
			if got := codesOf(replies); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if want := strings.Count(c.want, "354, 250"); len(messages) != want {
				t.Errorf("%d messages were taken, want %d", len(messages), want)
			}
		})
	}
}

// The state machine of AUTH, under TLS unless the dialog begins before it.
func TestAbuseOfAUTH(t *testing.T) {
	for what, lines := range map[string][]string{
		"before EHLO":                        {plainLogin, "503 5.5.1"},
		"twice":                              {"EHLO x", "250", plainLogin, "235", plainLogin, "503 5.5.1", "MAIL FROM:<app@example.test>", "250"},
		"twice, after EHLO":                  {"EHLO x", "250", plainLogin, "235", "EHLO x", "250", plainLogin, "503 5.5.1"},
		"inside a transaction":               {"EHLO x", "250", plainLogin, "235", "MAIL FROM:<app@example.test>", "250", plainLogin, "503 5.5.1", "RCPT TO:<b@example.test>", "250"},
		"cancelled at once":                  {"EHLO x", "250", "AUTH PLAIN *", "501", "MAIL FROM:<app@example.test>", "530 5.7.0"},
		"cancelled at the password":          {"EHLO x", "250", "AUTH LOGIN YXBwQGV4YW1wbGUudGVzdA==", "334", "*", "501", "MAIL FROM:<app@example.test>", "530 5.7.0"},
		"a command in place of an answer":    {"EHLO x", "250", "AUTH LOGIN", "334", "MAIL FROM:<app@example.test>", "501", "MAIL FROM:<app@example.test>", "530 5.7.0"},
		"nothing as the user and password":   {"EHLO x", "250", "AUTH LOGIN =", "334", "=", "535 5.7.8", "MAIL FROM:<app@example.test>", "530 5.7.0"},
		"an empty line":                      {"EHLO x", "250", "AUTH PLAIN", "334", "", "501 5.5.2", "MAIL FROM:<app@example.test>", "530 5.7.0"},
		"base64 without its end":             {"EHLO x", "250", "AUTH PLAIN AGFwcEBleGFtcGxlLnRlc3QAc2VjcmV", "501 5.5.2"},
		"three words":                        {"EHLO x", "250", "AUTH PLAIN AGFwcEBleGFtcGxlLnRlc3QAc2VjcmV0 x", "501 5.5.4", "MAIL FROM:<app@example.test>", "530 5.7.0"},
		"another authorization":              {"EHLO x", "250", "AUTH PLAIN b3RoZXJAZXhhbXBsZS50ZXN0AGFwcEBleGFtcGxlLnRlc3QAc2VjcmV0", "535 5.7.8", "MAIL FROM:<app@example.test>", "530 5.7.0"},
		"wrong, then right":                  {"EHLO x", "250", "AUTH PLAIN AGFwcEBleGFtcGxlLnRlc3QAd3Jvbmc=", "535 5.7.8", plainLogin, "235"},
		"a mechanism of another in capitals": {"EHLO x", "250", "AUTH EXTERNAL =", "504 5.5.4"},
	} {
		t.Run(what, func(t *testing.T) {
			s := serve(t, func(o *Options) { o.Submission = true })
			d := s.hello(t)
			d.startTLS()
			for i := 0; i < len(lines); i += 2 {
				d.do(lines[i], lines[i+1])
			}
		})
	}
}

// What stood behind STARTTLS in the clear, be it a whole message or a login, is never run under TLS.
func TestNothingSentInTheClearIsRunUnderTLS(t *testing.T) {
	for _, c := range []struct {
		submission bool
		behind     string
	}{
		{false, "EHLO x\r\n" + envelope + "x\r\n.\r\n"},
		{true, "EHLO x\r\n" + plainLogin + "\r\nMAIL FROM:<app@example.test>\r\n"},
		{false, strings.Repeat("NOOP\r\n", 1000)}, // more than one read takes
	} {
		s := serve(t, func(o *Options) { o.Submission = c.submission })
		d := s.hello(t)
		d.send("STARTTLS\r\n" + c.behind)
		d.expect("220")
		tc := tls.Client(d.c, &tls.Config{InsecureSkipVerify: true})
		if err := tc.Handshake(); err != nil {
			continue // some of it was taken for TLS, which ended the connection
		}
		d.c, d.r = tc, newReader(tc)
		d.do("MAIL FROM:<a@client.test>", "503 5.5.1 Say EHLO first")
		if n := len(s.relay.taken()); n != 0 {
			t.Errorf("%d messages were taken", n)
		}
	}
}

// A lockedBuffer may be written to while it is read.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *lockedBuffer) options(o *Options) {
	o.Log = slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func TestHTTPIsLoggedForWhoDebugs(t *testing.T) {
	var log lockedBuffer
	s := serve(t, log.options)
	d := s.dial(t)
	d.expect("220")
	d.do("GET / HTTP/1.1", "421")
	d.closed()
	if want := `level=DEBUG msg="connection closed" client=` + d.c.LocalAddr().String() + ` reason="it speaks HTTP"`; !strings.Contains(log.String(), want) {
		t.Errorf("no %q in %s", want, log.String())
	}
}

// Who speaks before the greeting is answered as anybody else, at once, and noted in the log.
func TestEarlyTalkersAreNoted(t *testing.T) {
	for _, early := range []bool{true, false} {
		var log lockedBuffer
		opt := options(t)
		log.options(&opt)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := &testServer{Server: New(opt, &fakeRelay{}), addr: l.Addr().String()}
		d := s.dial(t)
		if early {
			d.send("EHLO client.test\r\n")
		}
		s.run(t, l)
		d.expect("220")
		if !early {
			d.send("EHLO client.test\r\n")
		}
		d.expect("250")
		if noted := strings.Contains(log.String(), "spoke before the greeting"); noted != early {
			t.Errorf("early: %v, noted: %v", early, noted)
		}
	}
}
