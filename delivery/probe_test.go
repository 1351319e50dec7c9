package delivery

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relayd/dns"
	"relayd/internal/sink"
	"relayd/reply"
)

func TestProbe(t *testing.T) {
	for name, c := range map[string]struct {
		opt      sink.Options
		password string
		want     string // "" when it goes well
	}{
		"goes well":      {sink.Options{}, "open sesame", ""},
		"wrong password": {sink.Options{}, "open barley", "451 4.7.8 relay.example [192.0.2.1] does not accept our login"},
		"no TLS":         {sink.Options{Without: []string{"STARTTLS"}}, "open sesame", "451 4.7.5 relay.example"},
		"turned away":    {sink.Options{Reply: script("greeting", "", "554 5.7.1 not you")}, "open sesame", "451 4.7.1 relay.example"},
	} {
		t.Run(name, func(t *testing.T) {
			var heard []string
			quit := make(chan struct{})
			reply := c.opt.Reply
			c.opt.Reply = func(stage, arg string, nth int) string {
				if heard = append(heard, stage); stage == "quit" {
					close(quit)
				}
				if reply != nil {
					return reply(stage, arg, nth)
				}
				return ""
			}
			s, w, client := smarthost(t, c.opt, "relay.example")
			route := Route{Hosts: []string{"relay.example"}, TLS: StartTLS, User: "me", Password: c.password}
			err := client.Probe(t.Context(), route)
			if c.want == "" {
				within(t, func() { <-quit })
			}
			s.Close() // what it heard is complete
			if c.want == "" && (err != nil || strings.Join(heard, " ") != "greeting ehlo starttls ehlo auth quit") {
				t.Errorf("%v after %q", err, heard)
			}
			if c.want != "" {
				noSecrets(t, w, Result{Reply: answerOf(t, err)})
				if got := answerOf(t, err).String(); !strings.HasPrefix(got, c.want) {
					t.Error(got)
				}
			}
		})
	}
}

func answerOf(t *testing.T, err error) *reply.Reply {
	t.Helper()
	if err == nil {
		t.Fatal("nothing is wrong")
	}
	return reply.From(err)
}

// One address that works is enough, and what failed of late is tried all the same.
func TestProbeTriesEverything(t *testing.T) {
	s, w, c := smarthost(t, sink.Options{}, "relay.example")
	w.ip["relay.example"] = []string{"192.0.2.7", "192.0.2.1"}
	route := Route{Hosts: []string{"nowhere.example", "relay.example"}, TLS: StartTLS, User: "me", Password: "open sesame"}
	for range 2 {
		if err := c.Probe(t.Context(), route); err != nil {
			t.Error(err)
		}
	}
	if s.Connections() != 2 || len(w.dialed) != 4 {
		t.Errorf("dialed %q", w.dialed)
	}
	w.at = nil
	if r := answerOf(t, c.Probe(t.Context(), route)); r.Enhanced != "4.4.4" {
		t.Error(r)
	}
}

func TestProbeOfAMailboxServer(t *testing.T) {
	s, c := mailboxServer(t, sink.Options{})
	if err := c.Probe(t.Context(), mailboxes); err != nil {
		t.Error(err)
	}
	s.Close()
	if r := answerOf(t, c.Probe(t.Context(), mailboxes)); r.Enhanced != "4.4.1" {
		t.Error(r)
	}
}

func TestProbeOfADomain(t *testing.T) {
	_, c := one(t, sink.Options{})
	if err := c.Probe(t.Context(), example); err != nil {
		t.Error(err)
	}
	w := newWorld()
	w.mx["example.org"] = []dns.MX{{Host: ""}}
	if r := answerOf(t, w.client(t, nil).Probe(t.Context(), example)); r.Code != 556 {
		t.Error(r)
	}
}

func TestProbeEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := (&pipeNet{silent: "ehlo"}).client()
		defer client.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begin := time.Now()
		if err := client.Probe(ctx, example); err == nil || time.Since(begin) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}
