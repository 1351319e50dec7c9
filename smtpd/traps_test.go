package smtpd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relayd/reply"
)

const envelope = "MAIL FROM:<a@client.test>\r\nRCPT TO:<b@example.test>\r\nDATA\r\n"

// body opens a transaction up to 354.
func (d *peer) body() {
	d.t.Helper()
	d.send(envelope)
	d.expect("250 2.1.0")
	d.expect("250 2.1.5")
	d.expect("354")
}

func TestTimeoutInsideDataEndsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opt := options(t)
		opt.TLS = nil
		s := servePipe(t, opt)
		client, server := net.Pipe()
		s.pipes.conns <- server
		d := newPipeDialog(t, client)
		d.expect("220")
		d.do("EHLO client.test", "250")
		d.body()
		d.send("Subject: half a message\r\n")
		began := time.Now()
		d.expect("421 4.4.2")
		if waited := time.Since(began); waited != opt.Limits.DataTimeout {
			t.Errorf("gave up after %v, want %v", waited, opt.Limits.DataTimeout)
		}
		d.closed()
		if n := len(s.relay.taken()); n != 0 {
			t.Errorf("%d messages were taken", n)
		}
		s.Shutdown(context.Background())
	})
}

func (s *testServer) pipe(t *testing.T) *peer {
	client, server := net.Pipe()
	s.pipes.conns <- server
	return newPipeDialog(t, client)
}

func newPipeDialog(t *testing.T, c net.Conn) *peer {
	d := &peer{t: t, c: c}
	d.r = newReader(c)
	return d
}

func TestIdleSessionIsToldAndClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opt := options(t)
		s := servePipe(t, opt)
		client, server := net.Pipe()
		s.pipes.conns <- server
		d := newPipeDialog(t, client)
		d.expect("220")
		began := time.Now()
		d.expect("421 4.4.2")
		if waited := time.Since(began); waited != opt.Limits.CommandTimeout {
			t.Errorf("gave up after %v, want %v", waited, opt.Limits.CommandTimeout)
		}
		s.Shutdown(context.Background())
	})
}

// trickle sends an octet now and then, until what it returns is called.
func (d *peer) trickle(every time.Duration) (stop func()) {
	var ended sync.WaitGroup
	ended.Go(func() {
		for {
			if _, err := d.c.Write([]byte("x")); err != nil {
				return
			}
			time.Sleep(every)
		}
	})
	return func() { d.c.Close(); ended.Wait() }
}

func TestTrickledCommandIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opt := options(t)
		s := servePipe(t, opt)
		d := s.pipe(t)
		d.expect("220")
		d.do("EHLO client.test", "250")
		began := time.Now()
		defer d.trickle(5 * time.Second)()
		d.expect("421 4.4.2")
		if waited := time.Since(began); waited != opt.Limits.CommandTimeout {
			t.Errorf("a trickle was suffered for %v", waited)
		}
		s.Shutdown(context.Background())
	})
}

// A byte every two minutes keeps each read alive; the minimum rate ends it all the same.
func TestTrickledBodyIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opt := options(t)
		s := servePipe(t, opt)
		d := s.pipe(t)
		d.expect("220")
		d.do("EHLO client.test", "250")
		d.body()
		began := time.Now()
		defer d.trickle(2 * time.Minute)()
		d.expect("421 4.4.2")
		if waited := time.Since(began); waited > opt.Limits.DataTimeout+time.Minute {
			t.Errorf("a trickle was suffered for %v", waited)
		}
		s.Shutdown(context.Background())
	})
}

func TestCommandsAfterQUITAreNotRun(t *testing.T) {
	s := serve(t, nil)
	d := s.hello(t)
	d.send("QUIT\r\n" + envelope + "x\r\n.\r\n")
	d.expect("221 2.0.0")
	d.closed()
	if n := len(s.relay.taken()); n != 0 {
		t.Errorf("%d messages were taken after QUIT", n)
	}
}

func TestASpaceBehindACommandIsTolerated(t *testing.T) {
	s := serve(t, nil)
	d := s.hello(t)
	d.do("RSET ", "250 2.0.0 Ok")
	d.do("MAIL FROM:<a@client.test>  ", "250")
	d.do("RCPT TO:<a@example.test> ", "250")
	d.do("DATA ", "354")
	d.do("hello\r\n.", "250 2.0.0 Ok: queued")
	d.do("QUIT ", "221")
}

// CR CR LF . CR LF hides the end from go-smtp's reader, which would swallow what follows.
func TestDoubleCRBeforeTheEndSwallowsNothing(t *testing.T) {
	s := serve(t, nil)
	d := s.hello(t)
	d.body()
	d.send("hello\r\r\n.\r\nNOOP\r\n")
	d.expect("550 5.6.0")
	d.closed()
}

// A client that sent a bare LF still waits where it thinks its message ends.
func TestBareLFIsAnsweredAtTheEndOfTheBody(t *testing.T) {
	s := serve(t, func(o *Options) { o.Limits.BareSilence = 10 * time.Second })
	d := s.hello(t)
	d.body()
	d.send("Subject: x\n\nhello\n")
	d.send("more\r\n.\r\n")
	d.expect("550 5.6.0 The message holds a bare CR or LF")
	d.closed()
}

func TestInternalErrorsAreNotShown(t *testing.T) {
	for name, err := range map[string]error{
		"plain":   errors.New("open /var/lib/relayd/queue: permission denied"),
		"wrapped": fmt.Errorf("storing: %w", errors.New("secret path")),
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, nil)
			s.relay.fail = err
			d := s.hello(t)
			d.body()
			d.send("x\r\n.\r\n")
			if got := d.expect("451 4.3.0"); strings.Contains(got, "path") || strings.Contains(got, "/var") {
				t.Errorf("the client reads %q", got)
			}
		})
	}
	s := serve(t, nil)
	s.relay.fail = fmt.Errorf("wrapped: %w", reply.New(552, "5.2.2", "Mailbox full"))
	d := s.hello(t)
	d.body()
	d.send("x\r\n.\r\n")
	d.expect("552 5.2.2 Mailbox full")
}

func TestQuotedLocalPartsCannotInject(t *testing.T) {
	s := serve(t, nil)
	for _, rcpt := range []string{
		`"a> NOTIFY=NEVER x"@example.test`, `"a@b"@example.test`, "\"a\x01b\"@example.test", `"é"@example.test`,
		`a@evil.test@example.test`, `a@exa mple.test`, `a@`, `@example.test`, `"a\"@example.test`, `a@example.test\r\nDATA`,
	} {
		d := s.hello(t)
		d.do("MAIL FROM:<a@client.test>", "250")
		d.send("RCPT TO:<" + rcpt + ">\r\n")
		got := d.read()
		if rcpt == `"a> NOTIFY=NEVER x"@example.test` {
			if !strings.HasPrefix(got, "250") {
				t.Errorf("%s: a legal quoted name got %q", rcpt, got)
			}
			d.do("DATA", "354")
			d.do("x\r\n.", "250")
			all := s.relay.taken()
			if to := all[len(all)-1].rcpts[0]; to != `"a> NOTIFY=NEVER x"@example.test` {
				t.Errorf("handed on as %s", to)
			}
			continue
		}
		if !strings.HasPrefix(got, "5") {
			t.Errorf("%s: got %q", rcpt, got)
		}
	}
}

func TestBarePostmasterIsTaken(t *testing.T) {
	s := serve(t, nil)
	for _, path := range []string{"<postmaster>", "<Postmaster>", " <POSTMASTER>", "<abuse>", "<Abuse>"} {
		d := s.hello(t)
		d.do("MAIL FROM:<>", "250")
		d.do("RCPT TO:"+path, "250 2.1.5")
	}
}

// A sender whose view of our names is broken writes to the address that it reaches us at.
func TestPostmasterAtOurAddressIsTaken(t *testing.T) {
	s := serve(t, nil)
	for path, want := range map[string]string{
		"<postmaster@[127.0.0.1]>":             "250 2.1.5",
		"<Postmaster@[127.0.0.1]>":             "250 2.1.5",
		"<postmaster@[IPv6:::ffff:127.0.0.1]>": "250 2.1.5",
		"<someone@[127.0.0.1]>":                "550",
		"<postmaster@[127.0.0.2]>":             "550",
		"<postmaster@127.0.0.1>":               "553",
	} {
		d := s.hello(t)
		d.do("MAIL FROM:<>", "250")
		d.do("RCPT TO:"+path, want)
	}
}

func TestNestedCommandsAreOutOfOrder(t *testing.T) {
	s := serve(t, func(o *Options) { o.Submission = true })
	d := s.login(t)
	d.do("AUTH PLAIN AGFwcEBleGFtcGxlLnRlc3QAc2VjcmV0", "503 5.5.1")
	d.do("MAIL FROM:<a@example.test>", "250")
	d.do("MAIL FROM:<b@example.test>", "503 5.5.1")
	d.do("RCPT TO:<b@example.test>", "250")
	d.do("EHLO again.test", "250")
	d.do("DATA", "503 5.5.1")
	d.do("RCPT TO:<b@example.test>", "503 5.5.1")
}

func TestBDATChunkIsNotRunAsCommands(t *testing.T) {
	s := serve(t, nil)
	d := s.hello(t)
	d.do("MAIL FROM:<a@client.test>", "250")
	d.do("RCPT TO:<b@example.test>", "250")
	chunk := "RSET\r\nQUIT\r\n"
	d.send(fmt.Sprintf("BDAT %d LAST\r\n%sNOOP\r\n", len(chunk), chunk))
	d.expect("502 5.5.1")
	d.expect("250 2.0.0")
	d.send("BDAT 99999999999999999999\r\n")
	d.expect("421")
}

func TestFailedHandshakeEndsInSilence(t *testing.T) {
	s := serve(t, nil)
	d := s.hello(t)
	d.do("STARTTLS", "220")
	d.send("MAIL FROM:<a@client.test>\r\nRCPT TO:<b@example.test>\r\n")
	got := make([]byte, 7)
	if n, _ := d.c.Read(got); n > 0 && got[0] != 21 { // a TLS alert record may come, SMTP may not
		t.Errorf("got %q in the clear", got[:n])
	}
}

func TestWhatIsSentWithSTARTTLSIsDropped(t *testing.T) {
	s := serve(t, nil)
	d := s.hello(t)
	d.send("STARTTLS\r\nRSET\r\n")
	d.expect("220")
	tc := tls.Client(d.c, &tls.Config{InsecureSkipVerify: true})
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	d.c, d.r = tc, newReader(tc)
	d.do("MAIL FROM:<a@client.test>", "503 5.5.1") // EHLO has to come again
	d.do("EHLO client.test", "250")
	d.do("STARTTLS", "503 5.5.1")
}

// What comes in the same packet as the end of a body is kept apart from what commands come in.
func TestWhatIsSentWithABodyAndSTARTTLSIsDropped(t *testing.T) {
	s := serve(t, nil)
	d := s.hello(t)
	d.body()
	d.send("x\r\n.\r\nSTARTTLS\r\nEHLO plain.test\r\n" + strings.Repeat("RSET\r\n", 1000))
	d.expect("250 2.0.0")
	d.expect("220")
	tc := tls.Client(d.c, &tls.Config{InsecureSkipVerify: true})
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	d.c, d.r = tc, newReader(tc)
	d.do("MAIL FROM:<a@client.test>", "503 5.5.1")
}

// A client that pipelines past the end of a body is answered in order, however much it sends at once and
// whatever becomes of each message.
func TestManyMessagesInOneWrite(t *testing.T) {
	const size, count = 50 << 10, 20
	s := serve(t, func(o *Options) { o.Limits.MessageSize = size })
	d := s.hello(t)
	var batch strings.Builder
	for i := range count {
		body := fmt.Sprintf("Subject: %d\r\n\r\n..dot\r\n", i)
		switch i % 4 {
		case 1:
			body += strings.Repeat("long\r\n", 7000)
		case 2:
			body += strings.Repeat("far too long\r\n", 7000)
		case 3:
			body = ""
		}
		batch.WriteString(envelope + body + ".\r\n")
	}
	go io.WriteString(d.c, batch.String()+"QUIT\r\n")
	for i := range count {
		d.expect("250 2.1.0")
		d.expect("250 2.1.5")
		d.expect("354")
		d.expect([]string{"250 2.0.0", "250 2.0.0", "552 5.3.4", "250 2.0.0"}[i%4])
	}
	d.expect("221")
	messages := s.relay.taken()
	if len(messages) != count*3/4 {
		t.Fatalf("%d messages were taken", len(messages))
	}
	for i, m := range messages {
		if i%3 == 2 {
			if m.body != "" {
				t.Errorf("an empty body came as %q", m.body)
			}
			continue
		}
		want := fmt.Sprintf("Subject: %d\r\n\r\n.dot\r\n", i/3*4+i%3) + strings.Repeat("long\r\n", i%3*7000)
		if m.body != want {
			t.Errorf("message %d: %d octets, want %d", i, len(m.body), len(want))
		}
	}
}

func TestConnectionsAreLimited(t *testing.T) {
	s := serve(t, func(o *Options) { o.Gatekeep = NewGatekeeper(3, 2) })
	a, b := s.hello(t), s.hello(t)
	s.dial(t).expect("421 4.7.0 Too many connections from 127.0.0.1")
	a.do("QUIT", "221")
	a.closed()
	for range 100 { // the place is given back when the server has closed its end
		d := s.dial(t)
		if got := d.read(); strings.HasPrefix(got, "220") {
			return
		}
	}
	t.Errorf("no place is free after a QUIT, with %v open", b.c.RemoteAddr())
}

func TestFloodsEnd(t *testing.T) {
	for name, f := range map[string]struct {
		command, reply string
		limit          int
	}{
		"NOOP":    {"NOOP", "250", 20},
		"unknown": {"FROB", "500 5.5.2", 5},
		"RCPT":    {"RCPT TO:<x@other.test>", "550 5.1.1", 8},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(o *Options) {
				o.Limits.Commands, o.Limits.Errors, o.Limits.UnknownRecipients = 20, 5, 8
			})
			d := s.hello(t)
			d.do("MAIL FROM:<a@client.test>", "250")
			for range f.limit + 1 {
				d.send(f.command + "\r\n")
			}
			for range f.limit + 1 {
				got := d.read()
				if strings.HasPrefix(got, "421 4.7.0") {
					d.closed()
					return
				}
			}
			d.expect("421 4.7.0")
		})
	}
}

func TestGuessedAddressesTakeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opt := options(t)
		s := servePipe(t, opt)
		d := s.pipe(t)
		d.expect("220")
		d.do("EHLO client.test", "250")
		d.do("MAIL FROM:<a@client.test>", "250")
		for n := range 50 {
			began := time.Now()
			d.do("RCPT TO:<x@other.test>", "550 5.1.1")
			want := time.Duration(min(max(0, n-9), 20)) * 250 * time.Millisecond
			if took := time.Since(began); took != want {
				t.Errorf("refusal %d took %v, want %v", n+1, took, want)
			}
		}
		d.do("RCPT TO:<b@example.test>", "250")
		d.do("RCPT TO:<x@other.test>", "550 5.1.1")
		d.expect("421 4.7.0 Too many refused recipients")
		d.c.Close()
		s.Shutdown(context.Background())
	})
}

func TestATransactionDoesNotGoOnForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := servePipe(t, options(t))
		d := s.pipe(t)
		d.expect("220")
		d.do("EHLO client.test", "250")
		began := time.Now()
		d.do("MAIL FROM:<a@client.test>", "250")
		for range 7 {
			time.Sleep(4 * time.Minute)
			d.do("NOOP", "250")
		}
		d.expect("421 4.4.2")
		if took := time.Since(began); took != 30*time.Minute {
			t.Errorf("it took %v", took)
		}
		d.c.Close()
		s.Shutdown(context.Background())
	})
}

func TestFailedLoginsEnd(t *testing.T) {
	s := serve(t, func(o *Options) { o.Submission = true })
	d := s.hello(t)
	d.startTLS()
	d.do("EHLO client.test", "250")
	for range 3 {
		d.do("AUTH PLAIN AGFwcEBleGFtcGxlLnRlc3QAd3Jvbmc=", "535 5.7.8")
	}
	d.do("AUTH PLAIN AGFwcEBleGFtcGxlLnRlc3QAc2VjcmV0", "421 4.7.0")
	d.closed()
}

func TestShutdownEndsIdleSessionsAndWaitsForOthers(t *testing.T) {
	s := serve(t, nil)
	idle, busy := s.hello(t), s.hello(t)
	busy.body()
	done := make(chan error)
	go func() { done <- s.Shutdown(context.Background()) }()
	idle.expect("421 4.3.2")
	idle.closed()
	busy.do("x\r\n.", "250 2.0.0")
	busy.expect("421 4.3.2")
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := s.Connections(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

func TestSizeLimitIsExact(t *testing.T) {
	const limit = 100_000
	s := serve(t, func(o *Options) { o.Limits.MessageSize = limit })
	d := s.hello(t)
	text := strings.Repeat(strings.Repeat("x", 998)+"\r\n", limit/1000)
	d.body()
	d.do(text+".", "250 2.0.0")
	d.body()
	d.do("y\r\n"+text+".", "552 5.3.4")
	d.do(fmt.Sprintf("MAIL FROM:<a@client.test> SIZE=%d", limit+1), "552 5.3.4")
	d.do("MAIL FROM:<a@client.test> SIZE=99999999999999999999999", "552 5.3.4")
	d.do(fmt.Sprintf("MAIL FROM:<a@client.test> SIZE=%d", limit), "250")
}

func TestLongBodyLinesPass(t *testing.T) {
	s := serve(t, nil)
	d := s.hello(t)
	d.body()
	text := "Subject: x\r\n\r\n" + strings.Repeat("long", 100_000) + "\r\n"
	d.do(text+".", "250")
	if got := s.relay.taken()[0].body; got != text {
		t.Errorf("%d bytes arrived, %d were sent", len(got), len(text))
	}
}

func TestPanicInASessionIsContained(t *testing.T) {
	for name, lines := range map[string][]string{
		"mail":      {"MAIL FROM:<panic@client.test>"},
		"recipient": {"MAIL FROM:<a@client.test>", "RCPT TO:<panic@example.test>"},
		"accept":    {"MAIL FROM:<a@client.test>", "RCPT TO:<a@example.test>", "DATA", "panic\r\n."},
		"login":     {"AUTH PLAIN AGFwcEBleGFtcGxlLnRlc3QAcGFuaWM="},
	} {
		t.Run(name, func(t *testing.T) {
			var log syncedBuffer
			s := serve(t, func(o *Options) {
				o.Submission, o.Log = name == "login", slog.New(slog.NewTextHandler(&log, nil))
			})
			d := s.hello(t)
			if name == "login" {
				d.startTLS()
				d.do("EHLO client.test", "250")
			}
			for _, line := range lines[:len(lines)-1] {
				d.do(line, map[bool]string{true: "354", false: "250"}[line == "DATA"])
			}
			d.do(lines[len(lines)-1], "421 4.3.0 Something went wrong here")
			d.closed()
			s.hello(t).do("NOOP", "250")
			want := `msg="panic in a session" id=`
			if name == "login" {
				want = `msg="panic in a session" client=`
			}
			if got := log.String(); !strings.Contains(got, want) || !strings.Contains(got, "panic="+name+" ") || !strings.Contains(got, "stack=") {
				t.Errorf("the log says\n%s", got)
			}
		})
	}
}

// One that the library recovers from is in the log at the level that is logged, and its client reads ours.
func TestPanicUnderTheLibraryIsContained(t *testing.T) {
	var log syncedBuffer
	s := serve(t, func(o *Options) {
		o.Submission, o.Log = true, slog.New(slog.NewTextHandler(&log, nil))
		o.CanLogin = func(string) bool { panic("certificates") }
	})
	d := s.hello(t)
	d.startTLS()
	d.do("EHLO client.test", "421 4.3.0 Something went wrong here")
	d.closed()
	s.hello(t).do("QUIT", "221")
	s.Shutdown(t.Context()) // the library logs after it has closed
	got := log.String()
	for _, want := range []string{"level=ERROR", "panic=certificates", "client=127.0.0.1:", "stack=\"goroutine"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in the log:\n%s", want, got)
		}
	}
}

// That no connection can be taken, for want of file descriptors as a rule, is nothing to keep quiet about.
func TestTheLibraryIsHeardWhereItMatters(t *testing.T) {
	var log syncedBuffer
	l := libraryLog{slog.New(slog.NewTextHandler(&log, nil))}
	l.Printf("accept error: %s; retrying in %s", "too many open files", time.Second)
	l.Printf("error handling %v: %s", "192.0.2.1:4711", "connection reset by peer")
	if got := log.String(); !strings.Contains(got, "level=ERROR") || !strings.Contains(got, "too many open files; retrying in 1s") || strings.Contains(got, "reset") {
		t.Errorf("the log says\n%s", got)
	}
}

// A syncedBuffer is a log.
type syncedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *syncedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func TestShutdownBeforeServe(t *testing.T) {
	s := New(options(t), &fakeRelay{})
	if err := s.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l); err != nil {
		t.Error(err)
	}
	if _, err := l.Accept(); err == nil {
		t.Error("the listener is left open")
	}
}
