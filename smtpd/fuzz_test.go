package smtpd

import (
	"bytes"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"
)

// A scriptedConn is a client that says everything at once and keeps what it is told.
type scriptedConn struct {
	in     *bytes.Reader
	out    bytes.Buffer
	closed chan struct{}
}

func (c *scriptedConn) Read(p []byte) (int, error)       { return c.in.Read(p) }
func (c *scriptedConn) Write(p []byte) (int, error)      { return c.out.Write(p) }
func (c *scriptedConn) Close() error                     { close(c.closed); return nil }
func (c *scriptedConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *scriptedConn) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)} }
func (c *scriptedConn) SetDeadline(time.Time) error      { return nil }
func (c *scriptedConn) SetReadDeadline(time.Time) error  { return nil }
func (c *scriptedConn) SetWriteDeadline(time.Time) error { return nil }

var replyLine = regexp.MustCompile(`^[2345][0-9][0-9][ -][ -~]*$`)

// Whatever a client sends: no panic, nothing but SMTP replies, and no more messages than there
// are true ends of data in it.
func FuzzSession(f *testing.F) {
	for _, s := range []string{
		"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@example.test>\r\nDATA\r\nhi\r\n.\r\nQUIT\r\n",
		"HELO x\r\nMAIL FROM:<> SIZE=1 BODY=8BITMIME\r\nRCPT TO:<postmaster>\r\nDATA\r\n\r\n..\r\n.\r\n",
		"EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@example.test>\r\nDATA\r\nhi\n.\nMAIL FROM:<x@y>\r\n.\r\n",
		"EHLO x\r\nBDAT 10 LAST\r\n0123456789NOOP\r\n", "STARTTLS\r\nEHLO y\r\n", "\x00\xff\r\n", "AUTH PLAIN AAAA\r\n",
		"EHLO x\r\nMAIL FROM:<\"a> b\"@c.test> RET=HDRS\r\nRCPT TO:<\"x\\\"y\"@example.test> NOTIFY=NEVER\r\n", "GET / HTTP/1.1\r\n\r\n",
		"EHLO x\r\nRSET\r\nNOOP x\r\nVRFY y\r\nHELP\r\nEXPN z\r\n" + strings.Repeat("x", 5000) + "\r\n",
	} {
		f.Add([]byte(s), false)
		f.Add([]byte(s), true)
	}
	f.Fuzz(func(t *testing.T, input []byte, submission bool) {
		opt := fuzzOptions(submission)
		relay := &fakeRelay{}
		s := New(opt, relay)
		conn := &scriptedConn{in: bytes.NewReader(input), closed: make(chan struct{})}
		l := &oneConn{conn: conn}
		s.Serve(l)
		<-conn.closed
		for line := range strings.SplitSeq(strings.TrimSuffix(conn.out.String(), "\r\n"), "\r\n") {
			if line != "" && !replyLine.MatchString(line) {
				t.Errorf("told %q", line)
			}
		}
		ends := bytes.Count(input, []byte("\r\n.\r\n"))
		for _, m := range relay.taken() {
			if bare := strings.ReplaceAll(m.body, "\r\n", ""); strings.ContainsAny(bare, "\r\n") {
				t.Errorf("a body with a bare CR or LF was taken: %q", m.body)
			}
		}
		if n := len(relay.taken()); n > ends {
			t.Errorf("%d messages of %d ends", n, ends)
		}
	})
}

// A oneConn is a listener with a single client.
type oneConn struct {
	conn net.Conn
	done bool
}

func (l *oneConn) Accept() (net.Conn, error) {
	if l.done {
		return nil, net.ErrClosed
	}
	l.done = true
	return l.conn, nil
}
func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

// The scanner against the plain definition, cut in two anywhere: the end is the first CR LF . CR LF, a
// CR LF before the body included; bare is what is left of CR and LF without their pairs, or an end with
// NULs; and the body is what stands before the end, without a dot at the start of each line.
func FuzzBodyScanner(f *testing.F) {
	for _, form := range endForms {
		f.Add([]byte("a"+form+"b\r\n.\r\n"), 2)
	}
	f.Add([]byte(".\r\n"), 1)
	f.Add([]byte("...\r\n.a\r\n..\r\n\r\n.\x00b\r\n\x00.c\r\n.\r\n"), 10)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		cut = min(max(cut, 0), len(b))
		s, n, kept := scanParts(b[:cut], b[cut:])
		whole := "\r\n" + string(b)
		i := strings.Index(whole, "\r\n.\r\n")
		if s.ended != (i >= 0) || s.ended && n != i+3 {
			t.Fatalf("%q: end=%v n=%d, want the end at %d", b, s.ended, n, i+3)
		}
		text := whole[2:]
		if s.ended {
			text = text[:n]
		} else {
			text = strings.TrimSuffix(text, "\r") // its LF may be on the way
		}
		bare := strings.ReplaceAll(text, "\r\n", "")
		if s.bare != (strings.ContainsAny(bare, "\r\n") || nulEnd.MatchString("\r\n"+text)) {
			t.Fatalf("%q: bare=%v", b, s.bare)
		}
		want := strings.ReplaceAll(whole[:max(i, 0)]+"\r\n", "\r\n.", "\r\n")[2:]
		if i == 0 {
			want = ""
		}
		if s.ended && !s.bare && kept != want {
			t.Fatalf("%q: the body is %q, want %q", b, kept, want)
		}
	})
}

// scanParts scans a body that comes in parts: n octets of it, of which kept are to be kept.
func scanParts(parts ...[]byte) (s *bodyScanner, n int, kept string) {
	s = new(bodyScanner)
	s.reset()
	for _, part := range parts {
		part = bytes.Clone(part)
		k, m := s.scan(part)
		n, kept = n+k, kept+string(part[:m])
	}
	return s, n, kept
}

var nulEnd = regexp.MustCompile(`\r\n(\x00+\.\x00*|\.\x00+)\r\n`)

func fuzzOptions(submission bool) Options {
	limits := DefaultLimits()
	limits.MessageSize = 10_000
	return Options{Hostname: "mx.example.test", Submission: submission, CanLogin: func(string) bool { return true },
		Limits: limits, Gatekeep: NewGatekeeper(10, 10), SpoolDir: "/nonexistent", Log: discard()}
}
