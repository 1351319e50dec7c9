package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"relayd/certs"
	"relayd/control"
	"relayd/delivery"
	"relayd/dns"
	"relayd/internal/sink"
	"relayd/internal/testnet"
	"relayd/problem"
	"relayd/rights"
)

func expect(t *testing.T, f Finding, status Status, text string) {
	t.Helper()
	if f.Status != status || !strings.Contains(f.Text+" → "+f.Do, text) || (f.Status == Fail) && f.Do == "" {
		t.Errorf("want %s %q, got %s", status, text, listing([]Finding{f}))
	}
}

func TestRunKeepsTheOrder(t *testing.T) {
	slow := make(chan struct{})
	last := 0
	list := Run(t.Context(), []Check{
		{"a", func(context.Context) []Finding { <-slow; return []Finding{{Subject: "a"}} }},
		{"b", func(context.Context) []Finding { close(slow); return []Finding{{Subject: "b"}, {Subject: "c"}} }},
	}, func(done, total int) {
		if done != last+1 || total != 2 {
			t.Errorf("%d of %d", done, total)
		}
		last = done
	})
	if len(list) != 3 || list[0].Subject+list[1].Subject+list[2].Subject != "abc" || last != 2 {
		t.Errorf("%+v", list)
	}
}

func TestRunOutOfTime(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	list := Run(ctx, []Check{{"a", func(context.Context) []Finding { return nil }}}, nil)
	expect(t, list[0], Warn, "no time left")
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "key.pem")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	places := []rights.Place{{Path: file, What: "private key", Secret: true}, {Path: filepath.Join(dir, "none"), What: "x", Secret: true}}
	for mode, want := range map[os.FileMode]struct {
		status Status
		text   string
	}{
		0o600: {OK, "1 secrets"}, 0o640: {OK, "1 secrets"}, 0o644: {Fail, "chmod o= "}, 0o660: {OK, "1 secrets"}, 0o602: {Fail, "can change this private key"},
	} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		expect(t, CheckFiles(dir, places)[0], want.status, want.text)
	}
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if readable(info, 99999, 99999) {
		t.Error("a stranger can read it")
	}
}

func TestSpace(t *testing.T) {
	for free, want := range map[uint64]Status{1 << 20: Fail, 500 << 20: Warn, 5 << 30: OK} {
		expect(t, judgeSpace("disk", free), want, "MB free")
	}
	for free, want := range map[uint64]Status{10: Fail, 5000: Warn, 1e6: OK} {
		expect(t, judgeInodes("disk", free, 1e6), want, "files can be made")
	}
	expect(t, judgeInodes("disk", 0, 0), OK, "as many files as fit")
	if list := CheckDisk(filepath.Join(t.TempDir(), "not", "there")); len(list) != 2 {
		t.Errorf("%+v", list)
	}
}

func TestListeners(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := New(Options{})
	wanted := map[string][]string{"smtp": {l.Addr().String()}, "submission": {"127.0.0.1:0"}, "submissions": {"systemd:x"}}
	list := d.CheckListeners(t.Context(), wanted, nil)
	expect(t, list[0], Fail, "another program has it")
	expect(t, list[1], OK, "free")
	if len(list) != 2 {
		t.Errorf("%+v", list)
	}
	list = d.CheckListeners(t.Context(), wanted, []string{"smtp"})
	expect(t, list[0], OK, "relayd listens")
	expect(t, list[1], Fail, "restart")
}

// mailWorld has a mail server at mail.example.org, port 25. What is rehearsed over IPv6 comes to it
// over IPv4.
func mailWorld(t *testing.T, opt sink.Options) *world {
	t.Helper()
	s, err := sink.Start(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	w := newWorld(t)
	w.change(t, "", "mail.example.org. A 192.0.2.25\nmail.example.org. AAAA 2001:db8::25")
	w.doctor.opt.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if address != "192.0.2.25:25" && address != "[2001:db8::25]:25" {
			return nil, errors.New("connection refused")
		}
		return new(net.Dialer).DialContext(ctx, network, s.Addr())
	}
	here := netip.MustParseAddrPort(s.Addr())
	client := delivery.New(delivery.Options{Hostname: "mx.example.org", Port: int(here.Port()), Resolver: at{w.doctor.opt.Resolver, here.Addr()}})
	t.Cleanup(client.Close)
	w.doctor.opt.Rehearse = func(ctx context.Context, trial delivery.Trial) (delivery.Rehearsal, error) {
		trial.Network = "ip4"
		return client.RehearseMX(ctx, trial)
	}
	return w
}

// at is a Resolver to which all hosts that exist are in one place.
type at struct {
	Resolver
	ip netip.Addr
}

func (a at) IP(ctx context.Context, host, network string) (dns.Answer[netip.Addr], error) {
	answer, err := a.Resolver.IP(ctx, host, network)
	answer.Records = []netip.Addr{a.ip}
	return answer, err
}

func (at) Confirm(context.Context, string) error { return nil }

func TestPort25(t *testing.T) {
	cert := testnet.Cert(t, "mail.example.org")
	conf := &tls.Config{Certificates: []tls.Certificate{cert.TLS}}
	answer := func(at, line string) func(string, string, int) string {
		return func(stage, _ string, _ int) string {
			if stage == at {
				return line
			}
			return ""
		}
	}
	for name, c := range map[string]struct {
		opt        sink.Options
		probe      Probe
		four, six  Status
		text, also string
	}{
		"open":          {sink.Options{TLSConfig: conf}, Probe{}, OK, OK, "takes mail from here, by TLS 1.3", ""},
		"no TLS":        {sink.Options{}, Probe{}, Warn, Warn, "offers no TLS", "strip"},
		"turned away":   {sink.Options{Reply: answer("greeting", "554 5.7.1 go away")}, Probe{}, Fail, Warn, "554 5.7.1 go away", ""},
		"no such user":  {sink.Options{TLSConfig: conf, Reply: answer("rcpt", "550 5.1.1 who")}, Probe{Recipient: "me@example.org"}, Warn, Warn, "not for the recipient: 550 5.1.1 who", "alias"},
		"about us":      {sink.Options{TLSConfig: conf, Reply: answer("rcpt", "550 5.7.25 no PTR record")}, Probe{Recipient: "me@example.org"}, Fail, Warn, "refuses mail from here: 550 5.7.25", ""},
		"IPv6 alone":    {sink.Options{Reply: answer("greeting", "554 no")}, Probe{Network: "ip6"}, Fail, "", "554 no", ""},
		"hangs up":      {sink.Options{Reply: answer("ehlo", "<close>")}, Probe{}, Fail, Warn, "silent or away", "firewall"},
		"TLS is broken": {sink.Options{TLSConfig: conf, Reply: answer("starttls", "454 4.7.0 no")}, Probe{}, Warn, Warn, "not by TLS: STARTTLS is not supported: 454 4.7.0 no", ""},
		"closed":        {sink.Options{}, Probe{Target: "mail.example.org:1"}, Fail, Warn, "seems to be closed", "smarthost"},
		"closed, spare": {sink.Options{}, Probe{Target: "mail.example.org:1", Spare: true}, Warn, Warn, "seems to be closed", "smarthost"},
		"unknown":       {sink.Options{}, Probe{Target: "none.example.org"}, Fail, Warn, "not checked", "--target"},
	} {
		t.Run(name, func(t *testing.T) {
			w := mailWorld(t, c.opt)
			p := c.probe
			p.Port = 25
			if p.Target == "" {
				p.Target = "mail.example.org"
			}
			list := w.doctor.CheckPort25(t.Context(), p)
			expect(t, list[0], c.four, c.text)
			expect(t, list[0], c.four, c.also)
			if p.Network != "" {
				return
			}
			expect(t, list[1], c.six, c.text)
			w.site.Addresses = w.site.Addresses[:1]
			expect(t, w.doctor.CheckPort25(t.Context(), p)[1], Info, "no IPv6 address")
		})
	}
}

// That the settings name an address which the machine does not have is no fault of the provider's.
func TestPort25FromAForeignAddress(t *testing.T) {
	w := mailWorld(t, sink.Options{})
	foreign := netip.MustParseAddr("192.0.2.77")
	client := delivery.New(delivery.Options{
		Hostname: "mx.example.org", Port: 25, Resolver: at{w.doctor.opt.Resolver, netip.MustParseAddr("127.0.0.1")}, SourceIPv4: foreign,
	})
	defer client.Close()
	w.doctor.opt.Rehearse = client.RehearseMX
	list := w.doctor.CheckPort25(t.Context(), Probe{Target: "mail.example.org", Port: 25, Network: "ip4"})
	expect(t, list[0], Fail, "not checked: No connection can come from 192.0.2.77")
	expect(t, list[0], Fail, "source_ipv4")
}

// Mail that leaves from one of several addresses is judged by that one.
func TestLeaving(t *testing.T) {
	four, six, inside := netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("2001:db8::7"), netip.MustParseAddr("10.0.0.7")
	if list, err := Leaving(four, six)(); err != nil || !slices.Equal(list, []netip.Addr{four, six}) {
		t.Errorf("%v, %v", list, err)
	}
	list, _ := Leaving(inside, six)()
	if !slices.Equal(list, []netip.Addr{six}) {
		t.Error(list)
	}
	all, _ := PublicAddresses()
	if list, _ = Leaving(netip.Addr{}, netip.Addr{})(); !slices.Equal(list, all) {
		t.Error(list)
	}
}

// No message may ever come out of a rehearsal.
func TestRehearsalSendsNothing(t *testing.T) {
	heard := make(chan string, 20)
	w := mailWorld(t, sink.Options{Reply: func(stage, _ string, _ int) string { heard <- stage; return "" }})
	w.site.Addresses = w.site.Addresses[:1]
	w.doctor.CheckPort25(t.Context(), Probe{Target: "mail.example.org", Recipient: "me@example.org"})
	for _, want := range []string{"greeting", "ehlo", "mail", "rcpt", "quit"} {
		if got := <-heard; got != want {
			t.Fatalf("%s instead of %s", got, want)
		}
	}
}

func TestServiceCertificate(t *testing.T) {
	good := testnet.Cert(t, "mail.example.org")
	other := testnet.Cert(t, "other.example.org")
	own, err := certs.SelfSigned("mail.example.org", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	short := good.TLS
	short.Certificate = short.Certificate[:1]
	for name, c := range map[string]struct {
		cert   tls.Certificate
		roots  *x509.CertPool
		after  time.Duration
		status Status
		text   string
	}{
		"another name":   {other.TLS, other.Pool, 0, Fail, "it is for other.example.org, and not for mail.example.org"},
		"self-signed":    {own, x509.NewCertPool(), 0, Fail, "self-signed"},
		"no public root": {good.TLS, other.Pool, 0, Fail, "no public authority"},
		"cut off":        {short, other.Pool, 0, Fail, "its chain is not complete"},
		"expired":        {good.TLS, good.Pool, 48 * time.Hour, Fail, "expired"},
		"nearly expired": {good.TLS, good.Pool, 0, Fail, "good for 0 days"},
	} {
		for _, implicit := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				w := mailWorld(t, sink.Options{TLSConfig: &tls.Config{Certificates: []tls.Certificate{c.cert}}, ImplicitTLS: implicit})
				w.doctor.opt.Now = func() time.Time { return time.Now().Add(c.after) }
				s := Service{"submission", "192.0.2.25:25", implicit}
				expect(t, w.doctor.CheckService(t.Context(), s, "mail.example.org", c.roots), c.status, c.text)
			})
		}
	}
	w := mailWorld(t, sink.Options{})
	expect(t, w.doctor.CheckService(t.Context(), Service{"x", "192.0.2.25:25", false}, "mail.example.org", nil), Fail, "shows none")
	expect(t, w.doctor.JudgeChain("files", nil, "mail.example.org", nil), Fail, "put fullchain.pem")
	w.doctor.opt.Now = func() time.Time { return own.Leaf.NotAfter.Add(-30 * 24 * time.Hour) }
	pool := x509.NewCertPool()
	pool.AddCert(own.Leaf)
	expect(t, w.doctor.JudgeChain("files", []*x509.Certificate{own.Leaf}, "mail.example.org", pool), OK, "good for 30 days")
	w.doctor.opt.Now = func() time.Time { return own.Leaf.NotAfter.Add(-5 * 24 * time.Hour) }
	expect(t, w.doctor.JudgeChain("files", []*x509.Certificate{own.Leaf}, "mail.example.org", pool), Warn, "renew it now")
}

func TestTLSA(t *testing.T) {
	cert := testnet.Cert(t, "mx.example.org")
	leaf, err := x509.ParseCertificate(cert.TLS.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	s := newWorld(t).site
	s.Certs = []*x509.Certificate{leaf}
	right := ""
	for _, r := range Further(s) {
		if r.Type == "TLSA" {
			right = r.Zone()
		}
	}
	w := newWorld(t)
	if list := w.doctor.CheckTLSA(t.Context(), "mx.example.org", s.Certs); list != nil {
		t.Errorf("%+v", list)
	}
	for record, want := range map[string]Status{right: OK, "_25._tcp.mx.example.org. TLSA 3 1 1 " + strings.Repeat("0", 64): Fail} {
		w := newWorld(t)
		w.change(t, "", record)
		expect(t, w.doctor.CheckTLSA(t.Context(), "mx.example.org", s.Certs)[0], want, "")
	}
}

func TestBlockLists(t *testing.T) {
	const alive = "2.0.0.127.bl.example.org. A 127.0.0.2\n"
	for name, c := range map[string]struct {
		zone    string
		serious bool
		status  Status
		text    string
	}{
		"not listed":        {alive, true, OK, "not listed"},
		"listed":            {alive + "1.2.0.192.bl.example.org. A 127.0.0.4\n1.2.0.192.bl.example.org. A 127.0.0.10", true, Fail, "192.0.2.1 is listed (127.0.0.10, 127.0.0.4)"},
		"listed by others":  {alive + "1.2.0.192.bl.example.org. A 127.0.0.4", false, Warn, "ask to be taken off: help"},
		"dead list":         {"", true, Info, "does not answer this resolver"},
		"refused resolver":  {"2.0.0.127.bl.example.org. A 127.255.255.254", true, Info, "127.255.255.254"},
		"refused afterward": {alive + "1.2.0.192.bl.example.org. A 127.255.255.252", true, Info, "not checked: the list does not answer"},
		"hijacked":          {"2.0.0.127.bl.example.org. A 203.0.113.1", true, Info, "makes up answers"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.change(t, "", strings.TrimSuffix(c.zone, "\n"))
			f := w.doctor.CheckBlockList(t.Context(), BlockList{Zone: "bl.example.org", Serious: c.serious, Help: "help"}, w.site.Addresses)
			if name == "listed" {
				f.Text = strings.Replace(f.Text, "127.0.0.4, 127.0.0.10", "127.0.0.10, 127.0.0.4", 1)
			}
			expect(t, f, c.status, c.text)
		})
	}
	w := newWorld(t)
	w.change(t, "", strings.TrimSuffix(alive, "\n"))
	expect(t, w.doctor.CheckBlockList(t.Context(), BlockList{Zone: "bl.example.org"}, []netip.Addr{netip.MustParseAddr("2001:db8::1")}), Info, "no address of ours")
}

func TestResolver(t *testing.T) {
	w := newWorld(t)
	w.resolver.Set(". SOA ns. hostmaster. 1 2 3 4 5\n")
	list := w.doctor.CheckResolver(t.Context(), true)
	expect(t, list[0], OK, "answers")
	expect(t, list[1], Info, "does not validate")
	w.resolver.Secure("*")
	expect(t, w.doctor.CheckResolver(t.Context(), true)[1], OK, "in use")
	expect(t, w.doctor.CheckResolver(t.Context(), false)[1], Info, "not on this machine")
	w.hurry()
	w.resolver.Silence("*")
	expect(t, w.doctor.CheckResolver(t.Context(), true)[0], Fail, "does not answer")
}

func TestClock(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	w := newWorld(t)
	for off, want := range map[time.Duration]Status{0: OK, -5 * time.Minute: Warn, time.Hour: Fail} {
		w.doctor.opt.Now = func() time.Time { return time.Now().Add(off) }
		f := w.doctor.CheckClock(t.Context(), server.Client(), server.URL)
		if f.Status != want {
			t.Errorf("%v: %+v", off, f)
		}
	}
	server.Close()
	expect(t, w.doctor.CheckClock(t.Context(), server.Client(), server.URL), Info, "not checked")
}

func TestSTS(t *testing.T) {
	policy := "version: STSv1\nmode: testing\nmx: mx.example.org\nmax_age: 604800\n"
	client := &http.Client{Transport: roundTrip(func(r *http.Request) *http.Response {
		rec := httptest.NewRecorder()
		if r.URL.String() == "https://mta-sts.example.org/.well-known/mta-sts.txt" && policy != "" {
			rec.WriteString(policy)
		} else {
			rec.WriteHeader(http.StatusNotFound)
		}
		return rec.Result()
	})}
	w := newWorld(t)
	expect(t, w.doctor.CheckSTS(t.Context(), client, "example.org")[0], Info, "relay-util dns example.org --all")
	w = newWorld(t)
	w.change(t, "", `_mta-sts.example.org. TXT "v=STSv1; id=1"`)
	expect(t, w.doctor.CheckSTS(t.Context(), client, "example.org")[0], Info, "change it to enforce")
	policy = strings.Replace(policy, "testing", "enforce", 1)
	expect(t, w.doctor.CheckSTS(t.Context(), client, "example.org")[0], OK, "enforce")
	policy = ""
	expect(t, w.doctor.CheckSTS(t.Context(), client, "example.org")[0], Warn, "404")
}

type roundTrip func(*http.Request) *http.Response

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r), nil }

func TestDaemon(t *testing.T) {
	d := New(Options{})
	list := d.CheckDaemon(control.Status{Version: "1"})
	if len(list) != 2 || list[0].Status != OK || list[1].Status != OK {
		t.Error(listing(list))
	}
	list = d.CheckDaemon(control.Status{
		Problems: problem.List{problem.At("users", 3, "no hash")}, Warnings: problem.List{problem.At("x", 0, "look")},
		Health: control.Health{Failure: "disk", Damaged: []string{"a"}}, Queue: control.QueueStatus{Held: 2, Oldest: time.Now().Add(-30 * time.Hour)},
	})
	for i, want := range []struct {
		status Status
		text   string
	}{{OK, "it runs"}, {Fail, "file users:3: no hash"}, {Warn, "file x: look"}, {Fail, "has failed: disk"}, {Fail, "queue-check"}, {Warn, "held: 2"}, {Warn, "30h"}} {
		if i >= len(list) || list[i].Status != want.status || !strings.Contains(list[i].Subject+": "+list[i].Text+list[i].Do, want.text) {
			t.Errorf("%d: %s", i, listing(list))
		}
	}
	expect(t, NoDaemon(control.ErrNotRunning), Fail, "systemctl start")
	expect(t, NoDaemon(os.ErrPermission), Fail, "sudo")
}

func TestWay(t *testing.T) {
	expect(t, CheckWay(t.Context(), "outbound.smarthost", func(context.Context) error { return nil }), OK, "lets us in")
	expect(t, CheckWay(t.Context(), "outbound.smarthost", func(context.Context) error { return errors.New("535 no") }), Fail, "535 no")
}

// What strangers say cannot write to a terminal.
func TestPlain(t *testing.T) {
	if f := finding(Fail, "x", "%s", "\x1b[2Jgone\u202e"); strings.ContainsAny(f.Text, "\x1b\u202e") {
		t.Errorf("%q", f.Text)
	}
}
