package delivery

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relayd/dns"
	"relayd/internal/sink"
)

func TestManyMessagesOverFewConnections(t *testing.T) {
	s, c := one(t, sink.Options{})
	c.opt.Times.Messages = 20
	work := make(chan int)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for n := range work {
				m := message(fmt.Sprintf("message %d\r\n", n), "a@example.org")
				if r := c.Deliver(context.Background(), example, m)[0]; r.Reply.Code != 250 {
					t.Error(r.Reply.Error())
				}
			}
		})
	}
	for n := range 200 {
		work <- n
	}
	close(work)
	wg.Wait()
	seen := map[string]bool{}
	perConnection := map[int]int{}
	for _, m := range s.Messages() {
		seen[string(m.Data)] = true
		perConnection[m.ConnID]++
	}
	// Each of the four begins with its own, and may leave its last one unfinished.
	if len(seen) != 200 || s.Connections() > 200/20+4 {
		t.Errorf("%d messages over %d connections", len(seen), s.Connections())
	}
	for id, n := range perConnection {
		if n > 20 {
			t.Errorf("connection %d had %d messages", id, n)
		}
	}
}

// Transactions that were refused count too, and the next one begins with RSET.
func TestRefusedTransactionsUseAConnectionUp(t *testing.T) {
	resets := 0
	s, c := one(t, sink.Options{Reply: func(stage, arg string, _ int) string {
		if stage == "rset" {
			resets++
		}
		return map[string]string{"no@example.org": "550 5.1.1 nobody"}[arg]
	}})
	c.opt.Times.Messages = 5
	for range 10 {
		if r := c.Deliver(t.Context(), example, message(text, "no@example.org"))[0]; r.Reply.Code != 550 {
			t.Error(r.Reply)
		}
	}
	if s.Connections() != 2 || resets != 8 {
		t.Errorf("%d connections, %d RSET", s.Connections(), resets)
	}
}

func TestRefusedTransactionDoesNotSpoilTheNext(t *testing.T) {
	both(t, func(t *testing.T, without []string) {
		for _, stage := range []string{"mail", "rcpt", "data", "dot"} {
			s, c := one(t, sink.Options{Without: without, Reply: func(st, _ string, nth int) string {
				if st == stage && nth == 1 {
					return "450 4.2.1 later"
				}
				return ""
			}})
			if r := c.Deliver(t.Context(), example, message(text, "a@example.org"))[0]; r.Reply.String() != "450 4.2.1 later" {
				t.Errorf("%s: %v", stage, r.Reply)
			}
			if r := c.Deliver(t.Context(), example, message(text, "b@example.org"))[0]; r.Reply.Code != 250 || s.Connections() != 1 {
				t.Errorf("%s: then %v over %d connections", stage, r.Reply, s.Connections())
			}
			if m := s.Messages(); len(m) != 1 || m[0].Rcpts[0] != "b@example.org" {
				t.Errorf("%s: %d messages", stage, len(m))
			}
		}
	})
}

// What a server does to a connection while nobody looks must not cost the next message anything.
func TestStaleConnectionIsReplaced(t *testing.T) {
	both(t, func(t *testing.T, without []string) {
		for _, answer := range []string{"<close>", "<reset>", "421 4.4.2 idle for too long<close>", "421 4.4.2 idle", "250 ok\n250 one too many", "garbage"} {
			for _, stage := range []string{"mail", "rset"} {
				s, c := one(t, sink.Options{Without: without, Reply: func(st, arg string, nth int) string {
					switch {
					case st == "rcpt" && arg == "no@example.org":
						return "550 5.1.1 nobody"
					case st == stage && (stage == "rset" || nth == 2):
						return answer
					}
					return ""
				}})
				c.Deliver(t.Context(), example, message(text, "no@example.org"))
				r := c.Deliver(t.Context(), example, message(text, "a@example.org"))[0]
				if r.Reply.Code != 250 || s.Connections() != 2 || s.Count() != 1 {
					t.Errorf("%q to %s: %v, %d messages over %d connections", answer, stage, r.Reply.Error(), s.Count(), s.Connections())
				}
			}
		}
	})
}

// A second reply to the final dot would be taken for the answer to the next MAIL.
func TestReplyTooManyAfterTheMessage(t *testing.T) {
	s, c := one(t, sink.Options{Reply: func(stage, _ string, nth int) string {
		if stage == "dot" && nth == 1 {
			return "250 2.0.0 ok\n250 2.0.0 ok again"
		}
		return ""
	}})
	for range 2 {
		if r := c.Deliver(t.Context(), example, message(text, "a@example.org"))[0]; r.Reply.Code != 250 {
			t.Error(r.Reply.Error())
		}
	}
	if s.Count() != 2 || s.Connections() != 2 {
		t.Errorf("%d messages over %d connections", s.Count(), s.Connections())
	}
}

func TestDeliveryAfterCloseKeepsNothing(t *testing.T) {
	s, c := one(t, sink.Options{})
	c.Close()
	for range 2 {
		if r := c.Deliver(t.Context(), example, message(text, "a@example.org"))[0]; r.Reply.Code != 250 {
			t.Error(r.Reply)
		}
	}
	if s.Connections() != 2 {
		t.Error(s.Connections())
	}
}

func TestIdleAndAgeEndConnections(t *testing.T) {
	for name, c := range map[string]struct {
		pause       time.Duration
		messages    int
		connections int
	}{
		"used in time":  {15 * time.Second, 10, 1},
		"idle too long": {21 * time.Second, 3, 3},
		"too old":       {19 * time.Second, 18, 2}, // 16 within 5 minutes
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newPipeNet()
				client := n.client()
				for range c.messages {
					if r := client.Deliver(t.Context(), example, message(text, "a@example.org"))[0]; r.Reply.Code != 250 {
						t.Fatal(r.Reply.Error())
					}
					time.Sleep(c.pause)
				}
				if n.dialed != c.connections {
					t.Errorf("%d connections", n.dialed)
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				if n.open.Load() != 0 {
					t.Errorf("%d are still open", n.open.Load())
				}
				client.Close()
			})
		})
	}
}

func TestCloseEndsIdleConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newPipeNet()
		client := n.client()
		client.Deliver(t.Context(), example, message(text, "a@example.org"))
		client.Close()
		client.Close()
		synctest.Wait()
		if n.open.Load() != 0 {
			t.Error("it is still open")
		}
	})
}

func BenchmarkKeptConnection(b *testing.B) {
	s := startSink(b, sink.Options{Discard: true})
	w := newWorld()
	w.mx["example.org"] = []dns.MX{{Host: "mx.test", Preference: 10}}
	w.host("mx.test", "192.0.2.1", s)
	c := w.client(b, func(o *Options) {
		o.Log = slog.New(slog.DiscardHandler)
		o.Times = DefaultTimes()
		o.Times.Messages = 1 << 30
	})
	body := strings.Repeat(strings.Repeat("x", 76)+"\r\n", 4096/78)
	m := message(body, "a@example.org")
	m.Body = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(body)), nil }
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if r := c.Deliver(b.Context(), example, m)[0]; r.Reply.Code != 250 {
			b.Fatal(r.Reply.Error())
		}
	}
}
