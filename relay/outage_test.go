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

// An outage is a queue inside a bubble of synctest, where hours pass in no time, with a server
// outside of it that all mail goes to.
type outage struct {
	*queue.Queue
	t        *testing.T
	log      *logBuffer
	attempts map[string]int // of each message that waited when it was looked at last
}

// startOutage makes one over the files in dir.
func startOutage(t *testing.T, h *house, dir string, opt delivery.Options) *outage {
	o := &outage{t: t, log: new(logBuffer)}
	h.Options.Now, h.Options.Log = time.Now, slog.New(slog.NewTextHandler(o.log, nil))
	opt.Hostname, opt.Family = "mx.example.test", "ipv4"
	client := delivery.New(opt)
	t.Cleanup(client.Close)
	out := NewOutbound(h.Options, client)
	store, err := queue.OpenStore(queue.StoreOptions{Dir: dir, Group: out.Group, Log: h.Log})
	if err != nil {
		t.Fatal(err)
	}
	o.Queue = queue.New(queue.Options{
		Hostname: "mx.example.test", Lifetime: 120 * time.Hour, DelayWarning: 4 * time.Hour, Workers: 100, PerGroup: 20, Grace: time.Second,
		Sign: func(string, io.Reader) (string, error) { return "", nil }, Log: h.Log,
	}, store, out)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); o.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	return o
}

// add queues messages of our user, the n-th for domain(n).
func (o *outage) add(messages int, domain func(n int) string) {
	o.t.Helper()
	for n := range messages {
		e := &queue.Envelope{
			ID: fmt.Sprintf("OUTAGE%04d", n), Received: time.Now(), Sender: address.Address{Local: "app", Domain: "example.test"},
			Recipients: []queue.Recipient{{Address: address.Address{Local: fmt.Sprint("a", n), Domain: domain(n)}}},
		}
		if err := o.Add(e, strings.NewReader(hello)); err != nil {
			o.t.Fatal(err)
		}
	}
}

// checkWaiting: all messages wait and have been tried several times.
func (o *outage) checkWaiting(messages int) {
	o.t.Helper()
	o.attempts = map[string]int{}
	o.List(func(e *queue.Envelope) bool {
		r := e.Recipients[0]
		if o.attempts[e.ID] = r.Attempts; r.State != queue.Waiting || r.Attempts < 3 {
			o.t.Errorf("%s for %s is %v after %d attempts: %s", e.ID, r.Address, r.State, r.Attempts, r.LastReply)
		}
		return true
	})
	if len(o.attempts) != messages {
		o.t.Fatalf("%d messages wait", len(o.attempts))
	}
}

// checkDelivered: all messages have left, each in the attempt after the last one in vain.
func (o *outage) checkDelivered() {
	o.t.Helper()
	o.List(func(e *queue.Envelope) bool {
		r := e.Recipients[0]
		o.t.Errorf("%s for %s still waits after %d attempts: %s", e.ID, r.Address, r.Attempts, r.LastReply)
		return true
	})
	delivered := map[string]int{} // in which attempt
	for line := range strings.Lines(o.log.String()) {
		if strings.Contains(line, "msg=failed") {
			o.t.Error(line)
		}
		if _, rest, ok := strings.Cut(line, "msg=delivered id="); ok {
			id, rest, _ := strings.Cut(rest, " ")
			_, rest, _ = strings.Cut(rest, "attempts=")
			var attempt int
			fmt.Sscan(rest, &attempt)
			delivered[id] = attempt
		}
	}
	for id, n := range o.attempts {
		if delivered[id] != n+1 {
			o.t.Errorf("%s was delivered in attempt %d, after %d in vain", id, delivered[id], n)
		}
	}
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
	h, dir := build(t, "", exampleTest), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		resolver := &flaky{Resolver: dns.New(dns.Options{Servers: []string{names.Addr()}, Timeout: time.Minute})}
		o := startOutage(t, h, dir, delivery.Options{Port: int(netip.MustParseAddrPort(server.Addr()).Port()), Resolver: resolver})
		resolver.down.Store(true)
		names.Fail(testnet.Everything, miekg.RcodeServerFailure)
		o.add(messages, outageDomain)
		time.Sleep(time.Hour)
		o.checkWaiting(messages)
		if server.Connections() > 0 || resolver.asked.Load() == 0 {
			t.Errorf("%d connections and %d questions", server.Connections(), resolver.asked.Load())
		}
		resolver.down.Store(false)
		names.Fail(testnet.Everything, miekg.RcodeSuccess)
		time.Sleep(2 * time.Hour)
		o.checkDelivered()
	})
	if server.Count() != messages {
		t.Errorf("%d messages came, DSNs among them perhaps", server.Count())
	}
}

// TestThousandRefusalsAndThenHealed: a server that has refused messages at MAIL a thousand times
// gets each of them in its next attempt once it is well, and no slot of its group stays taken.
func TestThousandRefusalsAndThenHealed(t *testing.T) {
	for refusal, messages := range map[string]int{"450 4.3.2 later": 250, "421 4.3.2 too busy<close>": 50, "<close>": 50} {
		t.Run(refusal, func(t *testing.T) {
			var healed atomic.Bool
			var refused atomic.Int64
			server, err := sink.Start(sink.Options{Reply: func(stage, _ string, _ int) string {
				if stage != "mail" || healed.Load() {
					return ""
				}
				refused.Add(1)
				return refusal
			}})
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			names := testnet.NewDNS(t, "sick.test. MX 10 mx.sick.test.\nmx.sick.test. A 127.0.0.1\n")
			h, dir := build(t, "", exampleTest), t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				resolver := dns.New(dns.Options{Servers: []string{names.Addr()}, Timeout: time.Minute})
				o := startOutage(t, h, dir, delivery.Options{Port: int(netip.MustParseAddrPort(server.Addr()).Port()), Resolver: resolver})
				o.add(messages, func(int) string { return "sick.test" })
				for refused.Load() < int64(4*messages) {
					time.Sleep(time.Minute)
				}
				o.checkWaiting(messages)
				healed.Store(true)
				time.Sleep(8 * time.Hour)
				o.checkDelivered()
				for _, g := range o.Groups() {
					if g.Used > 0 || g.Window < 1 {
						t.Errorf("%+v", g)
					}
				}
			})
			if server.Count() != messages {
				t.Errorf("%d messages came", server.Count())
			}
		})
	}
}
