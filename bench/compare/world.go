package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/sys/unix"

	"relayd/dkim"
)

// The names of the world. Everything is on loopback addresses; destination j listens on 127.0.0.(25+j).
const (
	hostname     = "mx.example.test"
	relayHost    = "127.0.0.1"
	user         = "app@example.test"
	password     = "correct horse battery staple"
	destinations = 4
	recipients   = 100 // at each destination, and aliases to them
)

// A world is what all relays share: names, a certificate, a key to sign with, a user.
type world struct {
	dir         string
	cert        tls.Certificate // for hostname and for the destinations
	chain, key  []byte          // the same as PEM
	dkimPEM     []byte
	signing     *dkim.Key
	bcrypt      string
	nameservers []*dns.Server
}

// newWorld makes this process's namespaces into one; dir is the work folder.
func newWorld(dir string) (*world, error) {
	w := &world{dir: dir}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"mounts", w.mount}, {"the loopback interface", raiseLoopback}, {"certificate", w.certify}, {"DKIM key", w.makeKey}, {"DNS", w.serveNames},
	} {
		if err := step.do(); err != nil {
			return nil, fmt.Errorf("%s: %w", step.what, err)
		}
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), 10)
	w.bcrypt = string(hash)
	return w, err
}

// mount gives us a /proc for our processes, and a copy of /etc to write to.
func (w *world) mount() error {
	etc := filepath.Join(w.dir, "etc")
	err := errors.Join(unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("proc", "/proc", "proc", 0, ""), os.Mkdir(etc, 0o755))
	if err != nil {
		return err
	}
	if out, err := exec.Command("cp", "-a", "/etc/.", etc).CombinedOutput(); err != nil {
		return fmt.Errorf("copying /etc: %w: %s", err, out)
	}
	if err := unix.Mount(etc, "/etc", "", unix.MS_BIND, ""); err != nil {
		return err
	}
	os.Remove("/etc/resolv.conf") // often a link
	return errors.Join(os.WriteFile("/etc/resolv.conf", []byte("nameserver 127.0.0.1\n"), 0o644),
		os.WriteFile("/etc/hosts", []byte("127.0.0.1 localhost "+hostname+"\n"), 0o644), unix.Sethostname([]byte("mx")))
}

func raiseLoopback() error {
	out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// certify makes a certificate as Let's Encrypt issues them: ECDSA with P-256.
func (w *world) certify() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: hostname}, DNSNames: []string{hostname, "localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	w.chain = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	w.key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	w.cert, err = tls.X509KeyPair(w.chain, w.key)
	return err
}

func (w *world) makeKey() (err error) {
	if w.dkimPEM, err = dkim.Generate("rsa2048"); err == nil {
		w.signing, err = dkim.ParseKey("example.test", "s1", w.dkimPEM)
	}
	return err
}

// zones are the DNS of the world; what is not in it does not exist.
func zones() string {
	var b strings.Builder
	fmt.Fprintf(&b, "$TTL 3600\n%[1]s. A 127.0.0.1\nexample.test. MX 10 %[1]s.\nexample.test. TXT \"v=spf1 mx -all\"\n%[1]s. TXT \"v=spf1 a -all\"\n", hostname)
	b.WriteString("client.sender.test. A 127.0.0.1\nsender.test. MX 10 mx0.dest.test.\nsender.test. TXT \"v=spf1 ip4:127.0.0.0/8 -all\"\n")
	b.WriteString("_dmarc.sender.test. TXT \"v=DMARC1; p=none\"\n1.0.0.127.in-addr.arpa. PTR client.sender.test.\n")
	for j := range destinations {
		fmt.Fprintf(&b, "dest%[1]d.test. MX 10 mx%[1]d.dest.test.\nmx%[1]d.dest.test. A %[2]s\n", j, destinationIP(j))
	}
	return b.String()
}

func destinationIP(j int) string { return fmt.Sprintf("127.0.0.%d", 25+j) }

// serveNames starts the name server that /etc/resolv.conf names.
func (w *world) serveNames() error {
	records, names := map[dns.Question][]dns.RR{}, map[string]bool{}
	parser := dns.NewZoneParser(strings.NewReader(zones()), ".", "")
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		q := dns.Question{Name: rr.Header().Name, Qtype: rr.Header().Rrtype, Qclass: dns.ClassINET}
		records[q], names[q.Name] = append(records[q], rr), true
	}
	if err := parser.Err(); err != nil {
		return err
	}
	soa, err := dns.NewRR(". 3600 SOA ns.invalid. hostmaster.invalid. 1 3600 600 86400 3600")
	if err != nil {
		return err
	}
	answer := dns.HandlerFunc(func(rw dns.ResponseWriter, query *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(query)
		m.RecursionAvailable = true
		q := query.Question[0]
		q.Name = dns.CanonicalName(q.Name)
		if m.Answer = records[q]; m.Answer == nil {
			m.Ns = []dns.RR{soa}
			if !names[q.Name] {
				m.Rcode = dns.RcodeNameError
			}
		}
		_ = rw.WriteMsg(m)
	})
	for _, network := range []string{"udp", "tcp"} {
		started, ended := make(chan struct{}), make(chan error, 1)
		s := &dns.Server{Addr: "127.0.0.1:53", Net: network, Handler: answer, NotifyStartedFunc: func() { close(started) }}
		go func() { ended <- s.ListenAndServe() }()
		select {
		case <-started:
			w.nameservers = append(w.nameservers, s)
		case err := <-ended:
			return err
		}
	}
	return nil
}

// aliasTo is where the alias of destination j with number i leads.
func aliasTo(i, j int) (alias, target string) {
	return fmt.Sprintf("d%da%d", j, i), fmt.Sprintf("u%d@dest%d.test", i, j)
}

// eachAlias makes one line of an alias file for each alias.
func eachAlias(format string) string {
	var b bytes.Buffer
	for j := range destinations {
		for i := range recipients {
			alias, target := aliasTo(i, j)
			fmt.Fprintf(&b, format, alias, target)
		}
	}
	return b.String()
}
