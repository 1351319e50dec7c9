package smtpd

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayd/bans"
	"relayd/config"
	"relayd/dns"
	"relayd/domains"
	"relayd/filter"
	"relayd/internal/testnet"
	"relayd/mailauth"
	"relayd/queue"
	"relayd/relay"
	"relayd/srs"
	"relayd/users"
)

// forwardPaths are the ways in which a forward-path has made one server or another relay. {l} and
// {d} stand for the name and the domain that somebody wants to reach, {L} and {D} for the same in
// capitals, {h} for a hosted domain and {me} for our host name. A path with own is one that leads
// to this server whatever {l} and {d} are.
var forwardPaths = []struct {
	what, path string
	own        bool
}{
	{what: "plain", path: "<{l}@{d}>"},
	{what: "without brackets", path: "{l}@{d}"},
	{what: "a space before", path: " <{l}@{d}>"},
	{what: "a tab before", path: "\t<{l}@{d}>"},
	{what: "capitals", path: "<{L}@{D}>"},

	{what: "percent hack", path: "<{l}%{d}@{h}>"},
	{what: "percent hack without a domain", path: "<{l}%{d}>"},
	{what: "percent hack by our host name", path: "<{l}%{d}@{me}>"},
	{what: "percent hack by localhost", path: "<{l}%{d}@localhost>"},
	{what: "percent hack by our address", path: "<{l}%{d}@[127.0.0.1]>"},
	{what: "percent hack, quoted", path: `<"{l}%{d}"@{h}>`},
	{what: "percent hack to the postmaster", path: "<postmaster%{d}@{h}>"},
	{what: "two percent signs", path: "<{l}%{d}%{h}@{me}>"},

	{what: "bang path", path: "<{d}!{l}>"},
	{what: "bang path at a hosted domain", path: "<{d}!{l}@{h}>"},
	{what: "bang path at our host name", path: "<{d}!{l}@{me}>"},
	{what: "bang path through a hosted domain", path: "<{h}!{d}!{l}>"},
	{what: "bang path, quoted", path: `<"{d}!{l}"@{h}>`},
	{what: "bang and at", path: "<{h}!{l}@{d}>"},
	{what: "DECnet", path: "<{d}::{l}@{h}>"},
	{what: "DECnet, quoted", path: `<"{d}::{l}"@{h}>`},

	{what: "source route", path: "<@{h}:{l}@{d}>"},
	{what: "source route of two", path: "<@{h},@{me}:{l}@{d}>"},
	{what: "source route and percent", path: "<@{me}:{l}%{d}@{h}>"},
	{what: "source route of an address", path: "<@[127.0.0.1]:{l}@{d}>"},
	{what: "source route without an end", path: "<@{h}:@{d}>"},

	{what: "quoted whole", path: `<"{l}@{d}">`},
	{what: "quoted whole without brackets", path: `"{l}@{d}"`},
	{what: "quoted at a hosted domain", path: `<"{l}@{d}"@{h}>`},
	{what: "quoted at our host name", path: `<"{l}@{d}"@{me}>`},
	{what: "quoted at our address", path: `<"{l}@{d}"@[127.0.0.1]>`},
	{what: "quoted name", path: `<"{l}"@{d}>`},
	{what: "quoted brackets", path: `<"<{l}@{d}>"@{h}>`},
	{what: "quoted end of the path", path: `<"x> {l}@{d} <"@{h}>`},
	{what: "backslash", path: `<{l}\@{d}@{h}>`},

	{what: "nested brackets", path: "<<{l}@{d}>>"},
	{what: "brackets in brackets", path: "<x@{h}<{l}@{d}>>"},
	{what: "ours behind another", path: "<{l}@{d}@{h}>"},
	{what: "another behind ours", path: "<{l}@{h}@{d}>"},
	{what: "another before our address", path: "<{l}@{d}@[127.0.0.1]>"},
	{what: "two at signs", path: "<{l}@@{d}>"},

	{what: "our address", path: "<{l}@[127.0.0.1]>"},
	{what: "our address in IPv6", path: "<{l}@[IPv6:::1]>"},
	{what: "our address, mapped", path: "<{l}@[IPv6:::ffff:127.0.0.1]>"},
	{what: "our address without brackets", path: "<{l}@127.0.0.1>"},
	{what: "our address as one number", path: "<{l}@2130706433>"},
	{what: "another address", path: "<{l}@[192.0.2.25]>"},
	{what: "a name in square brackets", path: "<{l}@[{d}]>"},
	{what: "postmaster at another address", path: "<postmaster@[192.0.2.25]>"},
	{what: "postmaster at our address", path: "<postmaster@[127.0.0.1]>", own: true},
	{what: "postmaster there", path: "<postmaster@{d}>", own: true},
	{what: "postmaster", path: "<postmaster>", own: true},
	{what: "abuse", path: "<abuse>", own: true},

	{what: "null", path: "<>"},
	{what: "nothing", path: ""},
	{what: "an at sign", path: "<@>"},
	{what: "no name", path: "<@{d}>"},
	{what: "no domain", path: "<{l}@>"},
	{what: "no at sign", path: "<{l}>"},
	{what: "localhost", path: "<{l}@localhost>"},
	{what: "our host name", path: "<{l}@{me}>"},

	{what: "dot behind", path: "<{l}@{d}.>"},
	{what: "two dots behind", path: "<{l}@{d}..>"},
	{what: "dot before", path: "<{l}@.{d}>"},
	{what: "our domain as its child", path: "<{l}@{d}.{h}>"},
	{what: "our domain as its parent", path: "<{l}@{h}.{d}>"},

	{what: "spaces inside", path: "< {l}@{d} >"},
	{what: "a space in the name", path: "<{l} @{d}>"},
	{what: "a space in the domain", path: "<{l}@ {d}>"},
	{what: "a tab in the domain", path: "<{l}@{d}\t@{h}>"},
	{what: "a comment in the name", path: "<{l}(x@{h})@{d}>"},
	{what: "a comment behind", path: "<{l}@{d}(@{h})>"},
	{what: "a bare CR", path: "<x@{h}\r{l}@{d}>"},
	{what: "NUL", path: "<{l}@{d}\x00@{h}>"},

	{what: "a second path", path: "<x@{h}> <{l}@{d}>"},
	{what: "a list of paths", path: "<x@{h}>,<{l}@{d}>"},
	{what: "a list in a path", path: "<x@{h},{l}@{d}>"},
	{what: "semicolon", path: "<{l}@{d};x@{h}>"},
	{what: "ORCPT of ours", path: "<{l}@{d}> ORCPT=rfc822;x@{h}"},
	{what: "NOTIFY", path: "<{l}@{d}> NOTIFY=NEVER"},
	{what: "AUTH behind RCPT", path: "<{l}@{d}> AUTH=<>"},
	{what: "URL", path: "<mailto:{l}@{d}>"},
	{what: "transport before", path: "<smtp:{l}@{d}>"},
	{what: "transport in square brackets", path: "<[SMTP:{l}@{d}]>"},
	{what: "IMCEA", path: "<IMCEASMTP-{l}+40{d}@{h}>"},
	{what: "equals sign", path: "<{l}={d}@{h}>"},
	{what: "VERP", path: "<x+{l}={d}@{h}>", own: true},

	{what: "UTF-8 name", path: "<{l}é@{d}>"},
	{what: "full width at sign", path: "<{l}＠{d}@{h}>"},
	{what: "full width domain", path: "<{l}@{h}．{d}>"},
	{what: "ideographic full stop", path: "<{l}@{d}。>"},
	{what: "Cyrillic look-alike of ours", path: "<{l}@ѕtrict.test>"},
	{what: "zero width space", path: "<{l}@{d}\u200b.{h}>"},
	{what: "bytes that are not UTF-8", path: "<{l}@{d}\xff.{h}>"},
}

// A realSite is the relay itself behind an MX and a submission port, with a queue that nobody works on:
// what stands in it is what would leave.
type realSite struct {
	mx, submission *testServer
	queue          *queue.Queue
}

// closedHouse hosts strict.test, with one address and no catch-all, and open.test with a catch-all.
func closedHouse(t *testing.T) *realSite {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"strict.test/aliases": "only: box@mailbox.test\nx: box@mailbox.test\napp: box@mailbox.test\n",
		"open.test/aliases":   "*: box@mailbox.test\n",
		"strict.test/users":   "app:$2y$04$Vv4TgbiYqnfduqQ11ImK5uCbTT9JOWqExfekF0PAB8oLoflETPQMG\n",
	} {
		file := filepath.Join(dir, "domains", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	conf, err := config.Parse(filepath.Join(dir, "relayd.toml"), []byte("hostname = \"mx.example.test\"\n[forward]\nanswer_within = \"0s\"\n[limits]\ncatchall_addresses = 100000\n"))
	if err != nil {
		t.Fatal(err)
	}
	rewriter, err := srs.New(srs.Options{Secrets: [][]byte{[]byte("secret")}})
	if err != nil {
		t.Fatal(err)
	}
	resolver := dns.New(dns.Options{Servers: []string{testnet.NewDNS(t, "").Addr()}})
	world := domains.Open(domains.Options{Dir: conf.DomainsDir(), Log: discard()})
	store, err := queue.OpenStore(queue.StoreOptions{Dir: filepath.Join(dir, "queue"), Group: func(r *queue.Recipient) string { return r.Address.Domain }, Log: discard()})
	if err != nil {
		t.Fatal(err)
	}
	opt := relay.Options{
		Config: conf, Domains: world.Current, SRS: rewriter, Log: slog.New(slog.DiscardHandler), Now: time.Now,
		Bans: bans.Open(bans.Options{
			Load: func() ([]byte, error) { return nil, nil }, Save: func([]byte) error { return nil }, Now: time.Now, Log: discard(),
		}),
		Checker:  mailauth.New(mailauth.Options{Resolver: resolver, Hostname: conf.Hostname, Now: time.Now}),
		Filter:   filter.New(filter.Options{Hostname: conf.Hostname, Resolver: resolver, Now: time.Now, Log: discard()}),
		Verifier: users.NewVerifier(users.VerifierOptions{Cost: users.MinCost}),
	}
	q := queue.New(queue.Options{Hostname: conf.Hostname, Lifetime: time.Hour, Workers: 1, PerGroup: 1, Sign: opt.Sign, Log: discard()}, store, nil)
	in := relay.NewInbound(opt, q)
	site := &realSite{queue: q}
	for _, submission := range []bool{false, true} {
		s := serveRelay(t, in, func(o *Options) {
			o.Submission = submission
			o.Limits.Errors, o.Limits.UnknownRecipients, o.Limits.Unhurried, o.Limits.Commands = 1e6, 1e6, 1e6, 1e6
		})
		if submission {
			site.submission = s
		} else {
			site.mx = s
		}
	}
	return site
}

// serveRelay is serve for another relay than the fake one.
func serveRelay(t *testing.T, r Relay, change func(*Options)) *testServer {
	t.Helper()
	opt := options(t)
	change(&opt)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &testServer{Server: New(opt, r), addr: l.Addr().String()}
	s.run(t, l)
	return s
}

// left lists where the mail in the queue would go, and empties the queue.
func (s *realSite) left(t *testing.T) []string {
	t.Helper()
	var to, ids []string
	s.queue.List(func(e *queue.Envelope) bool {
		for _, r := range e.Recipients {
			to = append(to, r.Address.String())
		}
		ids = append(ids, e.ID)
		return true
	})
	for _, id := range ids {
		if err := s.queue.Remove(id); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// A way to speak to the server.
type entrance struct {
	name    string
	senders []string
	dial    func(s *realSite, t *testing.T) *peer
}

var entrances = []entrance{
	{"25 in the clear", []string{"s@elsewhere.test", "", "only@strict.test", "s@[127.0.0.1]"}, func(s *realSite, t *testing.T) *peer { return s.mx.hello(t) }},
	{"25 under TLS", []string{"s@elsewhere.test", "", "only@strict.test", "s@mx.example.test"}, func(s *realSite, t *testing.T) *peer {
		d := s.mx.hello(t)
		d.startTLS()
		d.do("EHLO client.test", "250")
		return d
	}},
	{"587, not logged in", []string{"s@elsewhere.test", "", "app@strict.test"}, func(s *realSite, t *testing.T) *peer {
		d := s.submission.hello(t)
		d.startTLS()
		d.do("EHLO client.test", "250")
		return d
	}},
	// Logged in as app@strict.test, who may send to anybody, but not as one of these, nor may it say
	// that the message, which is From somebody else, is its own.
	{"587, as somebody else", []string{"s@elsewhere.test", "", "me@open.test", "user@victim.test"}, func(s *realSite, t *testing.T) *peer {
		d := s.submission.hello(t)
		d.startTLS()
		d.do("EHLO client.test", "250")
		d.do("AUTH PLAIN AGFwcEBzdHJpY3QudGVzdABzZWNyZXQ=", "235")
		return d
	}},
}

// subjects are whom the forward-path is about.
var subjects = []struct{ name, local, domain string }{
	{"hosted", "only", "strict.test"},
	{"SRS", "SRS0=AAAAAAAA=BB=victim.test=user", "strict.test"},
	{"foreign", "user", "victim.test"},
}

// No forward-path, by whatever door it comes, has mail leave for anywhere but the targets of our
// own aliases.
func TestNoForwardPathMakesThisAnOpenRelay(t *testing.T) {
	site := closedHouse(t)
	tried, accepted := 0, 0
	for _, e := range entrances {
		for _, about := range subjects {
			t.Run(e.name+", "+about.name, func(t *testing.T) {
				for _, host := range []string{"strict.test", "open.test"} {
					d := e.dial(site, t)
					for _, sender := range e.senders {
						for _, f := range forwardPaths {
							path := strings.NewReplacer("{l}", about.local, "{d}", about.domain, "{L}", strings.ToUpper(about.local),
								"{D}", strings.ToUpper(about.domain), "{h}", host, "{me}", "mx.example.test").Replace(f.path)
							tried++
							taken := d.attempt(sender, path)
							if taken {
								accepted++
							}
							if taken && about.name != "hosted" && host == "strict.test" && !f.own {
								t.Errorf("%s: RCPT TO:%s from <%s> was taken", f.what, path, sender)
							}
							for _, to := range site.left(t) {
								if !slices.Contains([]string{"box@mailbox.test", "postmaster@strict.test", "postmaster@mx.example.test", "abuse@mx.example.test"}, to) {
									t.Errorf("%s: RCPT TO:%s from <%s> has mail leave for %s", f.what, path, sender, to)
								}
							}
						}
					}
					d.do("QUIT", "221")
				}
			})
		}
	}
	t.Logf("%d forward-paths in %d forms were tried; %d were taken, all for here", tried, len(forwardPaths), accepted)
	if accepted == 0 {
		t.Error("nothing at all was taken: the test proves nothing")
	}
}

// attempt takes a message as far as the server lets it, and reports whether it was taken.
func (d *peer) attempt(sender, path string) bool {
	d.t.Helper()
	utf8 := ""
	if !isASCII(path) {
		utf8 = " SMTPUTF8"
	}
	d.send(fmt.Sprintf("RSET\r\nMAIL FROM:<%s>%s\r\nRCPT TO:%s\r\nDATA\r\n", sender, utf8, path))
	d.expect("250")
	mail, rcpt := d.read(), d.read()
	if mail[0] != '2' && rcpt[0] == '2' {
		d.t.Errorf("MAIL got %q, yet RCPT TO:%s got %q", mail, path, rcpt)
	}
	if got := d.read(); !strings.HasPrefix(got, "354") {
		if rcpt[0] == '2' || got[0] != '5' {
			d.t.Errorf("RCPT TO:%s got %q, DATA got %q", path, rcpt, got)
		}
		return false
	}
	if rcpt[0] != '2' {
		d.t.Errorf("RCPT TO:%s got %q, and DATA 354", path, rcpt)
	}
	d.send("From: user@victim.test\r\n\r\nbuy\r\n.\r\n")
	return d.read()[0] == '2'
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r > 0x7f }) < 0
}
