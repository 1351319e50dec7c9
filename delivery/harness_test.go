package delivery

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"relayd/address"
	"relayd/dns"
	"relayd/internal/sink"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A world is what a client sees: names, and servers at addresses of documentation networks. Its
// maps are filled before the client is used.
type world struct {
	mx   map[string][]dns.MX // by domain; a domain without is ErrNoData
	ip   map[string][]string // by host; one without is ErrNoData
	errs map[string]error    // by name, for MX and IP alike
	conf error               // of Confirm
	at   map[string]string   // "192.0.2.1:25" → where its server really listens; else refused
	log  bytes.Buffer

	foreign []netip.Addr // sources that are not this machine's

	mu     sync.Mutex // guards the rest
	dialed []string
	from   []netip.Addr // of each that was dialed
	open   int          // connections
}

var errRefused = errors.New("connection refused")

func newWorld() *world {
	return &world{mx: map[string][]dns.MX{}, ip: map[string][]string{}, errs: map[string]error{}, at: map[string]string{}}
}

func (w *world) MX(_ context.Context, domain string) (dns.Answer[dns.MX], error) {
	switch records := w.mx[domain]; {
	case w.errs[domain] != nil:
		return dns.Answer[dns.MX]{}, w.errs[domain]
	case records == nil:
		return dns.Answer[dns.MX]{}, &dns.Error{Name: domain, Type: "MX", Kind: dns.NoData}
	default:
		return dns.Answer[dns.MX]{Records: records}, nil
	}
}

func (w *world) IP(_ context.Context, host, network string) (dns.Answer[netip.Addr], error) {
	if err := w.errs[host]; err != nil {
		return dns.Answer[netip.Addr]{}, err
	}
	var a dns.Answer[netip.Addr]
	for _, s := range w.ip[host] {
		if ip := netip.MustParseAddr(s); network == "ip" || (network == "ip6") == ip.Is6() {
			a.Records = append(a.Records, ip)
		}
	}
	if len(a.Records) == 0 {
		return a, &dns.Error{Name: host, Type: "A", Kind: dns.NoData}
	}
	return a, nil
}

func (w *world) Confirm(context.Context, string) error { return w.conf }

// dial takes the place of the network.
func (w *world) dial(ctx context.Context, from netip.Addr, network, addr string) (net.Conn, error) {
	w.mu.Lock()
	w.dialed = append(w.dialed, addr)
	w.from = append(w.from, from)
	w.mu.Unlock()
	if slices.Contains(w.foreign, from) {
		return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("bind", syscall.EADDRNOTAVAIL)}
	}
	real, ok := w.at[addr]
	if !ok {
		return nil, errRefused
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, real)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.open++
	w.mu.Unlock()
	return &countedConn{Conn: conn, w: w}, nil
}

type countedConn struct {
	net.Conn
	w    *world
	once sync.Once
}

func (c *countedConn) Close() error {
	c.once.Do(func() {
		c.w.mu.Lock()
		defer c.w.mu.Unlock()
		c.w.open--
	})
	return c.Conn.Close()
}

// host puts a server at an address and gives it a name.
func (w *world) host(name, ip string, s *sink.Sink) {
	w.ip[name] = append(w.ip[name], ip)
	if s != nil {
		w.at[net.JoinHostPort(ip, "25")] = s.Addr()
	}
}

// client makes a client in w. When the test ends, every connection must be closed.
func (w *world) client(t testing.TB, change func(*Options)) *Client {
	t.Helper()
	opt := Options{
		Hostname: "relay.test", Port: 25, Resolver: w,
		Log: slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&opt)
	}
	c := New(opt)
	c.dial = w.dial
	t.Cleanup(func() {
		c.Close()
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.open != 0 {
			t.Errorf("%d connections are still open", w.open)
		}
	})
	return c
}

func startSink(t testing.TB, opt sink.Options) *sink.Sink {
	t.Helper()
	s, err := sink.Start(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// one is a world with one mail exchanger for example.org, and its client.
func one(t testing.TB, opt sink.Options) (*sink.Sink, *Client) {
	t.Helper()
	s := startSink(t, opt)
	w := newWorld()
	w.mx["example.org"] = []dns.MX{{Host: "mx.test", Preference: 10}}
	w.host("mx.test", "192.0.2.1", s)
	return s, w.client(t, nil)
}

var example = Route{Domain: "example.org"}

// script answers one stage, always the same; of rcpt only for the address, unless that is "".
func script(stage, arg, answer string) func(string, string, int) string {
	return func(s, a string, _ int) string {
		if s == stage && (arg == "" || a == arg) {
			return answer
		}
		return ""
	}
}

const text = "Subject: test\r\n\r\n.hidden\r\n..\r\ntext\r\n"

func message(body string, recipients ...string) *Message {
	m := &Message{
		ReturnPath: address.Address{Local: "sender", Domain: "relay.test"}, Size: int64(len(body)),
		Body: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil },
	}
	for _, r := range recipients {
		a, err := address.Parse(r)
		if err != nil {
			panic(err)
		}
		m.Recipients = append(m.Recipients, Recipient{Address: a})
	}
	return m
}

// codes are the results in short: "250 550".
func codes(results []Result) string {
	var b strings.Builder
	for _, r := range results {
		b.WriteString(" " + r.Reply.String()[:3])
	}
	return strings.TrimSpace(b.String())
}

// within fails the test if f does not return. It is for what would otherwise block for ever, and
// is no measure of time.
func within(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("it blocks")
	}
}
