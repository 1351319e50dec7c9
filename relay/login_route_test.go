package relay

import (
	"crypto/tls"
	"sync/atomic"
	"testing"
	"time"

	"relayd/delivery"
	"relayd/dns"
	"relayd/internal/sink"
	"relayd/internal/testnet"
	"relayd/queue"
)

// With a wrong password one message of many is held, and the others wait without having been tried.
func TestQueueWaitsForALogin(t *testing.T) {
	const many = 50
	cert := testnet.Cert(t, "127.0.0.1")
	var logins, ahead atomic.Int64
	var mended atomic.Bool
	s, err := sink.Start(sink.Options{
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert.TLS}}, Users: map[string]string{"me": "other"},
		Reply: func(stage, _ string, _ int) string {
			switch {
			case stage != "auth":
				return ""
			case mended.Load():
				return "235 2.7.0 welcome"
			}
			logins.Add(1)
			return "535 5.7.8 wrong password"
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	w := openWorld(t, queueFirst+"[outbound]\nsmarthost = \"submission://me@"+s.Addr()+"\"\npassword_file = \"pw\"\n", sink.Options{})
	w.Config.Outbound.Smarthost.Password = "secret"
	w.out.client = delivery.New(delivery.Options{
		Hostname: "mx.example.test", Times: delivery.DefaultTimes(), Resolver: dns.New(dns.Options{Servers: []string{w.names.Addr()}}), RootCAs: cert.Pool,
		Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
	})
	t.Cleanup(w.out.client.Close)
	for range many {
		w.send(stranger, "s@elsewhere.test", []string{"me@example.test"}, hello)
	}
	var held, waiting []string // by ID
	for deadline := time.Now().Add(30 * time.Second); len(held)+len(waiting) < many; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d held, %d waiting", len(held), len(waiting))
		}
		held, waiting = nil, nil
		w.work.List(func(e *queue.Envelope) bool {
			switch r := e.Recipients[0]; {
			case r.State == queue.Held && r.Attempts == 1:
				held = append(held, e.ID)
			case r.State == queue.Waiting && r.Attempts == 0 && time.Until(r.Next) > 9*time.Minute && !r.Trying:
				waiting = append(waiting, e.ID)
			}
			return true
		})
	}
	if len(held) != 1 || logins.Load() != 1 || len(w.out.Warnings()) != 1 {
		t.Errorf("%d held, %d logins, %q", len(held), logins.Load(), w.out.Warnings())
	}
	mended.Store(true)
	ahead.Store(int64(time.Minute))
	if err := w.work.Retry(waiting[0]); err != nil {
		t.Fatal(err)
	}
	messagesAt(t, s, 1)
}
