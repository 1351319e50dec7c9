package delivery

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"
)

// scripted is a connection to a server that says replies, whatever it is told; with answer set, what
// that makes of each line.
type scripted struct {
	replies string
	answer  func(line string) string // "" for none
	sent    bytes.Buffer
	closed  bool
}

func (c *scripted) Read(p []byte) (int, error) {
	if c.replies == "" {
		return 0, io.EOF
	}
	// A line at a time, as from a server that answers in turn.
	n := copy(p, c.replies[:max(1, strings.IndexByte(c.replies, '\n')+1)])
	c.replies = c.replies[n:]
	return n, nil
}

func (c *scripted) Write(p []byte) (int, error) {
	if c.answer != nil {
		for line := range strings.Lines(string(p)) {
			if r := c.answer(strings.TrimRight(line, "\r\n")); r != "" {
				c.replies += r + "\r\n"
			}
		}
	}
	return c.sent.Write(p)
}

func (c *scripted) Close() error                     { c.closed = true; return nil }
func (c *scripted) LocalAddr() net.Addr              { return nil }
func (c *scripted) RemoteAddr() net.Addr             { return nil }
func (c *scripted) SetDeadline(time.Time) error      { return nil }
func (c *scripted) SetReadDeadline(time.Time) error  { return nil }
func (c *scripted) SetWriteDeadline(time.Time) error { return nil }

// session is one over c that is past EHLO.
func (c *scripted) session(extensions ...string) *session {
	s := &session{conn: c, times: DefaultTimes(), opened: time.Now(), ext: map[string]string{}}
	s.peer = target{name: "mx.test", addr: netip.MustParseAddrPort("192.0.2.1:25")}
	for _, e := range extensions {
		s.ext[e] = ""
	}
	s.buffer()
	return s
}
