package sink

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"relayd/internal/testnet"
)

// A dialog is the client's side, line by line.
type dialog struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func start(t testing.TB, opt Options) *Sink {
	t.Helper()
	s, err := Start(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func dial(t testing.TB, s *Sink) *dialog {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second)) // a hung test is a failed test
	t.Cleanup(func() { _ = conn.Close() })
	return &dialog{t, conn, bufio.NewReader(conn)}
}

func (d *dialog) send(s string) {
	d.t.Helper()
	if _, err := d.conn.Write([]byte(s)); err != nil {
		d.t.Fatalf("sending %q: %v", s, err)
	}
}

// expect reads one whole reply, which has to begin with want.
func (d *dialog) expect(want string) string {
	d.t.Helper()
	var all string
	for {
		line, err := d.r.ReadString('\n')
		if err != nil {
			d.t.Fatalf("waiting for %q after %q: %v", want, all, err)
		}
		all += line
		if len(line) < 4 || line[3] != '-' {
			break
		}
	}
	if !strings.HasPrefix(all, want) {
		d.t.Fatalf("got %q, want %q", all, want)
	}
	return all
}

// talk runs pairs of a command and the beginning of its reply.
func (d *dialog) talk(pairs ...string) {
	d.t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i] != "" {
			d.send(pairs[i] + "\r\n")
		}
		d.expect(pairs[i+1])
	}
}

func (d *dialog) expectEnd() error {
	d.t.Helper()
	b, err := d.r.ReadByte()
	if err == nil {
		d.t.Fatalf("got byte %q, want the end of the connection", b)
	}
	return err
}

func TestOneTransaction(t *testing.T) {
	s := start(t, Options{Hostname: "mx.test"})
	d := dial(t, s)
	d.expect("220 mx.test ")
	d.send("EHLO client.test\r\n")
	ehlo := d.expect("250-mx.test\r\n")
	for _, ext := range []string{"PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE 67108864", "ENHANCEDSTATUSCODES", "DSN"} {
		if !strings.Contains(ehlo, ext+"\r\n") {
			t.Errorf("EHLO reply %q does not offer %s", ehlo, ext)
		}
	}
	d.talk(
		`MAIL FROM:<"a> b"@x.test> SIZE=10 BODY=8BITMIME`, "250 2.1.0",
		"RCPT TO:<c@y.test> NOTIFY=NEVER", "250 2.1.5",
		"rcpt to:<d@y.test>", "250 2.1.5",
		"DATA", "354",
		"Subject: x\r\n\r\n..dot\r\n.", "250 2.0.0 Ok: queued as 1",
		"QUIT", "221 2.0.0",
	)
	_ = d.expectEnd()
	ms, err := s.Wait(context.Background(), 1)
	if err != nil || len(ms) != 1 {
		t.Fatalf("Wait: %d messages, %v", len(ms), err)
	}
	m := ms[0]
	if m.From != `"a> b"@x.test` || m.FromArgs != "SIZE=10 BODY=8BITMIME" || m.Helo != "client.test" || m.ConnID != 1 || m.TLS != nil {
		t.Errorf("envelope: %+v", m)
	}
	if strings.Join(m.Rcpts, " ") != "c@y.test d@y.test" || strings.Join(m.RcptArgs, "|") != "NOTIFY=NEVER|" {
		t.Errorf("recipients %q with %q", m.Rcpts, m.RcptArgs)
	}
	if string(m.Data) != "Subject: x\r\n\r\n.dot\r\n" {
		t.Errorf("message %q", m.Data)
	}
	if m.RemoteAddr != d.conn.LocalAddr().String() || s.Connections() != 1 {
		t.Errorf("from %s on %d connections", m.RemoteAddr, s.Connections())
	}
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		opt    Options
		dialog []string
	}{
		"MAIL before EHLO":       {Options{}, []string{"MAIL FROM:<>", "503 5.5.1"}},
		"RCPT before MAIL":       {Options{}, []string{"EHLO c", "250", "RCPT TO:<a@b>", "503 5.5.1"}},
		"DATA before RCPT":       {Options{}, []string{"EHLO c", "250", "MAIL FROM:<>", "250", "DATA", "503"}},
		"nested MAIL":            {Options{}, []string{"EHLO c", "250", "MAIL FROM:<>", "250", "MAIL FROM:<>", "503"}},
		"no brackets":            {Options{}, []string{"EHLO c", "250", "MAIL FROM:a@b", "501 5.5.4"}},
		"unknown":                {Options{}, []string{"XYZZY", "500 5.5.2"}},
		"size":                   {Options{MaxSize: 10}, []string{"EHLO c", "250", "MAIL FROM:<> SIZE=11", "552 5.3.4"}},
		"parameter not offered":  {Options{Without: []string{"DSN"}}, []string{"EHLO c", "250", "MAIL FROM:<> RET=HDRS", "555 5.5.4"}},
		"unknown parameter":      {Options{}, []string{"EHLO c", "250", "MAIL FROM:<>", "250", "RCPT TO:<a@b> X=1", "555 5.5.4"}},
		"no enhanced codes":      {Options{Without: []string{"ENHANCEDSTATUSCODES"}}, []string{"EHLO c", "250", "MAIL FROM:<>", "250 Ok"}},
		"pipelining not offered": {Options{Without: []string{"PIPELINING"}}, []string{"EHLO c", "250", "NOOP\r\nNOOP", "554 5.5.0"}},
		"STARTTLS not offered":   {Options{}, []string{"EHLO c", "250", "STARTTLS", "502"}},
		"line end":               {Options{}, []string{"NOOP\n\r", "500 5.5.2 lines"}},
		"line length":            {Options{}, []string{"NOOP " + strings.Repeat("x", 5000), "500 5.5.2 line too"}},
		"EHLO resets":            {Options{}, []string{"EHLO c", "250", "MAIL FROM:<>", "250", "EHLO c", "250", "RCPT TO:<a@b>", "503"}},
		"body too large": {Options{MaxSize: 3}, []string{"HELO c", "250", "MAIL FROM:<>", "250",
			"RCPT TO:<a@b>", "250", "DATA", "354", "long\r\n.", "552 5.3.4", "NOOP", "250"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := dial(t, start(t, c.opt))
			d.talk(append([]string{"", "220"}, c.dialog...)...)
		})
	}
}

func TestScript(t *testing.T) {
	s := start(t, Options{Reply: func(stage, arg string, nth int) string {
		switch {
		case stage == "rcpt" && arg == "bad@x":
			return "550-5.1.1 two\n550 5.1.1 lines"
		case stage == "dot" && nth == 1:
			return "451 4.3.0 later"
		case stage == "mail" && arg == "end@x":
			return "421 4.7.0 bye<close>"
		}
		return ""
	}})
	d := dial(t, s)
	d.talk("", "220", "EHLO c", "250", "MAIL FROM:<a@x>", "250",
		"RCPT TO:<bad@x>", "550-5.1.1 two\r\n550 5.1.1 lines\r\n", "RCPT TO:<good@x>", "250",
		"DATA", "354", "first\r\n.", "451 4.3.0",
		"MAIL FROM:<a@x>", "250", "RCPT TO:<good@x>", "250", "DATA", "354", "second\r\n.", "250",
		"MAIL FROM:<end@x>", "421 4.7.0 bye\r\n")
	_ = d.expectEnd()
	if ms := s.Messages(); len(ms) != 1 || string(ms[0].Data) != "second\r\n" || len(ms[0].Rcpts) != 1 {
		t.Errorf("messages: %+v", ms)
	}
}

func TestResetAborts(t *testing.T) {
	s := start(t, Options{Reply: func(stage, _ string, _ int) string {
		if stage == "ehlo" {
			return "<reset>"
		}
		return ""
	}})
	d := dial(t, s)
	d.talk("", "220")
	d.send("EHLO c\r\n")
	if err := d.expectEnd(); !strings.Contains(err.Error(), "reset") {
		t.Errorf("the connection ended with %v, want a reset", err)
	}
}

func TestHangEndsWithClose(t *testing.T) {
	s := start(t, Options{Reply: func(string, string, int) string { return "<hang>" }})
	d := dial(t, s)
	d.send("EHLO c\r\n")
	s.Close()
	_ = d.expectEnd()
}

func TestStartTLSAndAuth(t *testing.T) {
	cert := testnet.Cert(t, "mx.test")
	s := start(t, Options{
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert.TLS}},
		Users:     map[string]string{"u@x": "secret"},
	})
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	d := dial(t, s)
	d.talk("", "220", "EHLO c", "250", "STARTTLS", "220")
	conn := tls.Client(d.conn, &tls.Config{RootCAs: cert.Pool, ServerName: "mx.test"})
	d = &dialog{t, conn, bufio.NewReader(conn)}
	d.talk("MAIL FROM:<>", "503")
	d.send("EHLO c\r\n")
	if ehlo := d.expect("250"); strings.Contains(ehlo, "STARTTLS") {
		t.Errorf("STARTTLS is offered inside TLS: %q", ehlo)
	}
	d.talk("MAIL FROM:<>", "530 5.7.0",
		"AUTH PLAIN "+b64("\x00u@x\x00wrong"), "535 5.7.8",
		"AUTH PLAIN", "334 ", "!", "501",
		"AUTH CRAM-MD5", "504",
		"AUTH LOGIN", "334 "+b64("Username:"), b64("u@x"), "334 "+b64("Password:"), b64("secret"), "235 2.7.0",
		"MAIL FROM:<u@x> AUTH=<>", "250", "RCPT TO:<a@x>", "250", "DATA", "354", ".", "250")
	m := s.Messages()[0]
	if m.User != "u@x" || m.TLS == nil || !m.TLS.HandshakeComplete || len(m.Data) != 0 {
		t.Errorf("message: %+v", m)
	}
}

func TestPlaintextBehindStartTLS(t *testing.T) {
	cert := testnet.Cert(t, "mx.test")
	d := dial(t, start(t, Options{TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert.TLS}}}))
	d.talk("", "220", "STARTTLS\r\nNOOP", "554 5.5.0")
	_ = d.expectEnd()
}

func TestImplicitTLS(t *testing.T) {
	cert := testnet.Cert(t, "127.0.0.1")
	s := start(t, Options{TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert.TLS}}, ImplicitTLS: true})
	conn, err := tls.Dial("tcp", s.Addr(), &tls.Config{RootCAs: cert.Pool})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	d := &dialog{t, conn, bufio.NewReader(conn)}
	d.talk("", "220", "QUIT", "221")
	if _, err := Start(Options{ImplicitTLS: true}); err == nil {
		t.Error("implicit TLS starts without a certificate")
	}
}

func TestDiscardAndWait(t *testing.T) {
	var handled atomic.Int32
	s := start(t, Options{Discard: true, Handler: func(*Message) { handled.Add(1) }})
	d := dial(t, s)
	d.talk("", "220", "EHLO c", "250")
	d.send("MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n") // pipelined
	d.talk("", "250", "", "250", "", "354", ".", "250")
	if handled.Load() != 1 || s.Count() != 1 || len(s.Messages()) != 0 {
		t.Errorf("%d handled, %d counted, %d kept", handled.Load(), s.Count(), len(s.Messages()))
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := s.Wait(ctx, 2); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait for a message that does not come: %v", err)
	}
}

// stuff is dot-stuffing as RFC 5321 section 4.5.2 has it.
func stuff(body []byte) []byte {
	out := bytes.ReplaceAll(append([]byte("\r\n"), body...), []byte("\r\n."), []byte("\r\n.."))
	return out[2:]
}

func TestBodiesArriveByteForByte(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOf(rapid.SampledFrom([]string{
			"\r\n", ".", "\n", "\r", "a", "\x00", "\xff", strings.Repeat("x", 4095), strings.Repeat(".", 15),
		})).Draw(t, "parts")
		body := []byte(strings.Join(parts, "") + "\r\n")
		wire := string(stuff(body)) + ".\r\nQUIT"
		r := bufio.NewReaderSize(strings.NewReader(wire), 16)
		got, fits, err := readBody(r, len(body))
		if err != nil || !fits || !bytes.Equal(got, body) {
			t.Fatalf("%q became %q (fits %v, %v)", body, got, fits, err)
		}
		if rest, _ := r.Peek(4); string(rest) != "QUIT" {
			t.Fatalf("%q is left behind the end mark", rest)
		}
	})
}

func FuzzReadBody(f *testing.F) {
	f.Add([]byte("..a\r\n\n.\r\n.\n\r\n.\r\n"))
	f.Add([]byte(".\r\n"))
	f.Add([]byte("0123456789abcde\r\n.\r\n"))
	f.Fuzz(func(t *testing.T, wire []byte) {
		small, _, errSmall := readBody(bufio.NewReaderSize(bytes.NewReader(wire), 16), len(wire))
		large, _, errLarge := readBody(bufio.NewReaderSize(bytes.NewReader(wire), 65536), len(wire))
		if (errSmall == nil) != (errLarge == nil) || !bytes.Equal(small, large) {
			t.Errorf("the buffer size matters: %q (%v), %q (%v)", small, errSmall, large, errLarge)
		}
	})
}

func FuzzParsePath(f *testing.F) {
	for _, s := range []string{"FROM:<a@b> SIZE=1", `FROM:<"a\">"@b>`, "FROM:<>", "from:a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		path, args, ok := parsePath(s, "FROM:")
		if ok && len(path)+len(args) > len(s) {
			t.Errorf("%q gave %q and %q", s, path, args)
		}
	})
}
