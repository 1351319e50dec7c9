//go:build interop

package interop

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"relayd/internal/testnet"
)

// tlsa is the record for the key of a certificate, as "3 1 1".
func tlsa(t testing.TB, host string, cert testnet.Certificate) string {
	t.Helper()
	leaf, err := x509.ParseCertificate(cert.TLS.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("_25._tcp.%s. TLSA 3 1 1 %x\n", host, sha256.Sum256(leaf.RawSubjectPublicKeyInfo))
}

// A signer signs zones with keys in a folder of its own.
type signer struct {
	t   testing.TB
	dir string
}

func (s *signer) run(program string, args ...string) string {
	s.t.Helper()
	cmd := exec.Command(peer(s.t, program), args...)
	cmd.Dir = s.dir
	return strings.TrimSpace(mustRun(s.t, cmd))
}

// sign writes the signed zone into NAME.signed and returns its trust anchor, a DNSKEY record.
func (s *signer) sign(zone, text string) (anchor string) {
	s.t.Helper()
	key := s.run("ldns-keygen", "-a", "ECDSAP256SHA256", "-k", zone)
	if err := os.WriteFile(filepath.Join(s.dir, zone), []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
	s.run("ldns-signzone", "-o", zone, "-f", zone+".signed", zone, key)
	record, err := os.ReadFile(filepath.Join(s.dir, key+".key"))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(record)
}

// breakSignature makes a signature over the records of a name one of nothing.
func (s *signer) breakSignature(zone, name, typ string) {
	s.t.Helper()
	file := filepath.Join(s.dir, zone+".signed")
	text, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	lines, broken := strings.Split(string(text), "\n"), 0
	for i, line := range lines {
		f := strings.Fields(line)
		if len(f) < 13 || f[0] != name+"." || f[3] != "RRSIG" || f[4] != typ {
			continue
		}
		f[12] = f[12][:20] + strings.Map(func(r rune) rune {
			if r == 'A' {
				return 'B'
			}
			return 'A'
		}, f[12][20:24]) + f[12][24:]
		lines[i] = strings.Join(f, " ")
		broken++
	}
	if broken != 1 {
		s.t.Fatalf("%s has %d signatures of %s", name, broken, typ)
	}
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// nsd serves zone files in the namespace, by the name of the zone.
func (n *namespace) nsd(ip, dir string, zones map[string]string) {
	n.t.Helper()
	conf := fmt.Sprintf("server:\n ip-address: %s\n username: \"\"\n zonesdir: %q\n pidfile: \"\"\n database: \"\"\n server-count: 1\n verbosity: 1\n"+
		" zonelistfile: \"zones.list\"\n xfrdfile: \"xfrd.state\"\n xfrdir: %q\n cookie-secret-file: \"\"\nremote-control:\n control-enable: no\n", ip, dir, dir)
	for zone, file := range zones {
		conf += fmt.Sprintf("zone:\n name: %q\n zonefile: %q\n", zone, file)
	}
	n.daemon("nsd", "nsd started", conf, "-d", "-c")
}

// unbound validates for the namespace at 127.0.0.1; it knows no more than one server and the trust
// anchors.
func (n *namespace) unbound(server string, zones []string, anchors ...string) {
	n.t.Helper()
	conf := "server:\n interface: 127.0.0.1\n username: \"\"\n chroot: \"\"\n directory: \"\"\n pidfile: \"\"\n use-syslog: no\n do-daemonize: no\n verbosity: 1\n" +
		" num-threads: 1\n do-ip6: no\n module-config: \"validator iterator\"\n local-zone: \"test.\" nodefault\n"
	for _, anchor := range anchors {
		conf += " trust-anchor: \"" + strings.Join(strings.Fields(strings.ReplaceAll(strings.SplitN(anchor, ";", 2)[0], "\t", " ")), " ") + "\"\n"
	}
	conf += "remote-control:\n control-enable: no\n"
	for _, zone := range zones {
		conf += fmt.Sprintf("stub-zone:\n name: %q\n stub-addr: %s\n", zone, server)
	}
	n.daemon("unbound", "start of service", conf, "-d", "-c")
}

// daemon runs a program with a configuration file as its last argument, until the test ends. It is
// up when it has said so.
func (n *namespace) daemon(name, said, conf string, args ...string) {
	n.t.Helper()
	file := filepath.Join(n.t.TempDir(), name+".conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		n.t.Fatal(err)
	}
	log := newLogbook()
	done := n.background(n.command(peer(n.t, name), append(args, file)...), log)
	log.await(n.t, name+" has started", func(l logLine) bool { return strings.Contains(l.text("msg"), said) }, done)
}

// TestDANE: TLSA records count where DNSSEC vouches for them and nowhere else, with a real server
// and a real validating resolver.
func TestDANE(t *testing.T) {
	t.Parallel()
	const here, there = "10.97.0.1", "10.97.0.2"
	relay, world := newNamespace(t, "relay", "127.0.0.1"), newNamespace(t, "world", there)
	link(t, relay, world, here+"/24", there+"/24")
	right, wrong := testnet.Cert(t, "self.example"), testnet.Cert(t, "self.example") // whom nobody trusts
	const soa = "$TTL 300\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A " + there + "\n"
	signed, unsigned := "$ORIGIN signed.test.\n"+soa, "$ORIGIN plain.test.\n"+soa
	ips := map[string]string{}
	host := func(zone *string, name string, cert *testnet.Certificate) *exchanger {
		ips[name] = fmt.Sprintf("10.97.0.%d", 11+len(ips))
		ip(t, "-n", world.name, "address", "add", ips[name]+"/24", "dev", "eth0")
		*zone += fmt.Sprintf("%s MX 10 mx.%[1]s\nmx.%[1]s A %s\n", name, ips[name])
		return world.exchanger(ips[name], cert)
	}
	good, bad := host(&signed, "good", &right), host(&signed, "bad", &wrong)
	bogus, bare := host(&signed, "bogus", &right), host(&signed, "bare", nil)
	none, loose := host(&signed, "none", &wrong), host(&unsigned, "loose", &wrong)
	for _, name := range []string{"good", "bad", "bogus", "bare"} {
		signed += tlsa(t, "mx."+name+".signed.test", right)
	}
	unsigned += tlsa(t, "mx.loose.plain.test", right)

	keys := &signer{t, t.TempDir()}
	anchor := keys.sign("signed.test", signed)
	keys.breakSignature("signed.test", "_25._tcp.mx.bogus.signed.test", "TLSA")
	err := errors.Join(os.WriteFile(filepath.Join(keys.dir, "plain.test"), []byte(unsigned), 0o644),
		os.WriteFile(filepath.Join(keys.dir, "example.test"), []byte("$ORIGIN example.test.\n"+soa), 0o644), os.Chmod(keys.dir, 0o755))
	if err != nil {
		t.Fatal(err)
	}
	world.nsd(there, keys.dir, map[string]string{"signed.test": "signed.test.signed", "plain.test": "plain.test", "example.test": "example.test"})
	relay.unbound(there, []string{"signed.test", "plain.test", "example.test"}, anchor)

	s := newSite(t, "")
	s.ns = relay
	s.addDomain("example.test", "*: box@good.signed.test\n", "app")
	d := s.start()
	s.send(d, "box@good.signed.test", fate{tls: "TLS1.3 dane"})
	s.send(d, "box@bad.signed.test", fate{reason: "(which its domain demands by DANE): it is not the one that is expected"})
	s.send(d, "box@bogus.signed.test", fate{reason: "DNS does not say at the moment which certificate mx.bogus.signed.test must have"})
	s.send(d, "box@bare.signed.test", fate{reason: "does not offer STARTTLS (which its domain demands by DANE)"})
	s.send(d, "box@none.signed.test", fate{tls: "TLS1.3 opportunistic"})
	s.send(d, "box@loose.plain.test", fate{tls: "TLS1.3 opportunistic"})
	if n := bad.Count() + bogus.Connections() + bare.Count(); n > 0 {
		t.Errorf("%d came where nothing may come", n)
	}
	for _, e := range []*exchanger{good, none, loose} {
		if list := e.Messages(); len(list) != 1 || list[0].TLS == nil {
			t.Errorf("%d messages, or one in the clear", len(list))
		}
	}

	// The right key is shown at last: what waited goes out, verified.
	bad.start(&right)
	s.again(d, "box@bad.signed.test", fate{tls: "TLS1.3 dane"})
}
