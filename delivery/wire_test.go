package delivery

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"relayd/internal/sink"
)

// bodies are messages of lines with CRLF, rich in dots; the last line may lack its end.
var bodies = rapid.Custom(func(t *rapid.T) string {
	line := rapid.OneOf(
		rapid.SampledFrom([]string{"", ".", "..", ".x", "x.", ". ", "\x00", "\x00\x00.", "\xff\xfe", "QUIT", "\t."}),
		rapid.StringMatching(`[.a\x00-\x09 -~\x80-\xff]{0,100}`),
		rapid.Map(rapid.IntRange(4000, 9000), func(n int) string { return strings.Repeat(".", n) }),
	)
	lines := rapid.SliceOf(line).Draw(t, "lines")
	for i, l := range lines {
		lines[i] = strings.NewReplacer("\r", "", "\n", "").Replace(l)
	}
	return strings.Join(lines, "\r\n") + rapid.SampledFrom([]string{"", "\r\n"}).Draw(t, "end")
})

// chunked reads s in pieces of the given sizes, again and again.
type chunked struct {
	s     string
	sizes []int
	n     int
}

func (c *chunked) Read(p []byte) (int, error) {
	if c.s == "" {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), c.sizes[c.n%len(c.sizes)])], c.s)
	c.s, c.n = c.s[n:], c.n+1
	return n, nil
}

// What arrives is what was sent, with an end for its last line.
func TestNoByteChanges(t *testing.T) {
	s, c := one(t, sink.Options{})
	c.opt.Times.Messages = 1 << 30
	taken := 0
	rapid.Check(t, func(t *rapid.T) {
		body := bodies.Draw(t, "body")
		sizes := rapid.SliceOfN(rapid.IntRange(1, 50), 1, 5).Draw(t, "chunks")
		m := message(body, "a@example.org")
		m.Size = rapid.Int64Range(0, int64(len(body))).Draw(t, "size") // which nobody should rely on
		m.Body = func() (io.ReadCloser, error) { return io.NopCloser(&chunked{s: body, sizes: sizes}), nil }
		if r := c.Deliver(context.Background(), example, m)[0]; r.Reply.Code != 250 {
			t.Fatal(r.Reply.Error())
		}
		want := body
		if body != "" && !strings.HasSuffix(body, "\r\n") {
			want += "\r\n"
		}
		if got := string(s.Messages()[taken].Data); got != want {
			t.Fatalf("got  %q\nwant %q", got, want)
		}
		taken++
	})
}

// Bare CR and LF should not come here. If they do, the message ends where it ends for everybody.
func TestNoEndOfMessageCanBeForged(t *testing.T) {
	for body, want := range map[string]string{
		"a\n.\r\nMAIL FROM:<x>\r\n": "a\n..\r\nMAIL FROM:<x>\r\n.\r\n",
		"a\n.\nb":                   "a\n..\nb\r\n.\r\n",
		"a\r.\r":                    "a\r..\r\r\n.\r\n",
		"a\n":                       "a\n\r\n.\r\n", // no server takes LF.CRLF for the end
		"\r\n.\r\n":                 "\r\n..\r\n.\r\n",
		"":                          ".\r\n",
		".":                         "..\r\n.\r\n",
		"\n":                        "\n\r\n.\r\n",
	} {
		for _, wrap := range []func(io.Reader) io.Reader{iotest.OneByteReader, iotest.HalfReader, func(r io.Reader) io.Reader { return r }} {
			var out bytes.Buffer
			d := newDotWriter(bufio.NewWriter(&out), func() {})
			if _, err := io.Copy(d, wrap(strings.NewReader(body))); err != nil {
				t.Fatal(err)
			}
			if err := d.end(); err != nil || out.String() != want {
				t.Errorf("%q became %q", body, out.String())
			}
		}
	}
}

func TestReplies(t *testing.T) {
	for in, want := range map[string]string{
		"250 ok\r\n":                             "250 ok",
		"250 ok\n":                               "250 ok",
		"250\r\n":                                "250 ",
		"250-\r\n250 \r\n":                       "250 ",
		"550-5.1.1 no\r\n550 5.1.1 user\r\n":     "550 5.1.1 no user",
		"550-no\r\n550 5.1.1 user\r\n":           "550 5.1.1 no user",
		"250-a\r\n550 5.1.1 b\r\n":               "550 5.1.1 a b", // the last line decides
		"550 4.1.1 class of another\r\n":         "550 4.1.1 class of another",
		"250 \xff\x00\x1b[0m\x7f\r\n":            "250 ???[0m?",
		"":                                       "!",
		"\r\n":                                   "!",
		"25":                                     "!",
		"25 ok\r\n":                              "!",
		"199 ok\r\n":                             "!",
		"600 ok\r\n":                             "!",
		"250_ok\r\n":                             "!",
		"+25 ok\r\n":                             "!",
		"250 no end":                             "!",
		"250-no more\r\n":                        "!",
		strings.Repeat("250-x\r\n", 300):         "!",
		"250 " + strings.Repeat("x", 5000):       "!",
		"250 " + strings.Repeat("x", 100) + "\r": "!",
	} {
		r, err := readReply(bufio.NewReaderSize(strings.NewReader(in), maxReplyLine))
		got := "!"
		if err == nil {
			got = r.String()
		}
		if got != want {
			t.Errorf("%.40q is %q", in, got)
		}
	}
}

func FuzzReply(f *testing.F) {
	for _, seed := range []string{"250 ok\r\n", "250-a\r\n250 b\r\n", "550 5.1.1 x\n", "99", "", "250-" + strings.Repeat("x", 5000)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		in := &counting{r: bytes.NewReader(wire)}
		r, err := readReply(bufio.NewReaderSize(in, maxReplyLine))
		if in.n > maxReplyLine*(maxReplyLines+1) {
			t.Errorf("%d bytes were read", in.n)
		}
		switch {
		case err != nil && r != nil:
			t.Error("a reply and an error")
		case err != nil:
		case r.Code < 200 || r.Code > 599 || len(r.Text) > 3*maxReplyText || strings.ContainsAny(r.Text, "\x00\r\x1b\x7f"):
			t.Errorf("%+v", r)
		case r.Enhanced != "" && int(r.Enhanced[0]-'0') != r.Code/100:
			t.Errorf("%+v", r)
		}
	})
}

type counting struct {
	r io.Reader
	n int
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

// Whatever a server says, everybody gets a result, a message counts as delivered only after a 2xx
// that could answer its end, and the password stays where it belongs.
func FuzzSession(f *testing.F) {
	const fine = "220 hi\r\n250-mx\r\n250 PIPELINING\r\n250 ok\r\n250 ok\r\n550 5.1.1 no\r\n354 go\r\n250 done\r\n"
	f.Add([]byte(fine), false)
	f.Add([]byte(strings.Replace(fine, "PIPELINING", "DSN", 1)), false)
	f.Add([]byte(strings.Replace(fine, "PIPELINING", "LIMITS RCPTMAX=1 MAILMAX=1", 1)), false)
	f.Add([]byte("220 hi\r\n500 what\r\n250 mx\r\n250 ok\r\n452 many\r\n250 ok\r\n354 go\r\n421 bye\r\n"), false)
	f.Add([]byte("220 hi\r\n250-mx\r\n250 STARTTLS\r\n220 go\r\n\x16\x03\x03\x00\x02hi"), false)
	f.Add([]byte("220 hi\r\n250-mx\r\n250 AUTH PLAIN\r\n"), true)
	f.Add([]byte(fine+"250 ok\r\n"), false)
	f.Fuzz(func(t *testing.T, wire []byte, login bool) {
		w := newWorld()
		w.host("mx.test", "192.0.2.1", nil)
		c := New(Options{Hostname: "relay.test", Port: 25, Resolver: w})
		defer c.Close()
		var conns []*scripted
		c.dial = func(context.Context, netip.Addr, string, string) (net.Conn, error) {
			if len(conns) > 5 {
				return nil, errRefused
			}
			conn := &scripted{replies: string(wire)}
			conns = append(conns, conn)
			return conn, nil
		}
		route := Route{Domain: "example.org", Hosts: []string{"mx.test"}}
		if login {
			route.User, route.Password = "me", "open sesame"
		}
		results := c.Deliver(context.Background(), route, message(text, "a@example.org", "b@example.org"))
		c.Close()
		ends := 0
		for _, conn := range conns {
			if !conn.closed {
				t.Error("a connection is left open")
			}
			ends += strings.Count(conn.sent.String(), "\r\n.\r\n")
			if strings.Contains(conn.sent.String(), b64("\x00me\x00open sesame")) {
				t.Error("the password is sent in the clear")
			}
		}
		for i, r := range results {
			switch {
			case r.Reply == nil:
				t.Errorf("no result for recipient %d", i)
			case r.Reply.Code/100 == 3:
				t.Errorf("%v is no result", r.Reply)
			case r.Reply.Code/100 == 2 && ends == 0:
				t.Errorf("delivered without a message: %v", r.Reply)
			}
		}
	})
}

// A server that does not want all of a message says so before it closes.
func TestLastWordBeforeTheEnd(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		r := bufio.NewReader(conn)
		fmt.Fprint(conn, "220 hi\r\n")
		for _, answer := range []string{"250 mx", "250 ok", "250 ok", "354 go"} {
			if _, err := r.ReadString('\n'); err != nil {
				return
			}
			fmt.Fprint(conn, answer+"\r\n")
		}
		fmt.Fprint(conn, "552 5.3.4 too large\r\n")
		io.CopyN(io.Discard, r, 1<<20)
		conn.(*net.TCPConn).CloseRead() // the rest is reset
		io.Copy(io.Discard, conn)
	}()
	c := New(Options{Hostname: "relay.test"})
	defer c.Close()
	m := message(strings.Repeat("x", 16<<20), "a@example.org")
	r := c.Deliver(t.Context(), Route{Domain: "example.org", Hosts: []string{l.Addr().String()}}, m)[0]
	if r.Reply.Code != 552 {
		t.Errorf("%v", r.Reply.Error())
	}
	c.Close()
	<-done
}
