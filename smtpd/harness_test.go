package smtpd

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"relayd/address"
	"relayd/internal/testnet"
	"relayd/message"
	"relayd/relay"
	"relayd/reply"
)

// fakeRelay takes everything for example.test and remembers it.
type fakeRelay struct {
	mu       sync.Mutex
	messages []taken
	open     map[*relay.Transaction]*taken
	fail     error // of Accept
	mailErr  error
	loggedIn bool
}

type taken struct {
	sender, user string
	rcpts        []string
	utf8         bool
	requireTLS   bool
	body         string
}

func (f *fakeRelay) Login(_ context.Context, _ *relay.Client, user, password string) (address.Address, error) {
	if password == "panic" {
		panic("login")
	}
	if password == "banned" {
		return address.Address{}, reply.New(421, "4.7.0", "Too many wrong passwords from there")
	}
	if password != "secret" {
		return address.Address{}, reply.New(535, "5.7.8", "User name or password is wrong")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	a, err := address.Parse(user)
	f.loggedIn = err == nil
	return a, err
}

func (f *fakeRelay) Mail(_ context.Context, tx *relay.Transaction) error {
	if tx.Sender.Local == "panic" {
		panic("mail")
	}
	return f.mailErr
}

func (f *fakeRelay) Recipient(_ context.Context, tx *relay.Transaction, r relay.Recipient) error {
	if r.Address.Local == "panic" {
		panic("recipient")
	}
	if r.Address.Domain != "example.test" && r.Address.Domain != "mx.example.test" && r.Address.Local != "victim" {
		return reply.New(550, "5.1.1", "There is no address <%s> here", r.Address)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pending(tx).rcpts = append(f.pending(tx).rcpts, r.Address.String())
	return nil
}

// pending is what is known of a transaction so far. The caller holds mu.
func (f *fakeRelay) pending(tx *relay.Transaction) *taken {
	if f.open == nil {
		f.open = map[*relay.Transaction]*taken{}
	}
	if f.open[tx] == nil {
		f.open[tx] = &taken{}
	}
	return f.open[tx]
}

func (f *fakeRelay) Accept(_ context.Context, tx *relay.Transaction, m *message.Message) (*reply.Reply, error) {
	if f.fail != nil {
		return nil, f.fail
	}
	body, err := io.ReadAll(m.Reader())
	if err != nil {
		return nil, err
	}
	if strings.Contains(string(body), "panic") {
		panic("accept")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.pending(tx)
	delete(f.open, tx)
	p.sender, p.user, p.body, p.utf8 = tx.Sender.String(), tx.Client.User.String(), string(body), tx.UTF8
	p.requireTLS = tx.RequireTLS
	f.messages = append(f.messages, *p)
	return reply.New(250, "2.0.0", "Ok: queued as %s", tx.ID), nil
}

func (f *fakeRelay) taken() []taken {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]taken(nil), f.messages...)
}

// testServer is a Server and how to reach it.
type testServer struct {
	*Server
	relay *fakeRelay
	addr  string
	pipes *pipeListener
}

func options(t *testing.T) Options {
	limits := DefaultLimits()
	limits.Linger = 50 * time.Millisecond
	limits.BareSilence = 100 * time.Millisecond
	return Options{
		Hostname: "mx.example.test", TLS: &tls.Config{Certificates: []tls.Certificate{testnet.Cert(t, "mx.example.test").TLS}},
		CanLogin: func(string) bool { return true }, SpoolDir: t.TempDir(), Limits: limits,
		Gatekeep: NewGatekeeper(100, 100), Log: discard(),
	}
}

func serve(t *testing.T, change func(*Options)) *testServer {
	opt := options(t)
	if change != nil {
		change(&opt)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeRelay{}
	s := &testServer{Server: New(opt, f), relay: f, addr: l.Addr().String()}
	s.run(t, l)
	return s
}

// run serves on l until the test ends.
func (s *testServer) run(t *testing.T, l net.Listener) {
	done := make(chan error)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Shutdown(ctx)
		if err := <-done; err != nil {
			t.Error("Serve:", err)
		}
	})
}

// servePipe serves over in-memory connections, for tests with a fake clock.
func servePipe(t *testing.T, opt Options) *testServer {
	f := &fakeRelay{}
	s := &testServer{Server: New(opt, f), relay: f, pipes: &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}}
	go s.Serve(s.pipes)
	return s
}

type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// A peer is the client's end.
type peer struct {
	t *testing.T
	c net.Conn
	r *bufio.Reader
}

func (s *testServer) dial(t *testing.T) *peer {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return &peer{t, c, bufio.NewReader(c)}
}

// hello dials, takes the greeting and says EHLO.
func (s *testServer) hello(t *testing.T) *peer {
	t.Helper()
	d := s.dial(t)
	d.expect("220")
	d.do("EHLO client.test", "250")
	return d
}

// login dials, starts TLS and logs in as app@example.test.
func (s *testServer) login(t *testing.T) *peer {
	t.Helper()
	d := s.hello(t)
	d.startTLS()
	d.do("EHLO client.test", "250")
	d.do("AUTH PLAIN AGFwcEBleGFtcGxlLnRlc3QAc2VjcmV0", "235 2.7.0")
	return d
}

func (d *peer) startTLS() {
	d.t.Helper()
	d.do("STARTTLS", "220 2.0.0")
	tc := tls.Client(d.c, &tls.Config{InsecureSkipVerify: true})
	if err := tc.Handshake(); err != nil {
		d.t.Fatal(err)
	}
	d.c, d.r = tc, bufio.NewReader(tc)
}

func (d *peer) send(s string) {
	d.t.Helper()
	if _, err := io.WriteString(d.c, s); err != nil {
		d.t.Fatalf("sending %.40q: %v", s, err)
	}
}

// read returns one reply, its lines joined by newlines.
func (d *peer) read() string {
	d.t.Helper()
	var lines []string
	for {
		line, err := d.r.ReadString('\n')
		if err != nil {
			d.t.Fatalf("reading a reply: %v (so far %q)", err, lines)
		}
		line = strings.TrimSuffix(line, "\r\n")
		lines = append(lines, line)
		if len(line) < 4 || line[3] != '-' {
			return strings.Join(lines, "\n")
		}
	}
}

// expect reads a reply and wants its last line to begin like that.
func (d *peer) expect(want string) string {
	d.t.Helper()
	got := d.read()
	last := got[strings.LastIndexByte(got, '\n')+1:]
	if !strings.HasPrefix(last, want) {
		d.t.Fatalf("got %q, want %q…", got, want)
	}
	return got
}

func (d *peer) do(command, want string) string {
	d.t.Helper()
	d.send(command + "\r\n")
	return d.expect(want)
}

// closed wants nothing but the end of the connection.
func (d *peer) closed() {
	d.t.Helper()
	rest, err := io.ReadAll(d.r)
	if len(rest) > 0 || err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !strings.Contains(err.Error(), "reset") {
		d.t.Fatalf("wanted the connection closed, got %q, %v", rest, err)
	}
}

func discard() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }
