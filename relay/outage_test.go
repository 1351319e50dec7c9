package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	miekg "github.com/miekg/dns"

	"relayd/address"
	"relayd/delivery"
	"relayd/dns"
	"relayd/internal/sink"
	"relayd/internal/testnet"
	"relayd/queue"
)

// A flaky resolver asks a server; while it is down it leaves half of the domains without an answer
// for as long as a lookup may take, by a clock that a test can turn.
type flaky struct {
	*dns.Resolver
	down  atomic.Bool
	asked atomic.Int64 // while it was down
}

func (f *flaky) silence(ctx context.Context, name string) error {
	if !f.down.Load() {
		return nil
	}
	f.asked.Add(1)
	if !strings.HasPrefix(name, "silent") {
		return nil // the server itself says no
	}
	select {
	case <-time.After(10 * time.Second):
	case <-ctx.Done():
	}
	return &dns.Error{Name: name, Type: "MX", Kind: dns.Temporary, Cause: errors.New("nobody answers")}
}

func (f *flaky) MX(ctx context.Context, domain string) (dns.Answer[dns.MX], error) {
	if err := f.silence(ctx, domain); err != nil {
		return dns.Answer[dns.MX]{}, err
	}
	return f.Resolver.MX(ctx, domain)
}

func (f *flaky) IP(ctx context.Context, host, network string) (dns.Answer[netip.Addr], error) {
	if err := f.silence(ctx, host); err != nil {
		return dns.Answer[netip.Addr]{}, err
	}
	return f.Resolver.IP(ctx, host, network)
}

func (f *flaky) Confirm(ctx context.Context, domain string) error {
	if err := f.silence(ctx, domain); err != nil {
		return err
	}
	return f.Resolver.Confirm(ctx, domain)
}

const outageDomains = 10

func outageDomain(n int) string {
	return fmt.Sprintf("%s%d.test", []string{"silent", "refused"}[n%2], n%outageDomains)
}

// outageZone is where they are: some share a mail exchanger, and some have none of their own.
func outageZone() string {
	zone := "mx.shared.test. A 127.0.0.1\n"
	for n := range outageDomains {
		switch n % 5 {
		case 0, 1:
			zone += outageDomain(n) + ". MX 10 mx.shared.test.\n"
		case 2:
			zone += outageDomain(n) + ". A 127.0.0.1\n"
		default:
			zone += fmt.Sprintf("%s. MX 10 mx.%[1]s.\nmx.%[1]s. A 127.0.0.1\n", outageDomain(n))
		}
	}
	return zone
}

// TestHourWithoutDNS: while nothing can be looked up nobody is given up and nothing bounces, and
// once DNS is back every message leaves in its next attempt.
func TestHourWithoutDNS(t *testing.T) {
	const messages = 100
	server, err := sink.Start(sink.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	names := testnet.NewDNS(t, outageZone())
	h := build(t, "", exampleTest)
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		resolver := &flaky{Resolver: dns.New(dns.Options{Servers: []string{names.Addr()}, Timeout: time.Minute})}
		log := new(logBuffer)
		h.Options.Now, h.Options.Log = time.Now, slog.New(slog.NewTextHandler(log, nil))
		client := delivery.New(delivery.Options{
			Hostname: "mx.example.test", Port: int(netip.MustParseAddrPort(server.Addr()).Port()), Family: "ipv4", Resolver: resolver,
		})
		defer client.Close()
		out := NewOutbound(h.Options, client)
		store, err := queue.OpenStore(queue.StoreOptions{Dir: dir, Group: out.Group, Log: h.Log})
		if err != nil {
			t.Fatal(err)
		}
		q := queue.New(queue.Options{
			Hostname: "mx.example.test", Lifetime: 120 * time.Hour, DelayWarning: 4 * time.Hour, Workers: 100, PerGroup: 20, Grace: time.Second,
			Sign: func(string, io.Reader) (string, error) { return "", nil }, Log: h.Log,
		}, store, out)
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); q.Run(ctx) }()
		defer func() { stop(); <-done }()

		resolver.down.Store(true)
		names.Fail(testnet.Everything, miekg.RcodeServerFailure)
		for n := range messages {
			e := &queue.Envelope{
				ID: fmt.Sprintf("OUTAGE%04d", n), Received: time.Now(), Sender: address.Address{Local: "app", Domain: "example.test"},
				Recipients: []queue.Recipient{{Address: address.Address{Local: "a", Domain: outageDomain(n)}}},
			}
			if err := q.Add(e, strings.NewReader(hello)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Hour)
		attempts := map[string]int{}
		q.List(func(e *queue.Envelope) bool {
			r := e.Recipients[0]
			if attempts[e.ID] = r.Attempts; r.State != queue.Waiting || r.Attempts < 3 {
				t.Errorf("%s for %s is %v after %d attempts: %s", e.ID, r.Address, r.State, r.Attempts, r.LastReply)
			}
			return true
		})
		if len(attempts) != messages || server.Connections() > 0 || resolver.asked.Load() == 0 {
			t.Fatalf("after an hour %d messages wait, with %d connections and %d questions", len(attempts), server.Connections(), resolver.asked.Load())
		}

		resolver.down.Store(false)
		names.Fail(testnet.Everything, miekg.RcodeSuccess)
		time.Sleep(2 * time.Hour)
		q.List(func(e *queue.Envelope) bool {
			t.Errorf("%s for %s still waits after %d attempts: %s", e.ID, e.Recipients[0].Address, e.Recipients[0].Attempts, e.Recipients[0].LastReply)
			return true
		})
		delivered := map[string]int{} // in which attempt
		for line := range strings.Lines(log.String()) {
			if _, rest, ok := strings.Cut(line, "msg=delivered id="); ok {
				id, rest, _ := strings.Cut(rest, " ")
				_, rest, _ = strings.Cut(rest, "attempts=")
				var attempt int
				fmt.Sscan(rest, &attempt)
				delivered[id] = attempt
			}
		}
		for id, n := range attempts {
			if delivered[id] != n+1 {
				t.Errorf("%s was delivered in attempt %d, after %d in vain", id, delivered[id], n)
			}
		}
		if server.Count() != messages || strings.Contains(log.String(), "msg=failed") {
			t.Errorf("%d messages came, DSNs among them perhaps", server.Count())
		}
	})
}
