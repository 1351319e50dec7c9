//go:build interop

package interop

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
)

// A postfix is an instance of Postfix with all of its folders in a temporary one.
type postfix struct {
	ns  *namespace
	dir string
}

// startPostfix runs Postfix in a namespace, as the destination dest.test with the mailboxes
// box@dest.test and other@dest.test. settings are more lines of main.cf. It also returns its log.
func startPostfix(ns *namespace, protocols, settings string) (*postfix, *logbook) {
	t := ns.t
	t.Helper()
	dir, err := os.MkdirTemp("", "relayd-postfix-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &postfix{ns: ns, dir: dir}
	owner, err := user.Lookup("postfix")
	if err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"etc", "queue", "data", "mail"} {
		if err := os.Mkdir(p.path(sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var uid, gid int
	fmt.Sscan(owner.Uid, &uid)
	fmt.Sscan(owner.Gid, &gid)
	err = errors.Join(os.Chmod(dir, 0o755), os.Chown(p.path("data"), uid, gid), os.Chown(p.path("mail"), uid, gid))
	if err != nil {
		t.Fatal(err)
	}
	p.configure(protocols, owner.Uid, owner.Gid, settings)
	log := newLogbook()
	done := ns.background(ns.command(peer(t, "postfix"), "-c", p.path("etc"), "start-fg"), log)
	t.Cleanup(func() { // before the signal to the script, which would leave its child behind
		if out, err := ns.command(peer(t, "postfix"), "-c", p.path("etc"), "abort").CombinedOutput(); err != nil {
			t.Errorf("stopping Postfix: %v\n%s", err, out)
		}
	})
	log.await(t, "Postfix has started", func(l logLine) bool { return strings.Contains(l.text("msg"), "daemon started") }, done)
	return p, log
}

func (p *postfix) path(name string) string { return filepath.Join(p.dir, name) }

func (p *postfix) configure(protocols, uid, gid, settings string) {
	p.ns.t.Helper()
	main := fmt.Sprintf(`compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
maillog_file = /dev/stdout
myhostname = mx.dest.test
mydestination =
mynetworks = 127.0.0.0/8 [::1]/128
inet_interfaces = all
inet_protocols = %[2]s
smtp_host_lookup = dns
smtp_tls_security_level = may
smtp_tls_loglevel = 1
virtual_mailbox_domains = dest.test
virtual_mailbox_base = %[1]s/mail
virtual_mailbox_maps = inline:{ box@dest.test=box/ other@dest.test=other/ }
virtual_uid_maps = static:%[3]s
virtual_gid_maps = static:%[4]s
virtual_minimum_uid = 1
`, p.dir, protocols, uid, gid)
	master := ""
	for _, line := range []string{
		"smtp inet n - n - - smtpd", "submission inet n - n - - smtpd", "pickup unix n - n 1 1 pickup", "cleanup unix n - n - 0 cleanup",
		"qmgr unix n - n 300 1 qmgr", "rewrite unix - - n - - trivial-rewrite", "bounce unix - - n - 0 bounce",
		"defer unix - - n - 0 bounce", "trace unix - - n - 0 bounce", "verify unix - - n - 1 verify",
		"flush unix n - n 1000? 0 flush", "smtp unix - - n - - smtp", "relay unix - - n - - smtp",
		"error unix - - n - - error", "retry unix - - n - - error", "virtual unix - n n - - virtual",
		"tlsmgr unix - - n 1000? 1 tlsmgr", "anvil unix - - n - 1 anvil", "scache unix - - n - 1 scache",
		"proxymap unix - - n - - proxymap", "postlog unix-dgram n - n - 1 postlogd",
	} {
		master += line + "\n"
	}
	err := errors.Join(os.WriteFile(p.path("etc/main.cf"), []byte(main+settings), 0o644), os.WriteFile(p.path("etc/master.cf"), []byte(master), 0o644))
	if err != nil {
		p.ns.t.Fatal(err)
	}
}

// await waits for n messages in a mailbox and returns them by file name.
func (p *postfix) await(mailbox string, n int) map[string][]byte {
	p.ns.t.Helper()
	var messages map[string][]byte
	waitFor(p.ns.t, fmt.Sprintf("%d messages in %s", n, mailbox), patience, func() bool {
		messages = readMaildir(p.path("mail/" + mailbox))
		return len(messages) >= n
	})
	return messages
}

// sendmail submits a message to Postfix as its own users do.
func (p *postfix) sendmail(from, to, text string) {
	p.ns.t.Helper()
	cmd := p.ns.command(peer(p.ns.t, "sendmail"), "-C", p.path("etc"), "-i", "-f", from, to)
	cmd.Stdin = strings.NewReader(text)
	mustRun(p.ns.t, cmd)
}

func TestPostfix(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, relay, post, mask, record, protocols, family string }{
		{"IPv4", "10.99.0.1", "10.99.0.2", "/24", "A", "ipv4", "auto"},
		{"IPv6 alone", "fd00:99::1", "fd00:99::2", "/64", "AAAA", "ipv6", "auto"},
	} {
		t.Run(c.name, func(t *testing.T) {
			relay := newNamespace(t, "relay", c.post)
			post := newNamespace(t, "post", c.post)
			link(t, relay, post, c.relay+c.mask, c.post+c.mask)
			s := newSite(t, "") // the ports, the resolver and the rest as an admin has them
			s.ns = relay
			s.addDomain("example.test", "*: box@dest.test\n", "app")
			post.dnsmasq(fmt.Sprintf("listen-address=%s\nbind-interfaces\nhost-record=mx.dest.test,%s\nhost-record=%s,%s\n"+
				"mx-host=dest.test,mx.dest.test,10\nmx-host=example.test,%s,10\n", c.post, c.post, hostname, c.relay, hostname), s.dnsRecords())
			p, _ := startPostfix(post, c.protocols, "")
			d := s.start()
			s.submitInside(relay, "other@dest.test", "out")
			p.checkArrival("other", "out", s)
			p.sendmail("friend@dest.test", "anything@example.test", "From: friend@dest.test\nTo: anything@example.test\nSubject: in\n\nHello\n")
			p.checkArrival("box", "in", s)
			if d.log.has(`"level":"ERROR"`) || d.log.has("sending without TLS") {
				t.Errorf("the log of relayd:\n%s", d.log.tail(40))
			}
		})
	}
}

// submitInside has curl submit a message in a namespace.
func (s *site) submitInside(ns *namespace, to, subject string) {
	s.t.Helper()
	cmd := ns.command(peer(s.t, "curl"), "-sS", "--ssl-reqd", "--cacert", s.path("ca.pem"), "--user", "app@example.test:"+password,
		"--mail-from", "app@example.test", "--mail-rcpt", to, "--crlf", "--upload-file", "-", "smtp://localhost:587")
	cmd.Stdin = strings.NewReader("From: app@example.test\nTo: " + to + "\nSubject: " + subject + "\n\nHello\n")
	mustRun(s.t, cmd)
}

// checkArrival: one message is in the mailbox, under the reverse-path that SPF of our domain
// allows, and signed by it.
func (p *postfix) checkArrival(mailbox, subject string, s *site) {
	t := p.ns.t
	t.Helper()
	for _, text := range p.await(mailbox, 1) {
		if !strings.Contains(string(text), "\nSubject: "+subject+"\n") {
			t.Errorf("%s has\n%s", mailbox, text)
		}
		first, _, _ := strings.Cut(string(text), "\n")
		if subject == "in" && !strings.HasPrefix(first, "Return-Path: <SRS0=") || !strings.HasSuffix(first, "@example.test>") {
			t.Errorf("%s: %s", subject, first)
		}
		list := verifyAll(t, map[string][]byte{"m": text}, s.dnsRecords())["m"]
		found := bySelector(list)
		if !found["r1"].OK || !found["e1"].OK {
			t.Errorf("%s: signatures: %v\n%s", subject, list, text)
		}
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "Received:") || strings.HasPrefix(line, "Return-Path:") {
				t.Logf("%s: %s", subject, strings.TrimSpace(line))
			}
		}
	}
}
