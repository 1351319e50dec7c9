package smtpd

import (
	"bytes"
	"crypto/tls"
	"net"
	"strings"
	"testing"
)

// Whatever a client says in AUTH, under TLS: nothing but replies, and nobody logs in without the password.
func FuzzAuth(f *testing.F) {
	for _, s := range []string{
		"PLAIN AGFwcEBleGFtcGxlLnRlc3QAc2VjcmV0", "PLAIN\r\nAGFwcEBleGFtcGxlLnRlc3QAc2VjcmV0", "PLAIN AGFwcEBleGFtcGxlLnRlc3QAd3Jvbmc=",
		"LOGIN\r\nYXBwQGV4YW1wbGUudGVzdA==\r\nc2VjcmV0", "LOGIN YXBwQGV4YW1wbGUudGVzdA==\r\n*", "PLAIN =", "PLAIN *", "LOGIN =\r\n=\r\n=", "CRAM-MD5", "",
		"PLAIN\r\nMAIL FROM:<app@example.test>", "PLAIN " + strings.Repeat("A", 13000), "LOGIN\r\n" + strings.Repeat("A", 13000) + "\r\n*", "PLAIN\r\nAA\nAA",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		r := &fakeRelay{}
		conn := &scriptedConn{in: bytes.NewReader([]byte("EHLO x\r\nAUTH " + string(said) + "\r\nMAIL FROM:<app@example.test>\r\n")), closed: make(chan struct{})}
		s := New(fuzzOptions(true), r)
		s.smtp.Serve(underTLS{&listener{Listener: &oneConn{conn: conn}, srv: s}})
		<-conn.closed
		out := conn.out.String()
		for line := range strings.SplitSeq(strings.TrimSuffix(out, "\r\n"), "\r\n") {
			if !replyLine.MatchString(line) && !strings.HasPrefix(line, "334") {
				t.Errorf("told %q", line)
			}
		}
		if in := strings.Contains(out, "\r\n235 "); in != r.loggedIn || !in && strings.Contains(out, "\r\n250 2.1.0") {
			t.Errorf("%q: logged in: %v, told %q", said, r.loggedIn, out)
		}
	})
}

// underTLS has the server believe that its connections are under TLS.
type underTLS struct{ net.Listener }

func (l underTLS) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		c.(*gate).tls = &tls.ConnectionState{}
	}
	return c, err
}
