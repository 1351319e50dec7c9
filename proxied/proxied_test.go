package proxied

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	v4  = "PROXY TCP4 192.0.2.7 198.51.100.1 4711 25\r\n"
	sig = "\r\n\r\n\x00\r\nQUIT\n"
)

var (
	v2  = sig + "\x21\x11\x00\x0c\xc0\x00\x02\x07\xc6\x33\x64\x01\x12\x67\x00\x19"
	six = sig + "\x21\x21\x00\x24" + string(netip.MustParseAddr("2001:db8::7").AsSlice()) + string(netip.MustParseAddr("2001:db8::1").AsSlice()) + "\x12\x67\x00\x19"
)

// A door is a Listener and how to reach it.
type door struct {
	*Listener
	t *testing.T
}

func open(t *testing.T, from ...string) *door {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var nets []netip.Prefix
	for _, p := range from {
		nets = append(nets, netip.MustParsePrefix(p))
	}
	d := &door{Listen(l, nets, slog.New(slog.DiscardHandler)), t}
	t.Cleanup(func() { d.Close() })
	return d
}

func (d *door) dial(text string) net.Conn {
	d.t.Helper()
	c, err := net.Dial("tcp", d.Addr().String())
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		d.t.Fatal(err)
	}
	return c
}

func TestWhoIsThere(t *testing.T) {
	for name, c := range map[string]struct {
		from, header, client string // client: "" for refused, "peer" for the other end itself
	}{
		"version 1":                   {"127.0.0.0/8", v4, "192.0.2.7:4711"},
		"version 1, IPv6":             {"127.0.0.0/8", "PROXY TCP6 2001:db8::7 2001:db8::1 4711 25\r\n", "[2001:db8::7]:4711"},
		"version 1, unknown":          {"127.0.0.0/8", "PROXY UNKNOWN\r\n", "peer"},
		"version 2":                   {"127.0.0.0/8", v2, "192.0.2.7:4711"},
		"version 2, IPv6":             {"127.0.0.1/32", six, "[2001:db8::7]:4711"},
		"version 2, the proxy's own":  {"127.0.0.0/8", sig + "\x20\x00\x00\x00", "peer"},
		"no header":                   {"127.0.0.0/8", "EHLO client.test\r\nNOOP NOOP\r\n", ""},
		"half of one":                 {"127.0.0.0/8", "PROXY TCP4 192.0.2.7\r\n", ""},
		"no address":                  {"127.0.0.0/8", "PROXY TCP4 0.0.0.0 198.51.100.1 4711 25\r\n", ""},
		"a name":                      {"127.0.0.0/8", "PROXY TCP4 localhost 198.51.100.1 4711 25\r\n", ""},
		"without an end":              {"127.0.0.0/8", "PROXY TCP4 " + strings.Repeat("1", 2*maxHeader), ""},
		"version 2 of 64 KiB":         {"127.0.0.0/8", sig + "\x21\x11\xff\xff" + strings.Repeat("x", 1<<16), ""},
		"from elsewhere":              {"192.0.2.0/24", "", "peer"},
		"from elsewhere, with header": {"192.0.2.0/24", v4, "peer"},
	} {
		t.Run(name, func(t *testing.T) {
			d := open(t, c.from)
			ordinary := c.from == "192.0.2.0/24"
			conn := d.dial(c.header + "EHLO x\r\n")
			if c.client == "" {
				conn.(*net.TCPConn).CloseWrite()
				if b, err := io.ReadAll(conn); len(b) > 0 || err != nil && !strings.Contains(err.Error(), "reset") {
					t.Errorf("%q, %v", b, err)
				}
				return
			}
			got, err := d.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer got.Close()
			want := c.client
			if want == "peer" {
				want = conn.LocalAddr().String()
			}
			if a := got.RemoteAddr().String(); a != want {
				t.Errorf("the client is %s, want %s", a, want)
			}
			conn.(*net.TCPConn).CloseWrite()
			text := "EHLO x\r\n"
			if ordinary {
				text = c.header + text
			}
			if b, err := io.ReadAll(got); err != nil || string(b) != text {
				t.Errorf("then came %q, %v; want %q", b, err, text)
			}
		})
	}
}

func TestASilentProxyHoldsUpNobody(t *testing.T) {
	d := open(t, "127.0.0.0/8")
	silent := d.dial("PROXY TCP4")
	d.dial(v4)
	c, err := d.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := d.Close(); err != nil { // which does not wait for the silent one either
		t.Error(err)
	}
	if b, err := io.ReadAll(silent); len(b) > 0 || err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := d.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// A trap is a connection over which the parser panics.
type trap struct{ stream }

func (trap) Read([]byte) (int, error)        { panic("trapped") }
func (trap) SetReadDeadline(time.Time) error { return nil }
func (t trap) Close() error                  { return t.Conn.Close() }

// trapped is a listener whose first connection is a trap.
type trapped struct {
	net.Listener
	once sync.Once
}

func (l *trapped) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.once.Do(func() { c = trap{stream{Conn: c}} })
	}
	return c, err
}

func TestAPanicOverAHeaderEndsOneConnection(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	d := &door{Listen(&trapped{Listener: tcp}, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, slog.New(slog.NewTextHandler(&log, nil))), t}
	t.Cleanup(func() { d.Close() })
	if b, err := io.ReadAll(d.dial("")); len(b) > 0 || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	d.dial(v4)
	c, err := d.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	d.Close()
	if got := log.String(); !strings.Contains(got, "level=ERROR") || !strings.Contains(got, "panic=trapped") || !strings.Contains(got, "stack=") {
		t.Errorf("the log says\n%s", got)
	}
}

// A stream is a connection from which these bytes come.
type stream struct {
	net.Conn
	io.Reader
}

func (s stream) Read(p []byte) (int, error) { return s.Reader.Read(p) }
func (s stream) RemoteAddr() net.Addr       { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// FuzzHeader: whatever comes, the client has an address, and what stands behind the header is the end of
// what was sent.
func FuzzHeader(f *testing.F) {
	for _, s := range []string{v4, v2, six, "PROXY UNKNOWN\r\nEHLO x\r\n", sig + "\x20\x00\x00\x00", sig + "\x21\x13\x00\x0c", sig + "\x21\x31\x00\xd8" + strings.Repeat("x", 216), "EHLO x\r\n", "PROXY TCP6 ::ffff:1.2.3.4 :: 1 2\r\n"} {
		f.Add([]byte(s))
		f.Add([]byte(s + "EHLO x\r\n"))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := read(stream{Reader: bytes.NewReader(data)})
		if err != nil {
			return
		}
		ap, err := netip.ParseAddrPort(c.RemoteAddr().String())
		if err != nil || !ap.Addr().IsValid() || ap.Addr().IsUnspecified() {
			t.Errorf("%q is from %v", data, c.RemoteAddr())
		}
		if rest, err := io.ReadAll(c); err != nil || !bytes.HasSuffix(data, rest) || len(rest) == len(data) {
			t.Errorf("behind %q stands %q, %v", data, rest, err)
		}
	})
}
