package delivery

import (
	"crypto/tls"
	"errors"
	"testing"

	"relayd/dns"
	"relayd/internal/sink"
	"relayd/internal/testnet"
)

// REQUIRETLS goes to whoever promises to keep it, and to nobody else (RFC 8689).
func TestRequireTLSAtASmarthost(t *testing.T) {
	old, _ := serverTLS(t, "relay.example")
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS10
	for name, c := range map[string]struct {
		opt  sink.Options
		mode TLSMode
		cert string
		want string
	}{
		"kept":                    {sink.Options{}, StartTLS, "relay.example", "250 2.0.0"},
		"kept where TLS is usual": {sink.Options{}, Opportunistic, "relay.example", "250 2.0.0"},
		"kept, implicit TLS":      {sink.Options{ImplicitTLS: true}, Implicit, "relay.example", "250 2.0.0"},
		"no promise":              {sink.Options{Without: []string{"REQUIRETLS"}}, StartTLS, "relay.example", "550 5.7.30"},
		"no TLS":                  {sink.Options{Without: []string{"STARTTLS"}}, Opportunistic, "relay.example", "550 5.7.30"},
		"no TLS, but a promise": {sink.Options{Without: []string{"STARTTLS"}, Reply: ehlo("250 REQUIRETLS")}, Opportunistic,
			"relay.example", "550 5.7.30"},
		"another's certificate": {sink.Options{}, Opportunistic, "other.example", "550 5.7.30"},
		"later":                 {sink.Options{Reply: script("starttls", "", "<close>")}, StartTLS, "relay.example", "451 4.7.5"},
		"refused by the server": {sink.Options{Reply: script("mail", "", "550 5.7.30 not us")}, StartTLS, "relay.example", "550 5.7.30 not us"},
	} {
		t.Run(name, func(t *testing.T) {
			s, _, client := smarthost(t, c.opt, c.cert)
			route := Route{Domain: "example.org", Hosts: []string{"relay.example"}, TLS: c.mode, User: "me", Password: "open sesame"}
			m := message(text, "a@example.org")
			m.RequireTLS = true
			r := client.Deliver(t.Context(), route, m)[0]
			if got := r.Reply.String(); got[:len(c.want)] != c.want {
				t.Error(r.Reply.Error())
			}
			if list := s.Messages(); c.want == "250 2.0.0" && list[0].FromArgs != "SIZE=36 REQUIRETLS" {
				t.Errorf("MAIL with %q", list[0].FromArgs)
			}
		})
	}
}

func TestNoRequireTLSForOthers(t *testing.T) {
	s, _, c := smarthost(t, sink.Options{}, "relay.example")
	route := Route{Domain: "example.org", Hosts: []string{"relay.example"}, User: "me", Password: "open sesame"}
	if r := c.Deliver(t.Context(), route, message(text, "a@example.org"))[0]; r.Reply.Code != 250 || s.Messages()[0].FromArgs != "SIZE=36" {
		t.Errorf("%v", r.Reply)
	}
}

// The name that an MX record of an unsigned zone gives proves nothing, whatever certificate the
// host shows for it.
func TestRequireTLSNeedsATrustedName(t *testing.T) {
	cert := testnet.Cert(t, "mx.test")
	for _, unsigned := range []bool{false, true} {
		g := newGuarded(t, sink.Options{TLSConfig: serving(cert)})
		g.roots, g.unsigned = cert.Pool, map[string]bool{"example.org": unsigned}
		_, r := g.deliver(t, g.client(t), "example.org", func(m *Message) { m.RequireTLS = true })
		if r.Reply.Positive() == unsigned || unsigned && (r.Reply.Enhanced != "5.7.30" || !errors.Is(r.Reply, errNotPromised)) {
			t.Errorf("unsigned %v: %v", unsigned, r.Reply.Error())
		}
	}
}

// As long as one host may still do it, it is not given up; and the next one is asked.
func TestRequireTLSAtSeveralHosts(t *testing.T) {
	conf, pool := serverTLS(t, "bad.test", "good.test")
	never := startSink(t, sink.Options{TLSConfig: conf, Without: []string{"REQUIRETLS"}})
	good := startSink(t, sink.Options{TLSConfig: conf})
	w := newWorld()
	w.mx["example.org"] = []dns.MX{{Host: "bad.test", Preference: 1}, {Host: "good.test", Preference: 2}}
	w.host("bad.test", "192.0.2.1", never)
	w.host("good.test", "192.0.2.2", nil)
	route := Route{Domain: "example.org", Hosts: []string{"bad.test", "good.test"}}
	m := message(text, "a@example.org")
	m.RequireTLS = true
	c := w.client(t, func(o *Options) { o.RootCAs = pool })
	if r := c.Deliver(t.Context(), route, m)[0]; r.Reply.Code != 451 || r.Host != "good.test [192.0.2.2]" {
		t.Errorf("%v by %s", r.Reply, r.Host)
	}
	w.host("good.test", "192.0.2.2", good)
	m.Insist = true
	if r := c.Deliver(t.Context(), route, m)[0]; r.Reply.Code != 250 || r.Host != "good.test [192.0.2.2]" {
		t.Errorf("%v by %s", r.Reply, r.Host)
	}
}

// A mailbox is where the way ends.
func TestRequireTLSEndsAtTheMailbox(t *testing.T) {
	_, c := mailboxServer(t, sink.Options{Without: []string{"REQUIRETLS"}})
	m := message(text, "a@example.org")
	m.RequireTLS = true
	if r := c.Deliver(t.Context(), mailboxes, m)[0]; r.Reply.Code != 250 {
		t.Error(r.Reply)
	}
}
