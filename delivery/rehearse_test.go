package delivery

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relayd/dns"
	"relayd/internal/sink"
	"relayd/reply"
	"relayd/tlsrpt"
)

func TestRehearse(t *testing.T) {
	for name, c := range map[string]struct {
		opt      sink.Options
		password string
		want     string // "" when it goes well
		stage    string
		last     int // code
	}{
		"goes well":      {sink.Options{}, "open sesame", "", "QUIT", 235},
		"wrong password": {sink.Options{}, "open barley", "451 4.7.8 relay.example [192.0.2.1] does not accept our login", "AUTH", 535},
		"repeated":       {sink.Options{Reply: script("auth", "", "501 5.5.2 what is "+b64("\x00me\x00open sesame")+"?")}, "open sesame", "451 4.7.8", "AUTH", 501},
		"no TLS":         {sink.Options{Without: []string{"STARTTLS"}}, "open sesame", "451 4.7.5 relay.example", "EHLO", 250},
		"turned away":    {sink.Options{Reply: script("greeting", "", "554 5.7.1 not you")}, "open sesame", "451 4.7.1 relay.example", "greeting", 554},
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
			r, err := client.Rehearse(t.Context(), route)
			if last := r.Replies[len(r.Replies)-1]; r.Host != "relay.example" || r.IP != "192.0.2.1" || r.Stage != c.stage || r.Verified != (r.TLS == "TLS1.3") ||
				last.Code != c.last || err != nil && !strings.HasPrefix(err.Error(), c.stage+": ") {
				t.Errorf("%+v, %v", r, err)
			}
			if strings.Contains(fmt.Sprint(r, err), c.password) || strings.Contains(fmt.Sprint(r), b64("\x00me\x00"+c.password)) {
				t.Errorf("the password stands in %+v", r)
			}
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

// refusedAt is the reply of a rehearsal that does not go well.
func refusedAt(t *testing.T, c *Client, route Route) *reply.Reply {
	t.Helper()
	_, err := c.Rehearse(t.Context(), route)
	return answerOf(t, err)
}

// One address that works is enough, and what failed of late is tried all the same.
func TestRehearseTriesEverything(t *testing.T) {
	s, w, c := smarthost(t, sink.Options{}, "relay.example")
	w.ip["relay.example"] = []string{"192.0.2.7", "192.0.2.1"}
	route := Route{Hosts: []string{"nowhere.example", "relay.example"}, TLS: StartTLS, User: "me", Password: "open sesame"}
	for range 2 {
		if _, err := c.Rehearse(t.Context(), route); err != nil {
			t.Error(err)
		}
	}
	if s.Connections() != 2 || len(w.dialed) != 4 {
		t.Errorf("dialed %q", w.dialed)
	}
	w.at = nil
	if r := refusedAt(t, c, route); r.Enhanced != "4.4.4" {
		t.Error(r)
	}
}

func TestRehearsalOfAMailboxServer(t *testing.T) {
	s, c := mailboxServer(t, sink.Options{})
	if _, err := c.Rehearse(t.Context(), mailboxes); err != nil {
		t.Error(err)
	}
	s.Close()
	if r := refusedAt(t, c, mailboxes); r.Enhanced != "4.4.1" {
		t.Error(r)
	}
}

func TestRehearsalOfADomain(t *testing.T) {
	_, c := one(t, sink.Options{})
	if _, err := c.Rehearse(t.Context(), example); err != nil {
		t.Error(err)
	}
	w := newWorld()
	w.mx["example.org"] = []dns.MX{{Host: ""}}
	if r := refusedAt(t, w.client(t, nil), example); r.Code != 556 {
		t.Error(r)
	}
}

func TestRehearsalEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := (&pipeNet{silent: "ehlo"}).client()
		defer client.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begin := time.Now()
		if _, err := client.Rehearse(ctx, example); err == nil || time.Since(begin) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}

// exchangers is a domain with two mail exchangers of both families each, the better one at s.
func exchangers(t *testing.T, opt sink.Options) (*sink.Sink, *world) {
	s, w := startSink(t, opt), newWorld()
	w.mx["example.org"] = []dns.MX{{Host: "worse.test", Preference: 20}, {Host: "mx.test", Preference: 10}}
	w.host("mx.test", "192.0.2.1", s)
	w.host("mx.test", "2001:db8::1", s)
	w.host("worse.test", "192.0.2.2", s)
	w.host("worse.test", "2001:db8::2", s)
	return s, w
}

var trial = Trial{Domain: "example.org", Network: "ip4", Sender: "srs0@relay.test", Recipient: "a@example.org"}

func TestRehearsalOfMX(t *testing.T) {
	right, pool := serverTLS(t, "mx.test")
	wrong, _ := serverTLS(t, "other.test")
	for name, c := range map[string]struct {
		opt   sink.Options
		want  string // stage, TLS, verified, codes
		error string // "" when it goes well
		flaw  string
	}{
		"taken":             {sink.Options{TLSConfig: right}, "QUIT TLS1.3 true 220 250 220 250 250 250", "", ""},
		"in the clear":      {sink.Options{}, "QUIT  false 220 250 250 250", "", ""},
		"wrong certificate": {sink.Options{TLSConfig: wrong}, "QUIT TLS1.3 false 220 250 220 250 250 250", "", "x509: "},
		"no handshake": {sink.Options{TLSConfig: right, Reply: script("starttls", "", "454 4.7.0 no")}, "QUIT  false 220 250 454 220 250 250 250",
			"", "STARTTLS is not supported: 454 4.7.0 no"},
		"MAIL is refused": {sink.Options{Reply: script("mail", "", "550 5.7.25 no PTR")}, "MAIL  false 220 250 550", "MAIL: 550 5.7.25 no PTR", ""},
		"RCPT is refused": {sink.Options{Reply: script("rcpt", "", "450 4.2.0 greylisted")}, "RCPT  false 220 250 250 450", "RCPT: 450 4.2.0 greylisted", ""},
		"RCPT is odd":     {sink.Options{Reply: script("rcpt", "", "354 go on")}, "RCPT  false 220 250 250 354", "RCPT: 354 go on", ""},
		"lost at RCPT":    {sink.Options{Reply: script("rcpt", "", "<close>")}, "RCPT  false 220 250 250", "RCPT: 451 4.4.2 The connection to mx.test [", ""},
	} {
		for network, ip := range map[string]string{"ip4": "192.0.2.1", "ip6": "2001:db8::1"} {
			var mu sync.Mutex // for the first connection may still be saying goodbye
			var heard []string
			answer := c.opt.Reply
			c.opt.Reply = func(stage, arg string, nth int) string {
				mu.Lock()
				defer mu.Unlock()
				if heard = append(heard, stage); answer != nil {
					return answer(stage, arg, nth)
				}
				return ""
			}
			s, w := exchangers(t, c.opt)
			client := w.client(t, func(o *Options) {
				o.RootCAs, o.Family = pool, "auto"
				o.TLS.Report = func(r tlsrpt.Session) { t.Errorf("%s is reported: %+v", name, r) }
			})
			one := trial
			one.Network = network
			r, err := client.RehearseMX(t.Context(), one)
			s.Close()
			got := fmt.Sprintf("%s %s %v", r.Stage, r.TLS, r.Verified)
			for _, h := range r.Replies {
				got += fmt.Sprintf(" %d", h.Code)
			}
			if got != c.want || r.Host != "mx.test" || r.IP != ip || !strings.HasPrefix(r.Flaw, c.flaw) || (r.Flaw == "") != (c.flaw == "") {
				t.Errorf("%s: %s %+v", name, got, r)
			}
			if c.error == "" && err != nil || c.error != "" && (err == nil || !strings.HasPrefix(err.Error(), c.error)) {
				t.Errorf("%s: %v", name, err)
			}
			if s.Count() > 0 || slices.Contains(heard, "data") {
				t.Errorf("%s: a message was sent: %q", name, heard)
			}
		}
	}
}

// The next exchanger is only for where one does not come to MAIL, and what is said of the better
// stands when none does.
func TestRehearsalOfTheNextMX(t *testing.T) {
	_, w := exchangers(t, sink.Options{Reply: script("greeting", "", "554 5.7.1 not you")})
	r, err := w.client(t, nil).RehearseMX(t.Context(), trial)
	if err == nil || !strings.HasPrefix(err.Error(), "greeting: 451 4.7.1 ") || r.Host != "worse.test" || len(w.dialed) != 2 {
		t.Errorf("%+v, %v; dialed %q", r, err, w.dialed)
	}
	delete(w.at, "192.0.2.2:25")
	if r, err = w.client(t, nil).RehearseMX(t.Context(), trial); err == nil || r.Host != "mx.test" || r.Stage != "greeting" {
		t.Errorf("%+v, %v", r, err)
	}
	delete(w.at, "192.0.2.1:25")
	if r, err = w.client(t, nil).RehearseMX(t.Context(), trial); err == nil || r.Stage != "connect" || !strings.HasPrefix(err.Error(), "connect: 451 4.4.1 ") {
		t.Errorf("%+v, %v", r, err)
	}
	w.ip["mx.test"], w.ip["worse.test"] = []string{"2001:db8::1"}, []string{"2001:db8::2"}
	if r, err = w.client(t, nil).RehearseMX(t.Context(), trial); err == nil || r.Stage != "DNS" || r.Host != "mx.test" ||
		!strings.HasPrefix(err.Error(), "DNS: 451 4.4.4 The mail server mx.test has no IPv4 address") {
		t.Errorf("%+v, %v", r, err)
	}
	one := trial
	one.Host, one.Network, one.Recipient = "worse.test", "ip6", ""
	if r, err = w.client(t, nil).RehearseMX(t.Context(), one); err == nil || r.IP != "2001:db8::2" || r.Refused == nil || r.Refused.Code != 554 || !r.Verdict.NextHost {
		t.Errorf("%+v, %v", r, err)
	}
	for _, bad := range []Trial{{Domain: "example.org", Sender: "nobody", Recipient: "a@b.test"}, {Domain: "example.org", Recipient: "a b@example.org"}} {
		if _, err := w.client(t, nil).RehearseMX(t.Context(), bad); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

// Our own mail exchanger is not asked to take mail from itself.
func TestRehearsalWithOurselves(t *testing.T) {
	_, w := exchangers(t, sink.Options{})
	r, err := w.client(t, func(o *Options) { o.Hostname = "mx.test" }).RehearseMX(t.Context(), trial)
	if err == nil || r.Stage != "DNS" || answerOf(t, err).Enhanced != "5.4.6" {
		t.Errorf("%+v, %v", r, err)
	}
}
