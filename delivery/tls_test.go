package delivery

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"

	"relayd/dns"
	"relayd/internal/sink"
	"relayd/internal/testnet"
)

func serverTLS(t *testing.T, names ...string) (*tls.Config, *x509.CertPool) {
	cert := testnet.Cert(t, names...)
	return &tls.Config{Certificates: []tls.Certificate{cert.TLS}}, cert.Pool
}

func TestOpportunisticTLS(t *testing.T) {
	any, _ := serverTLS(t, "whoever.test")
	// A handshake fails with a server that knows no common version.
	old, _ := serverTLS(t, "mx.test")
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS10
	for name, c := range map[string]struct {
		opt         sink.Options
		tls         bool
		connections int
	}{
		"any certificate does":     {sink.Options{TLSConfig: any}, true, 1},
		"not offered":              {sink.Options{}, false, 1},
		"handshake fails":          {sink.Options{TLSConfig: old}, false, 2},
		"refused":                  {sink.Options{TLSConfig: any, Reply: script("starttls", "", "454 4.7.0 no")}, false, 2},
		"handshake is reset":       {sink.Options{TLSConfig: any, Reply: script("starttls", "", "220 go<reset>")}, false, 2},
		"handshake is closed":      {sink.Options{TLSConfig: any, Reply: script("starttls", "", "220 go<close>")}, false, 2},
		"cut off":                  {sink.Options{TLSConfig: any, Reply: script("starttls", "", "220 g<cut>")}, false, 2},
		"closed instead of answer": {sink.Options{TLSConfig: any, Reply: script("starttls", "", "<close>")}, false, 2},
	} {
		t.Run(name, func(t *testing.T) {
			s, client := one(t, c.opt)
			if r := client.Deliver(t.Context(), example, message(text, "a@example.org"))[0]; r.Reply.Code != 250 {
				t.Fatal(r.Reply.Error())
			}
			if m := s.Messages()[0]; (m.TLS != nil) != c.tls || string(m.Data) != text || s.Connections() != c.connections {
				t.Errorf("TLS %v, %d connections", m.TLS != nil, s.Connections())
			}
		})
	}
}

// Somebody on the way put replies behind the 220, to be read as if they came through TLS. Nothing is sent then.
func TestPlaintextBehindSTARTTLS(t *testing.T) {
	conf, _ := serverTLS(t, "mx.test")
	for _, behind := range []string{"250 injected", "250-mx.test\n250 AUTH PLAIN", "250 mx.test\n250 sender\n250 recipient\n354 go on\n250 taken", strings.Repeat("250 x\n", 2000) + "250 x"} {
		s, c := one(t, sink.Options{TLSConfig: conf, Reply: script("starttls", "", "220 go\n"+behind)})
		r := c.Deliver(t.Context(), example, message(text, "a@example.org"))[0]
		if r.Reply.Code != 451 || s.Count() != 0 || s.Connections() != 1 {
			t.Errorf("%.40q: %v, %d connections", behind, r.Reply, s.Connections())
		}
	}
}

// smarthost is a world with one at relay.example, which knows the user "me".
func smarthost(t *testing.T, opt sink.Options, certNames ...string) (*sink.Sink, *world, *Client) {
	conf, pool := serverTLS(t, certNames...)
	opt.TLSConfig, opt.Users = conf, map[string]string{"me": "open sesame"}
	s := startSink(t, opt)
	w := newWorld()
	w.host("relay.example", "192.0.2.1", s)
	return s, w, w.client(t, func(o *Options) { o.RootCAs = pool })
}

func TestSmarthostLogin(t *testing.T) {
	for _, mode := range []TLSMode{Opportunistic, StartTLS, Implicit} {
		for _, auth := range []string{"AUTH PLAIN LOGIN", "auth login", "AUTH XOAUTH2 PLAIN"} {
			s, _, c := smarthost(t, sink.Options{ImplicitTLS: mode == Implicit, Reply: ehlo("250-STARTTLS\n250 " + auth)}, "relay.example")
			route := Route{Domain: "example.org", Hosts: []string{"relay.example"}, TLS: mode, User: "me", Password: "open sesame"}
			if r := c.Deliver(t.Context(), route, message(text, "a@example.org"))[0]; r.Reply.Code != 250 {
				t.Errorf("%d, %s: %v", mode, auth, r.Reply.Error())
			} else if m := s.Messages()[0]; m.User != "me" || m.TLS == nil {
				t.Errorf("%d, %s: user %q, TLS %v", mode, auth, m.User, m.TLS != nil)
			}
		}
	}
}

func TestSmarthostByAddress(t *testing.T) {
	conf, pool := serverTLS(t, "127.0.0.1")
	s := startSink(t, sink.Options{TLSConfig: conf, ImplicitTLS: true})
	c := New(Options{Hostname: "relay.test", RootCAs: pool}) // the real network
	defer c.Close()
	r := c.Deliver(t.Context(), Route{Domain: "example.org", Hosts: []string{s.Addr()}, TLS: Implicit}, message(text, "a@example.org"))[0]
	if r.Reply.Code != 250 || r.Host != "[127.0.0.1]" {
		t.Errorf("%v by %s", r.Reply.Error(), r.Host)
	}
}

// Where TLS is required, nothing is sent to a server that has none or the wrong certificate, and
// the password leaves for nobody but the one it is for.
func TestNoMailWithoutProperTLS(t *testing.T) {
	for name, c := range map[string]struct {
		mode TLSMode
		opt  sink.Options
		cert string
		want string
	}{
		"wrong name, STARTTLS":         {StartTLS, sink.Options{}, "other.example", "4.7.5"},
		"wrong name, implicit":         {Implicit, sink.Options{ImplicitTLS: true}, "other.example", "4.7.5"},
		"wrong name, with password":    {Opportunistic, sink.Options{}, "other.example", "4.7.5"},
		"not offered":                  {StartTLS, sink.Options{Without: []string{"STARTTLS"}}, "relay.example", "4.7.5"},
		"not offered, with password":   {Opportunistic, sink.Options{Without: []string{"STARTTLS"}}, "relay.example", "4.7.5"},
		"refused":                      {StartTLS, sink.Options{Reply: script("starttls", "", "454 no")}, "relay.example", "4.7.5"},
		"closed":                       {StartTLS, sink.Options{Reply: script("starttls", "", "<close>")}, "relay.example", "4.7.5"},
		"no TLS on the implicit port":  {Implicit, sink.Options{}, "relay.example", "4.7.5"},
		"implicit TLS on another port": {StartTLS, sink.Options{ImplicitTLS: true}, "relay.example", "4.4.2"},
	} {
		t.Run(name, func(t *testing.T) {
			auths := 0
			if c.opt.Reply == nil {
				c.opt.Reply = func(stage, _ string, _ int) string {
					if stage == "auth" || stage == "mail" {
						auths++
					}
					return ""
				}
			}
			s, w, client := smarthost(t, c.opt, c.cert)
			if name == "implicit TLS on another port" { // both sides wait for the other
				client.opt.Times.Greeting = 1
			}
			route := Route{Domain: "example.org", Hosts: []string{"relay.example"}, TLS: c.mode, User: "me", Password: "open sesame"}
			r := client.Deliver(t.Context(), route, message(text, "a@example.org"))[0]
			if r.Reply.Code != 451 || r.Reply.Enhanced != c.want || r.Host != "relay.example [192.0.2.1]" || auths > 0 || s.Count() > 0 {
				t.Errorf("%v by %s", r.Reply.Error(), r.Host)
			}
			if s.Connections() > 1 {
				t.Errorf("%d connections: it was tried again without TLS", s.Connections())
			}
			noSecrets(t, w, r)
		})
	}
}

// noSecrets looks for the password in everything that leaves the package.
func noSecrets(t *testing.T, w *world, r Result) {
	t.Helper()
	said := w.log.String() + r.Reply.Error() + r.Reply.String()
	for _, secret := range []string{"open sesame", b64("open sesame"), b64("\x00me\x00open sesame")} {
		if strings.Contains(said, secret) {
			t.Errorf("the password is in %q", said)
		}
	}
}

func TestSmarthostRefusesLogin(t *testing.T) {
	for name, c := range map[string]struct {
		reply    func(string, string, int) string
		password string
		want     string
	}{
		"wrong password": {nil, "open barley", "451 4.7.8 relay.example [192.0.2.1] does not accept our login"},
		"wrong password by LOGIN": {ehlo("250-STARTTLS\n250 AUTH LOGIN"), "open barley",
			"451 4.7.8 relay.example [192.0.2.1] does not accept our login"},
		"repeats what it got": {script("auth", "", "535 5.7.8 cannot take open sesame nor "+b64("\x00me\x00open sesame")), "open sesame",
			"451 4.7.8 relay.example [192.0.2.1] does not accept our login"},
		"refuses and repeats": {script("auth", "", "454 4.7.0 "+b64("open sesame")+" must wait"), "open sesame",
			"454 4.7.0 relay.example [192.0.2.1] refuses service (AUTH): 454 4.7.0 *** must wait"},
		"421":            {script("auth", "", "421 4.3.2 gone<close>"), "open sesame", "421 4.3.2 relay.example [192.0.2.1] refuses service"},
		"closes":         {script("auth", "", "<close>"), "open sesame", "451 4.4.2 The connection to relay.example"},
		"wants more":     {script("auth", "", "334 more"), "open sesame", "451 4.7.8 relay.example"},
		"no mechanism":   {ehlo("250-STARTTLS\n250 AUTH GSSAPI"), "open sesame", "451 4.7.4 relay.example"},
		"no AUTH at all": {ehlo("250 STARTTLS"), "open sesame", "451 4.7.4 relay.example"},
	} {
		t.Run(name, func(t *testing.T) {
			s, w, client := smarthost(t, sink.Options{Reply: c.reply}, "relay.example")
			route := Route{Domain: "example.org", Hosts: []string{"relay.example"}, TLS: StartTLS, User: "me", Password: c.password}
			r := client.Deliver(t.Context(), route, message(text, "a@example.org"))[0]
			if !strings.HasPrefix(r.Reply.String(), c.want) || !r.Reply.Temporary() || s.Count() > 0 {
				t.Errorf("%v", r.Reply)
			}
			noSecrets(t, w, r)
		})
	}
}

func TestGarbageAsReplyToThePassword(t *testing.T) {
	// An unreadable reply is quoted in the error: it must not be our own words come back.
	s, w, c := smarthost(t, sink.Options{Reply: script("auth", "", "AUTH PLAIN "+b64("\x00me\x00open sesame"))}, "relay.example")
	route := Route{Domain: "example.org", Hosts: []string{"relay.example"}, TLS: StartTLS, User: "me", Password: "open sesame"}
	r := c.Deliver(t.Context(), route, message(text, "a@example.org"))[0]
	if r.Reply.Code != 451 || s.Count() > 0 {
		t.Error(r.Reply)
	}
	noSecrets(t, w, r)
}

// A connection in the clear is nothing for a route that wants TLS, and one that logged in as
// somebody is nothing for somebody else.
func TestRoutesDoNotShareConnections(t *testing.T) {
	s, _, c := smarthost(t, sink.Options{Reply: func(stage, _ string, _ int) string { return "" }}, "relay.example")
	base := Route{Domain: "example.org", Hosts: []string{"relay.example"}, TLS: StartTLS, User: "me", Password: "open sesame"}
	wrong := base
	wrong.Password = "open barley"
	for i, route := range []Route{base, wrong, base} {
		r := c.Deliver(t.Context(), route, message(text, "a@example.org"))[0]
		if (r.Reply.Code == 250) != (i != 1) {
			t.Errorf("%d: %v", i, r.Reply)
		}
	}
	if s.Connections() != 2 {
		t.Errorf("%d connections", s.Connections())
	}
}

func TestTLSOfBothFamilies(t *testing.T) {
	conf, pool := serverTLS(t, "mx.test")
	s := startSink(t, sink.Options{TLSConfig: conf})
	w := newWorld()
	w.mx["example.org"] = []dns.MX{{Host: "mx.test", Preference: 10}}
	w.host("mx.test", "2001:db8::1", s)
	c := w.client(t, func(o *Options) { o.RootCAs = pool })
	route := Route{Domain: "example.org", TLS: StartTLS}
	if r := c.Deliver(t.Context(), route, message(text, "a@example.org"))[0]; r.Reply.Code != 250 || r.Host != "mx.test [2001:db8::1]" {
		t.Errorf("%v by %s", r.Reply.Error(), r.Host)
	}
}
