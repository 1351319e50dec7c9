//go:build interop

package interop

import (
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"relayd/internal/sink"
	"relayd/internal/testnet"
)

// A pair is relayd in one namespace, with the domain example.test, and in another one the host
// mx.dest.test for a server of others. Between them is a cable.
type pair struct {
	*site
	dest *namespace
	cert testnet.Certificate // for mx.dest.test
}

// newPair makes a pair with relayd.toml as newSite does. role tells it from others of the same time.
func newPair(t testing.TB, role, settings string) *pair {
	t.Helper()
	const relayIP, destIP = "10.99.0.1", "10.99.0.2"
	p := &pair{dest: newNamespace(t, role, destIP), cert: testnet.Cert(t, "mx.dest.test")}
	relay := newNamespace(t, role+"-relay", destIP)
	link(t, relay, p.dest, relayIP+"/24", destIP+"/24")
	p.site = newSite(t, settings)
	p.ns = relay
	p.addDomain("example.test", "*: box@dest.test\n", "app")
	p.dest.dnsmasq(fmt.Sprintf("interface=lo\ninterface=eth0\nhost-record=mx.dest.test,%s\nhost-record=%s,%s\nmx-host=dest.test,mx.dest.test,10\nmx-host=example.test,%s,10\n",
		destIP, hostname, relayIP, hostname), nil)
	return p
}

// submitMany submits n messages of 4 KiB from a user to box@dest.test, and returns their IDs.
func (p *pair) submitMany(n int) (ids map[string]bool) {
	p.t.Helper()
	return p.submitTo(n, func() net.Conn { return p.ns.dial("127.0.0.1:465") }, func(int) string { return "box@dest.test" })
}

// submitTo submits n messages of 4 KiB from a user, several at a time, and returns their IDs. connect
// connects to port 465, and the recipient of each message is to.
func (s *site) submitTo(n int, connect func() net.Conn, to func(n int) string) (ids map[string]bool) {
	s.t.Helper()
	ids = map[string]bool{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for k := range 12 {
		c := newDialog(s.t, tls.Client(connect(), s.tlsConfig()))
		c.expect("the greeting", "220 ")
		c.say("EHLO client.test", "250 ")
		if got := c.login("app@example.test", password); !strings.HasPrefix(got, "235 ") {
			s.t.Fatal(got)
		}
		wg.Go(func() {
			for i := k; i < n; i += 12 {
				id := fmt.Sprintf("message-%d-of-%d", i, n)
				if got := c.transaction("app@example.test", to(i), fourKiB(id)); !strings.HasPrefix(got, "250 2.0.0 Ok: queued as ") {
					s.t.Errorf("%s: %s", id, got)
					return
				}
				mu.Lock()
				ids[id] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return ids
}

// fourKiB is a message of about that size.
func fourKiB(id string) []byte {
	return []byte("From: app@example.test\r\nSubject: load\r\n\r\n" + id + "\r\n" + strings.Repeat(strings.Repeat("x", 76)+"\r\n", 52))
}

var loadID = regexp.MustCompile(`message-\d+-of-\d+`)

// arrivesOnce has so many messages submitted, which must arrive once each, and counts the connections
// that the server speaks of in its own log.
func (p *pair) arrivesOnce(n int, received func() map[string][]byte, connections func() int) {
	t := p.t
	t.Helper()
	d := p.start()
	ids := p.submitMany(n)
	waitFor(t, "everything has arrived", patience, func() bool { return len(received()) >= len(ids) })
	waitFor(t, "the queue is empty", patience, func() bool { return !strings.Contains(p.mustUtil("queue-list", "--json"), `"sender"`) })
	d.stop() // so that nothing more comes
	copies := map[string]int{}
	for _, text := range received() {
		copies[loadID.FindString(string(text))]++
	}
	for id := range ids {
		if copies[id] != 1 {
			t.Errorf("%s arrived %d times", id, copies[id])
		}
	}
	count := connections()
	t.Logf("%d messages over %d connections", len(ids), count)
	if len(copies) != len(ids) || count == 0 || count > mostConnections {
		t.Errorf("%d messages arrived, over %d connections; wanted are %d over %d at most", len(copies), count, len(ids), mostConnections)
	}
	if d.log.has("sending without TLS") {
		t.Errorf("the log of relayd:\n%s", d.log.tail(40))
	}
}

// reused messages and mostConnections: what a server of others must find when much mail comes at once.
const (
	reused          = 200
	mostConnections = 10
)

func TestEximReceives(t *testing.T) {
	t.Parallel()
	p := newPair(t, "exim", "")
	h := newHousehold(p.dest, "exim4-daemon-light", []string{"Debian-exim"}, map[string]string{
		"mx.pem": string(p.cert.Chain), "mx.key": string(p.cert.Key),
		"exim4/exim4.conf": `primary_hostname = mx.dest.test
exim_path = /var/package/usr/sbin/exim4
daemon_smtp_ports = 25
log_file_path = DIR/mail/%slog
log_selector = +smtp_connection
deliver_drop_privilege
never_users =
tls_advertise_hosts = *
tls_certificate = /var/spool/exim4/mx.pem
tls_privatekey = /var/spool/exim4/mx.key
acl_smtp_rcpt = acl_rcpt
# Else it leaves what comes after ten messages of a connection to its next queue run.
smtp_accept_queue_per_connection = 0
begin acl
acl_rcpt:
  accept domains = dest.test
begin routers
all:
  driver = accept
  transport = box
begin transports
box:
  driver = appendfile
  directory = DIR/mail
  maildir_format
  user = Debian-exim
`,
	})
	log := newLogbook()
	const prepare = "mkdir /var/spool/exim4 && cp /etc/mx.* /var/spool/exim4/ && chown -R Debian-exim /var/spool/exim4 DIR/mail"
	done := p.dest.background(h.command(strings.ReplaceAll(prepare, "DIR", h.dir), "sbin/exim4", "-bdf"), log)
	p.dest.awaitPort(25, done)
	p.arrivesOnce(reused, h.received, func() int {
		text, err := os.ReadFile(h.path("mail/mainlog"))
		if err != nil {
			t.Error(err)
		}
		return strings.Count(string(text), "SMTP connection from [10.99.0.1]")
	})
}

func TestOpenSMTPDReceives(t *testing.T) {
	t.Parallel()
	p := newPair(t, "smtpd", "")
	h := newHousehold(p.dest, "opensmtpd", []string{"opensmtpd", "opensmtpq"}, map[string]string{
		"smtpd.conf": `listen on 0.0.0.0 hostname mx.dest.test
action "box" maildir "DIR/mail"
match from any for domain "dest.test" action "box"
`,
	})
	log := newLogbook()
	const prepare = "mkdir -p /var/lib/opensmtpd/empty && mount --bind /var/package/usr/libexec /usr/libexec"
	done := p.dest.background(h.command(prepare, "sbin/smtpd", "-d"), log)
	p.dest.awaitPort(25, done)
	p.arrivesOnce(reused, h.received, func() int { return strings.Count(log.tail(1<<30), " smtp connected address=10.99.0.1") })
}

func TestPostfixReceives(t *testing.T) {
	t.Parallel()
	p := newPair(t, "postfix", "")
	p.write("mx.pem", string(p.cert.Key)+string(p.cert.Chain))
	certificate := "smtpd_tls_security_level = may\nsmtpd_tls_chain_files = " + p.path("mx.pem") + "\n"
	post, log := startPostfix(p.dest, "ipv4", certificate)
	p.arrivesOnce(reused, func() map[string][]byte { return readMaildir(post.path("mail/box")) }, func() int {
		return strings.Count(log.tail(1<<30), "]: connect from ")
	})
}

// TestManyMessagesToOneHost: 5,000 messages for 500 domains whose mail one host takes are one group,
// and at most 5 connections for 100 of them. A connection that bore 20 messages and no more would be at 5
// per 100 already without the last of those that are open at a time; it bears 100, which leaves room.
func TestManyMessagesToOneHost(t *testing.T) {
	t.Parallel()
	const messages, most = 5000, 250
	snk, err := sink.Start(sink.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(snk.Close)
	_, port, _ := net.SplitHostPort(snk.Addr())
	zone := "mx.host.test. A 127.0.0.1\n"
	for n := range 500 {
		zone += fmt.Sprintf("d%d.test. MX 10 mx.host.test.\n", n)
	}
	names := testnet.NewDNS(t, zone)
	s := newSite(t, fmt.Sprintf("%s[dns]\nservers = [%q]\n[outbound]\nport = %s\n", localListeners, names.Addr(), port))
	s.addDomain("example.test", "", "app")
	if err := os.Remove(s.path("domains/example.test/dkim/r1.pem")); err != nil { // whose signatures take most of the time
		t.Fatal(err)
	}
	d := s.start()
	ids := s.submitTo(messages, func() net.Conn {
		conn, err := net.DialTimeout("tcp", d.address("submissions"), patience)
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}, func(n int) string { return fmt.Sprintf("box@d%d.test", n%500) })
	copies := map[string]int{}
	for _, m := range arrived(t, snk, len(ids)) {
		copies[loadID.FindString(string(m.Data))]++
	}
	for id := range ids {
		if copies[id] != 1 {
			t.Errorf("%s arrived %d times", id, copies[id])
		}
	}
	t.Logf("%d messages over %d connections: %.2f %%", len(ids), snk.Connections(), 100*float64(snk.Connections())/float64(len(ids)))
	if len(ids) != messages || snk.Connections() > most {
		t.Errorf("%d messages over %d connections", len(ids), snk.Connections())
	}
	out := s.mustUtil("destinations", "--json")
	if strings.Count(out, `"name"`) != 1 || !strings.Contains(out, `"host.test"`) {
		t.Errorf("the destinations are\n%s", out)
	}
}
