package relay

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relayd/address"
	"relayd/delivery"
	"relayd/dns"
	"relayd/internal/sink"
	"relayd/internal/testnet"
	"relayd/queue"
)

// TestHangingDestinationIsDeferredSoon: hundreds of messages for a server that hangs after EHLO do
// not each wait for their own time-out, and what the admin asks for is tried all the same.
func TestHangingDestinationIsDeferredSoon(t *testing.T) {
	s, err := sink.Start(sink.Options{Reply: func(stage, _ string, _ int) string {
		return map[string]string{"mail": "<hang>"}[stage]
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	q := openQueue(t, s)
	const messages = 300
	for n := range messages {
		e := &queue.Envelope{
			ID: fmt.Sprintf("HANG%04d", n), Received: time.Now(),
			Recipients: []queue.Recipient{{Address: address.Address{Local: "a", Domain: "sick.test"}}},
		}
		if err := q.Add(e, strings.NewReader(hello)); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, func() bool { return q.Counts().Deferred >= messages })
	if n := s.Connections(); n > 10 {
		t.Errorf("%d connections for %d messages", n, messages)
	}
	for _, g := range q.Groups() {
		if g.Name != "mailhost.test" || g.Window != 1 {
			t.Errorf("%+v", g)
		}
	}
	before := s.Connections()
	if err := q.Retry("HANG0100"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return s.Connections() > before })
	waitFor(t, func() bool { return q.Counts().Deferred > messages })
	e, err := q.Get("HANG0100")
	if err != nil {
		t.Fatal(err)
	}
	if h := e.Recipients[0].History; len(h) != 2 || !strings.Contains(h[0].Reply, " ago") || strings.Contains(h[1].Reply, " ago") {
		t.Errorf("%+v", h)
	}
}

// openQueue runs a queue whose mail to sick.test goes to s, with a second of patience.
func openQueue(t *testing.T, s *sink.Sink) *queue.Queue {
	t.Helper()
	h := build(t, "", exampleTest)
	addr := netip.MustParseAddrPort(s.Addr())
	names := testnet.NewDNS(t, "sick.test. 60 IN MX 10 a.mailhost.test.\na.mailhost.test. 60 IN A 127.0.0.1\n")
	times := delivery.DefaultTimes()
	times.Command = time.Second
	c := delivery.New(delivery.Options{
		Hostname: "mx.example.test", Port: int(addr.Port()), Family: "ipv4", Times: times,
		Resolver: dns.New(dns.Options{Servers: []string{names.Addr()}}),
	})
	t.Cleanup(c.Close)
	out := NewOutbound(h.Options, c)
	store, err := queue.OpenStore(queue.StoreOptions{Dir: filepath.Join(h.dir, "queue2"), Group: out.Group, Log: h.Log})
	if err != nil {
		t.Fatal(err)
	}
	q := queue.New(queue.Options{
		Hostname: "mx.example.test", Lifetime: time.Hour, Workers: 100, PerGroup: 20, Grace: time.Second, Sign: h.Sign, Log: h.Log,
	}, store, out)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { q.Run(ctx); close(done) }()
	t.Cleanup(func() { stop(); <-done })
	return q
}

// waitFor waits until f holds.
func waitFor(t testing.TB, f func() bool) {
	t.Helper()
	for end := time.Now().Add(50 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come")
		}
	}
}
