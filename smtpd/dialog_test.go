package smtpd

import (
	"bufio"
	"crypto/tls"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
)

func newReader(r io.Reader) *bufio.Reader { return bufio.NewReader(r) }

func TestCapabilities(t *testing.T) {
	mx := serve(t, nil)
	d := mx.dial(t)
	if got := d.expect("220"); got != "220 mx.example.test ESMTP Service Ready" {
		t.Errorf("greeting %q", got)
	}
	wantLines(t, d.do("EHLO client.test", "250"), "250-mx.example.test at your service", "250-PIPELINING", "250-8BITMIME",
		"250-ENHANCEDSTATUSCODES", "250-SMTPUTF8", "250-SIZE 52428800", "250-LIMITS RCPTMAX=100", "250 STARTTLS")
	d.startTLS()
	wantLines(t, d.do("EHLO client.test", "250"), "250-mx.example.test at your service", "250-PIPELINING", "250-8BITMIME",
		"250-ENHANCEDSTATUSCODES", "250-SMTPUTF8", "250-SIZE 52428800", "250-LIMITS RCPTMAX=100", "250 REQUIRETLS")

	sub := serve(t, func(o *Options) { o.Submission = true })
	d = sub.hello(t)
	if strings.Contains(d.do("EHLO client.test", "250"), "AUTH") {
		t.Error("AUTH is offered before TLS")
	}
	d.startTLS()
	if got := d.do("EHLO client.test", "250"); !strings.Contains(got, "250-AUTH PLAIN LOGIN\n") || !strings.Contains(got, "DSN") {
		t.Errorf("EHLO under TLS: %q", got)
	}
}

func wantLines(t *testing.T, got string, want ...string) {
	t.Helper()
	have := strings.Split(got, "\n")
	for _, w := range want {
		found := false
		for _, h := range have {
			found = found || h == w
		}
		if !found {
			t.Errorf("no line %q in %q", w, have)
		}
	}
	if len(have) != len(want) {
		t.Errorf("%d lines, want %d: %q", len(have), len(want), have)
	}
}

func TestImplicitTLS(t *testing.T) {
	s := serve(t, func(o *Options) { o.Submission, o.ImplicitTLS = true, true })
	d := s.dial(t)
	tc := tls.Client(d.c, &tls.Config{InsecureSkipVerify: true})
	d.c, d.r = tc, bufio.NewReader(tc)
	d.expect("220")
	if got := d.do("EHLO client.test", "250"); strings.Contains(got, "STARTTLS") || !strings.Contains(got, "AUTH PLAIN LOGIN") {
		t.Errorf("EHLO: %q", got)
	}
	d.do("AUTH LOGIN", "334 VXNlcm5hbWU6")
	d.do("YXBwQGV4YW1wbGUudGVzdA==", "334 UGFzc3dvcmQ6")
	d.do("c2VjcmV0", "235 2.7.0")
	d.body()
	d.do("x\r\n.", "250 2.0.0 Ok: queued as ")
	if got := s.relay.taken()[0].user; got != "app@example.test" {
		t.Errorf("submitted by %q", got)
	}
}

func TestSubmissionNeedsTLSThenLogin(t *testing.T) {
	s := serve(t, func(o *Options) { o.Submission = true })
	d := s.hello(t)
	d.do("MAIL FROM:<app@example.test>", "530 5.7.0")
	d.do("AUTH PLAIN AGFwcEBleGFtcGxlLnRlc3QAc2VjcmV0", "530 5.7.0")
	d.startTLS()
	d.do("AUTH PLAIN AGFwcEBleGFtcGxlLnRlc3QAc2VjcmV0", "503 5.5.1")
	d.do("EHLO client.test", "250")
	d.do("MAIL FROM:<app@example.test>", "530 5.7.0")
}

func TestAUTHDialogs(t *testing.T) {
	const user, secret = "YXBwQGV4YW1wbGUudGVzdA==", "c2VjcmV0"
	for name, lines := range map[string][]string{
		"PLAIN without initial response": {"AUTH PLAIN", "334", "AGFwcEBleGFtcGxlLnRlc3QAc2VjcmV0", "235 2.7.0"},
		"lower case":                     {"auth plain AGFwcEBleGFtcGxlLnRlc3QAc2VjcmV0", "235 2.7.0"},
		"LOGIN with the user at once":    {"AUTH LOGIN " + user, "334", secret, "235 2.7.0"},
		"cancelled":                      {"AUTH LOGIN", "334", "*", "501", "NOOP", "250"},
		"bad base64":                     {"AUTH PLAIN !!!", "501 5.5.2", "NOOP", "250"},
		"bad base64 in the dialog":       {"AUTH LOGIN", "334", "!!!", "501 5.5.2", "NOOP", "250"},
		"unknown mechanism":              {"AUTH CRAM-MD5", "504 5.5.4"},
		"no mechanism":                   {"AUTH", "501 5.5.4"},
		"malformed PLAIN":                {"AUTH PLAIN YWJj", "501 5.5.2"},
		"foreign authzid":                {"AUTH PLAIN b3RoZXJAZXhhbXBsZS50ZXN0AGFwcEBleGFtcGxlLnRlc3QAc2VjcmV0", "535 5.7.8"},
		"own authzid":                    {"AUTH PLAIN YXBwQGV4YW1wbGUudGVzdABhcHBAZXhhbXBsZS50ZXN0AHNlY3JldA==", "235 2.7.0"},
		"empty initial response":         {"AUTH PLAIN =", "501 5.5.2"},
		"too long a line":                {"AUTH LOGIN", "334", strings.Repeat("A", 13000), "500 5.5.6", "NOOP", "250"},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(o *Options) { o.Submission = true })
			d := s.hello(t)
			d.startTLS()
			d.do("EHLO client.test", "250")
			for i := 0; i < len(lines); i += 2 {
				d.do(lines[i], lines[i+1])
			}
		})
	}
}

// The name of a refused login may be the password, of somebody who has swapped the two.
func TestAPasswordAsUserNameIsNotLogged(t *testing.T) {
	var log syncedBuffer
	s := serve(t, func(o *Options) { o.Submission, o.Log = true, slog.New(slog.NewTextHandler(&log, nil)) })
	d := s.hello(t)
	d.startTLS()
	d.do("EHLO client.test", "250")
	d.do("AUTH PLAIN AGh1bnRlcjIAYXBwQGV4YW1wbGUudGVzdA==", "535") // hunter2, app@example.test
	if got := log.String(); !strings.Contains(got, "login refused") || strings.Contains(got, "hunter2") {
		t.Errorf("the log says\n%s", got)
	}
}

func TestABannedClientIsSentAway(t *testing.T) {
	s := serve(t, func(o *Options) { o.Submission = true })
	d := s.hello(t)
	d.startTLS()
	d.do("EHLO client.test", "250")
	d.send("AUTH PLAIN AGFwcEBleGFtcGxlLnRlc3QAYmFubmVk\r\nNOOP\r\n")
	if got := d.expect("421"); got != "421 4.7.0 Too many wrong passwords from there" {
		t.Error(got)
	}
	d.closed()
}

func TestRequireTLS(t *testing.T) {
	s := serve(t, nil)
	d := s.hello(t)
	d.do("MAIL FROM:<a@x.test> REQUIRETLS", "530 5.7.10")
	d.do(`MAIL FROM:<"a REQUIRETLS"@x.test>`, "250 2.1.0")
	d.do("RSET", "250")
	d.startTLS()
	d.do("EHLO client.test", "250")
	for _, parameter := range []string{" REQUIRETLS", " requiretls", ""} {
		d.do("MAIL FROM:<a@x.test>"+parameter, "250 2.1.0")
		d.do("RCPT TO:<b@example.test>", "250")
		d.do("DATA", "354")
		d.do("x\r\n.", "250 2.0.0")
	}
	var got []bool
	for _, m := range s.relay.taken() {
		got = append(got, m.requireTLS)
	}
	if !slices.Equal(got, []bool{true, true, false}) {
		t.Errorf("REQUIRETLS was heard as %v", got)
	}
}

func TestNoLoginWithoutACertificate(t *testing.T) {
	s := serve(t, func(o *Options) { o.Submission, o.CanLogin = true, func(string) bool { return false } })
	d := s.hello(t)
	d.startTLS()
	if got := d.do("EHLO client.test", "250"); strings.Contains(got, "AUTH") {
		t.Errorf("AUTH is offered: %q", got)
	}
	d.do("AUTH PLAIN AGFwcEBleGFtcGxlLnRlc3QAc2VjcmV0", "454 4.7.0")
}

func TestRefusalsOnTheMXPort(t *testing.T) {
	for _, c := range []struct{ command, want string }{
		{"MAIL FROM:<a@client.test>", "503 5.5.1"}, // before EHLO
		{"RCPT TO:<a@example.test>", "503 5.5.1"},
		{"DATA", "503 5.5.1"},
		{"RSET", "250 2.0.0"}, // which RFC 5321 section 4.1.4 wants even then
		{"RSET now", "501 5.5.4"},
		{"EHLO", "501 5.5.4"},
		{"EHLO two words", "501 5.5.4"},
		{"AUTH PLAIN x", "502 5.5.1"},
		{"EXPN list", "502 5.5.1"},
		{"FROB", "500 5.5.2"},
		{"", "500 5.5.2"},
		{"NOOP \x01", "501 5.5.2"},
		{strings.Repeat("x", 3000), "500 5.5.6"},
		{"NOOP", "250 2.0.0"},
		{"VRFY a", "252"},
		{"HELP", "214"},
		{"HELO client.test", "250 mx.example.test"},
		{"DATA now", "501 5.5.4"},
		{"MAIL FROM:<a>", "501 5.5.2 Write MAIL FROM:<name@domain>"},
		{"MAIL FROM:<a@client.test> FROB=1", "555 5.5.4"},
		{"MAIL FROM:<a@client.test> BODY=BINARYMIME", "555 5.5.4"},
		{"MAIL FROM:<é@client.test>", "553 5.1.7"},
	} {
		s := serve(t, func(o *Options) { o.Limits.Errors = 100 })
		d := s.dial(t)
		d.expect("220")
		if strings.HasPrefix(c.command, "MAIL") && c.want[0] == '5' && c.want != "503 5.5.1" {
			d.do("EHLO client.test", "250")
		}
		d.do(c.command, c.want)
	}
}

func TestLinesThatEndInLFAlone(t *testing.T) {
	s := serve(t, nil)
	d := s.hello(t)
	d.send("NOOP\n")
	d.expect("500 5.5.2 Lines must end with CR LF")
	d.send("NOOP\r\n")
	d.expect("250")
}

func TestHTTPIsTurnedAway(t *testing.T) {
	s := serve(t, nil)
	d := s.dial(t)
	d.expect("220")
	d.send("GET / HTTP/1.1\r\nHost: mx.example.test\r\n\r\n")
	d.expect("421 4.7.0 This is a mail server")
	d.closed()
}

func TestRecipientsAreLimited(t *testing.T) {
	s := serve(t, func(o *Options) { o.Limits.Recipients = 2 })
	d := s.hello(t)
	d.do("MAIL FROM:<a@client.test>", "250")
	d.do("RCPT TO:<a@example.test>", "250")
	d.do("RCPT TO:<b@example.test>", "250")
	d.do("RCPT TO:<c@example.test>", "452 4.5.3")
	d.do("DATA", "354")
	d.do("x\r\n.", "250")
	if got := s.relay.taken()[0].rcpts; len(got) != 2 {
		t.Errorf("recipients %q", got)
	}
}

func TestBytesArriveAsSent(t *testing.T) {
	s := serve(t, nil)
	d := s.hello(t)
	for _, body := range []string{
		"", "\r\n", "..\r\n", ".dot\r\n", "a\r\n..\r\n.\tb\r\n", "no header\r\n\r\n\r\n\r\n", "8-bit \xff\xfe\x00\r\n", strings.Repeat("0123456789\r\n", 20_000),
	} {
		d.body()
		stuffed := strings.ReplaceAll("\r\n"+body, "\r\n.", "\r\n..")[2:]
		d.do(stuffed+".", "250")
		all := s.relay.taken()
		if got := all[len(all)-1].body; got != body {
			t.Errorf("sent %.60q, got %.60q", body, got)
		}
	}
}

func TestPipelinedBatchIsAnsweredInOrder(t *testing.T) {
	s := serve(t, nil)
	d := s.hello(t)
	d.send("MAIL FROM:<a@client.test>\r\nRCPT TO:<nobody@other.test>\r\nRCPT TO:<b@example.test>\r\nDATA\r\n")
	for _, want := range []string{"250 2.1.0", "550 5.1.1", "250 2.1.5", "354"} {
		d.expect(want)
	}
	d.send("hello\r\n.\r\nMAIL FROM:<c@client.test>\r\nRSET\r\nQUIT\r\n")
	for _, want := range []string{"250 2.0.0", "250 2.1.0", "250 2.0.0", "221"} {
		d.expect(want)
	}
}
