//go:build interop

package interop

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// What `relay-util dns --zone` prints is loaded by a real name server as it stands, and turns
// `relay-util dns --check` from red to green.
func TestPrintedZoneTurnsTheCheckGreen(t *testing.T) {
	n := newNamespace(t, "doctor", "127.0.0.1")
	ip(t, "-n", n.name, "address", "add", "192.0.2.1/32", "dev", "lo")
	ip(t, "-n", n.name, "address", "add", "2001:db8::25/128", "dev", "lo")
	ip(t, "-n", n.name, "address", "add", "10.53.0.1/32", "dev", "lo") // the name server's; the world would not see it
	n.dnsmasq("listen-address=127.0.0.1\nbind-interfaces\ncache-size=0\nserver=/example.test/10.53.0.1\n"+
		"server=/192.in-addr.arpa/10.53.0.1\nserver=/ip6.arpa/10.53.0.1\n", nil)
	s := newSite(t, "") // on the usual ports
	s.ns = n
	s.addDomain("example.test", "*: you@mailbox.test\n", "app")

	zones := []string{"example.test", "192.in-addr.arpa", "ip6.arpa"}
	serial := 0
	write := func(records map[string]string) {
		serial++
		for _, zone := range zones {
			s.write(zone+".zone", fmt.Sprintf("$TTL 300\n%s. SOA ns.example.test. hostmaster.example.test. %d 3600 600 86400 60\n%[1]s. NS ns.example.test.\n%[3]s",
				zone, serial, records[zone]))
			mustRun(t, s.command(peer(t, "nsd-checkzone"), zone, s.path(zone+".zone")))
		}
	}
	const here = "ns.example.test. A 10.53.0.1\n"
	write(map[string]string{"example.test": here})
	nsd := startNSD(t, s, zones)

	stdout, stderr, code := s.util("dns", "example.test", "--check")
	for _, want := range []string{"MX example.test", "A mx.example.test", "AAAA mx.example.test", "SPF example.test", "SPF mx.example.test",
		"DKIM r1._domainkey.example.test", "DKIM e1._domainkey.example.test", "DMARC _dmarc.example.test"} {
		if !strings.Contains(stdout, "FAIL  "+want+": there is none\n") {
			t.Errorf("nothing is said of the missing %s", want)
		}
	}
	if code != 1 || strings.Contains(stdout, "name servers") {
		t.Fatalf("exit code %d\n%s%s", code, stdout, stderr)
	}

	printed := s.mustUtil("dns", "example.test", "--zone", "--all")
	records := map[string]string{"example.test": here + printed}
	for _, ptr := range regexp.MustCompile(`(?m)^;(\S+\.(192\.in-addr\.arpa|ip6\.arpa)\. IN PTR .*)$`).FindAllStringSubmatch(printed, -1) {
		records[ptr[2]] += ptr[1] + "\n"
	}
	if len(records) != 3 {
		t.Fatalf("no reverse DNS for both families is in:\n%s", printed)
	}
	write(records)
	if err := nsd.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the check turns green", patience, func() bool {
		stdout, stderr, code = s.util("dns", "example.test", "--check")
		return code == 0
	})
	if strings.Contains(stdout, "warn") || strings.Contains(stdout, "FAIL") || stderr != "" {
		t.Errorf("%s%s", stdout, stderr)
	}
	checkAll(t, s)
}

// checkAll runs relay-util check beside a relayd, which also plays the part of the world's mail server.
func checkAll(t *testing.T, s *site) {
	t.Helper()
	s.start()
	t.Setenv("SSL_CERT_FILE", s.path("ca.pem"))
	stdout, stderr, code := s.util("check", "--target", hostname)
	for _, want := range []string{
		"ok    settings: ", "ok    rights of files: ", "ok    relayd: it runs", "ok    queue: ", "ok    port of smtp, :25: relayd listens",
		"FAIL  certificate at submission, [::]:587: mx.example.test, good for 0 days", "FAIL  certificate at submissions, [::]:465: mx.example.test, good for 0 days",
		"ok    reverse DNS of 192.0.2.1: ", "ok    reverse DNS of 2001:db8::25: ", "FAIL  resolver: it does not answer", // for the root
		"ok    port 25 outwards, IPv4: mx.example.test takes mail from here, by TLS 1.3", "ok    port 25 outwards, IPv6: mx.example.test takes mail",
		"info  block list zen.spamhaus.org: not checked", "ok    records of example.test: all are right", "info  DMARC example.test: ",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if code != 1 || strings.Count(stdout, "FAIL") != 3 || stderr != "" || t.Failed() {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
}

// startNSD serves zones from their files in the site's folder, on 10.53.0.1.
func startNSD(t testing.TB, s *site, zones []string) *os.Process {
	t.Helper()
	conf := fmt.Sprintf("server:\n ip-address: 10.53.0.1\n server-count: 1\n username: \"\"\n pidfile: \"\"\n database: \"\"\n zonesdir: %q\n"+
		" xfrdfile: %q\n zonelistfile: %q\n verbosity: 1\nremote-control:\n control-enable: no\n", s.dir, s.path("xfrd.state"), s.path("zone.list"))
	for _, zone := range zones {
		conf += fmt.Sprintf("zone:\n name: %s\n zonefile: %s.zone\n", zone, zone)
	}
	s.write("nsd.conf", conf)
	log := newLogbook()
	cmd := s.command(peer(t, "nsd"), "-d", "-c", s.path("nsd.conf"))
	done := s.ns.background(cmd, log)
	log.await(t, "nsd has started", func(l logLine) bool { return strings.Contains(l.text("msg"), "nsd started") }, done)
	return cmd.Process
}
