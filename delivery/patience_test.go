package delivery

import (
	"context"
	"crypto/tls"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relayd/internal/testnet"
)

// silences are the stages at which a server may fall silent, and how long RFC 5321 section
// 4.5.3.2 lets us wait for it there.
var silences = []struct {
	stage string
	wait  time.Duration
	next  bool // the next address is tried
}{
	{"greeting", 5 * time.Minute, true},
	{"ehlo", 5 * time.Minute, true},
	{"mail", 5 * time.Minute, true},
	{"rcpt", 5 * time.Minute, true},
	{"data", 2 * time.Minute, true},
	{"body", 3*time.Minute + time.Second, true}, // and a second for a last word
	{"dot", 10 * time.Minute, false},
}

func TestNoSilenceIsWaitedForLonger(t *testing.T) {
	cert := testnet.Cert(t, "mx.test")
	for _, c := range silences {
		for _, offer := range []string{"", "250-PIPELINING\r\n", "250-STARTTLS\r\n"} {
			t.Run(c.stage+" "+offer, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := &pipeNet{silent: c.stage, offer: offer, ips: 2, tls: &tls.Config{Certificates: []tls.Certificate{cert.TLS}}}
					client := n.client()
					defer client.Close()
					begin := time.Now()
					r := client.Deliver(t.Context(), example, message(text, "a@example.org"))[0]
					want, dials := c.wait, 1
					if n.silent == "body" && strings.Contains(offer, "STARTTLS") {
						want += 5 * time.Second // for the goodbye of TLS, which is not read either
					}
					if c.next {
						want, dials = 2*want, 2
					}
					if took := time.Since(begin); took != want || n.dialed != dials || !r.Reply.Temporary() {
						t.Errorf("%v after %v at %d addresses", r.Reply.Error(), took, n.dialed)
					}
					synctest.Wait()
					if n.open.Load() != 0 {
						t.Error("a connection is still open")
					}
				})
			})
		}
	}
}

func TestSilenceInTLSIsFollowedByClearText(t *testing.T) {
	cert := testnet.Cert(t, "mx.test")
	for _, stage := range []string{"star", "handshake"} {
		synctest.Test(t, func(t *testing.T) {
			n := &pipeNet{silent: stage, offer: "250-STARTTLS\r\n", tls: &tls.Config{Certificates: []tls.Certificate{cert.TLS}}}
			client := n.client()
			defer client.Close()
			begin := time.Now()
			r := client.Deliver(t.Context(), example, message(text, "a@example.org"))[0]
			if took := time.Since(begin); took > 5*time.Minute+10*time.Second || r.Reply.Code != 250 {
				t.Errorf("%s: %v after %v", stage, r.Reply.Error(), took)
			}
		})
	}
}

func TestSilenceAtLogin(t *testing.T) {
	cert := testnet.Cert(t, "relay.example")
	synctest.Test(t, func(t *testing.T) {
		n := &pipeNet{silent: "auth", offer: "250-STARTTLS\r\n250-AUTH PLAIN\r\n", tls: &tls.Config{Certificates: []tls.Certificate{cert.TLS}}}
		client := n.client()
		client.opt.RootCAs = cert.Pool
		client.opt.Now = func() time.Time { return cert.TLS.Leaf.NotBefore.Add(time.Minute) }
		defer client.Close()
		begin := time.Now()
		route := Route{Domain: "example.org", Hosts: []string{"relay.example"}, User: "me", Password: "open sesame"}
		r := client.Deliver(t.Context(), route, message(text, "a@example.org"))[0]
		if took := time.Since(begin); took != 5*time.Minute || r.Reply.Code != 451 || n.dialed != 1 {
			t.Errorf("%v after %v", r.Reply.Error(), took)
		}
	})
}

// With every address dead, an attempt ends in minutes.
func TestManyDeadAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &pipeNet{unanswered: true, ips: 50}
		begin := time.Now()
		r := n.client().Deliver(t.Context(), example, message(text, "a@example.org"))[0]
		if took := time.Since(begin); took != 5*time.Minute || n.dialed != 10 || r.Reply.Code != 451 {
			t.Errorf("%v after %v at %d addresses", r.Reply, took, n.dialed)
		}
	})
}

// Where one address family leads nowhere, the other is tried in the same attempt, within seconds;
// and the address that is silent is not waited for again with the next message.
func TestDeadAddressFamily(t *testing.T) {
	for deaf, good := range map[string]bool{"tcp6": true, "tcp4": false} {
		synctest.Test(t, func(t *testing.T) {
			n := &pipeNet{deaf: deaf}
			client := n.client()
			client.opt.Family, client.opt.Source = "auto", &Source{good: good}
			defer client.Close()
			for _, want := range []time.Duration{5 * time.Second, 0} {
				begin := time.Now()
				r := client.Deliver(t.Context(), example, message(text, "a@example.org"))[0]
				if took := time.Since(begin); r.Reply.Code != 250 || took != want {
					t.Errorf("%s is deaf: %v after %v", deaf, r.Reply.Error(), took)
				}
			}
		})
	}
}

// The last address of a host has all the time there is.
func TestOnlyAddressIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &pipeNet{unanswered: true, deaf: "tcp6"}
		client := n.client()
		client.opt.Family = "auto"
		begin := time.Now()
		r := client.Deliver(t.Context(), example, message(text, "a@example.org"))[0]
		if took := time.Since(begin); !r.Reply.Temporary() || took != 35*time.Second {
			t.Errorf("%v after %v", r.Reply.Error(), took)
		}
	})
}

func TestCancellingEndsADeliveryAtOnce(t *testing.T) {
	cert := testnet.Cert(t, "mx.test")
	plain := []string{"connect", "greeting", "ehlo", "mail", "rcpt", "data", "body", "dot"}
	for _, stage := range append(plain, "star", "handshake") {
		for _, offer := range []string{"", "250-PIPELINING\r\n", "250-STARTTLS\r\n250-PIPELINING\r\n"} {
			synctest.Test(t, func(t *testing.T) {
				n := &pipeNet{silent: stage, offer: offer, unanswered: stage == "connect", ips: 5}
				n.tls = &tls.Config{Certificates: []tls.Certificate{cert.TLS}}
				client := n.client()
				defer client.Close()
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				begin := time.Now()
				r := client.Deliver(ctx, example, message(text, "a@example.org"))[0]
				took := time.Since(begin)
				if took == 0 && r.Reply.Code == 250 {
					return // that stage does not come up without STARTTLS
				}
				if took < 10*time.Second || took > 16*time.Second || !r.Reply.Temporary() || n.dialed != 1 {
					t.Errorf("%s with %q: %v after %v, %d connections", stage, offer, r.Reply.Error(), took, n.dialed)
				}
				synctest.Wait()
				if n.open.Load() != 0 {
					t.Errorf("%s: a connection is still open", stage)
				}
			})
		}
	}
}

// A delivery that is cancelled while its kept connection hangs does not go on to a new one.
func TestCancellingOnAKeptConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newPipeNet()
		client := n.client()
		defer client.Close()
		client.Deliver(t.Context(), example, message(text, "a@example.org"))
		n.silent = "mail"
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		r := client.Deliver(ctx, example, message(text, "a@example.org"))[0]
		if took := time.Since(begin); took > 2*time.Second || !r.Reply.Temporary() {
			t.Errorf("%v after %v", r.Reply.Error(), took)
		}
	})
}

// A context that has ended before is no reason to try anything.
func TestCancelledBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newPipeNet()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if r := n.client().Deliver(ctx, example, message(text, "a@example.org"))[0]; r.Reply.Code != 451 || n.dialed != 0 {
			t.Errorf("%v, %d connections", r.Reply, n.dialed)
		}
	})
}
