package delivery

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"relayd/dns"
	"relayd/internal/sink"
)

// A server that refuses a thousand messages at MAIL leaves nothing behind, and gets the first that
// it takes. (That no connection is left open, the world looks at when the test ends.)
func TestThousandRefusalsAndThenAYes(t *testing.T) {
	both(t, func(t *testing.T, without []string) {
		for no, times := range map[string]int{"450 4.3.2 later": 1000, "550 5.7.1 no": 100, "421 4.7.28 rate<close>": 100, "<close>": 100} {
			if without != nil {
				times /= 10
			}
			var healed atomic.Bool
			s, c := one(t, sink.Options{Without: without, Reply: func(stage, _ string, _ int) string {
				if stage == "mail" && !healed.Load() {
					return no
				}
				return ""
			}})
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					for range times / 4 {
						if r := c.Deliver(context.Background(), example, message(text, "a@example.org"))[0]; r.Reply.Positive() {
							t.Errorf("%s: %v", no, r.Reply)
						}
					}
				})
			}
			wg.Wait()
			healed.Store(true)
			if r := c.Deliver(t.Context(), example, message(text, "a@example.org"))[0]; r.Reply.Code != 250 || s.Count() != 1 {
				t.Errorf("%s: then %v", no, r.Reply.Error())
			}
			kept := 0
			for _, list := range c.pool.kept {
				kept += len(list)
			}
			if kept > 4 {
				t.Errorf("%s: %d connections are kept", no, kept)
			}
		}
	})
}

// A server whose sending half is closed is gone, even while it still takes what we send.
func TestHalfClosedServer(t *testing.T) {
	for _, said := range []string{"", "220 mx.test\r\n", "220 mx.test\r\n250 mx.test\r\n", "220 mx.test\r\n250 mx.test\r\n250 ok\r\n", "220 mx.test\r\n250-mx.test\r\n250 PIPELI"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			io.WriteString(conn, said)
			conn.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, conn)
		})
		w := newWorld()
		w.mx["example.org"] = []dns.MX{{Host: "mx.test", Preference: 10}}
		w.ip["mx.test"], w.at["192.0.2.1:25"] = []string{"192.0.2.1"}, l.Addr().String()
		c := w.client(t, nil)
		within(t, func() {
			r := c.Deliver(t.Context(), example, message(text, "a@example.org"))[0]
			if r.Reply.Code != 451 {
				t.Errorf("%q: %v", said, r.Reply)
			}
			wg.Wait() // it saw the end of our half
		})
		l.Close()
	}
}

// A hundred recipients at one domain are one message and not a hundred.
func TestManyRecipientsGetOneBody(t *testing.T) {
	s, c := one(t, sink.Options{})
	c.Deliver(t.Context(), example, message(text, addresses(100)...))
	if s.Count() != 1 || s.Connections() != 1 || len(s.Messages()[0].Rcpts) != 100 {
		t.Errorf("%d messages over %d connections", s.Count(), s.Connections())
	}
}
