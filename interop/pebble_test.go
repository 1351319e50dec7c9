//go:build interop

package interop

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"relayd/internal/testnet"
)

// The CA of these tests, with its DNS server; built as tools, outside of our go.mod.
const pebbleModule = "github.com/letsencrypt/pebble/v2"
const pebbleVersion = "v2.10.1"

// A pebble is an ACME CA for tests, and the ports that it asks at.
type pebble struct {
	t                testing.TB
	dir              string
	cert             testnet.Certificate
	life             time.Duration
	acme, management string
	http, tls        string // of relayd
	dns, records     string // of the DNS server, and of what edits its records
}

// newPebble starts a DNS server in which every name is this machine, and readies a CA that issues
// certificates for life.
func newPebble(t testing.TB, life time.Duration) *pebble {
	t.Helper()
	p := &pebble{t: t, dir: t.TempDir(), cert: testnet.Cert(t, "127.0.0.1"), life: life}
	free := freePorts(t, 6)
	p.acme, p.management, p.http, p.tls, p.dns, p.records = free[0], free[1], free[2], free[3], free[4], free[5]
	for name, data := range map[string][]byte{"cert.pem": p.cert.Chain, "key.pem": p.cert.Key, "ca.pem": lastBlock(p.cert.Chain)} {
		if err := os.WriteFile(filepath.Join(p.dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.run(pebbleTool(t, "pebble-challtestsrv"), "-dnsserver", "127.0.0.1:"+p.dns, "-management", "127.0.0.1:"+p.records,
		"-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "")
	listens(t, p.records)
	return p
}

// start starts the CA itself.
func (p *pebble) start() {
	p.t.Helper()
	number := func(port string) json.Number { return json.Number(port) }
	settings, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": "127.0.0.1:" + p.acme, "managementListenAddress": "127.0.0.1:" + p.management,
		"certificate": filepath.Join(p.dir, "cert.pem"), "privateKey": filepath.Join(p.dir, "key.pem"),
		"httpPort": number(p.http), "tlsPort": number(p.tls), "retryAfter": map[string]int{"authz": 1, "order": 1}, "keyAlgorithm": "ecdsa",
		"profiles": map[string]any{"only": map[string]any{"description": "the only one", "validityPeriod": int(p.life.Seconds())}},
	}})
	file := filepath.Join(p.dir, "pebble.json")
	if err == nil {
		err = os.WriteFile(file, settings, 0o600)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	p.run(pebbleTool(p.t, "pebble"), "-config", file, "-dnsserver", "127.0.0.1:"+p.dns)
	listens(p.t, p.acme)
	listens(p.t, p.management)
}

func (p *pebble) run(path string, args ...string) {
	p.t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1") // some of its nonces are bad, as it is its habit
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended already
		_ = cmd.Wait()
		if p.t.Failed() {
			text := out.String()
			p.t.Logf("%s:\n%s", filepath.Base(path), text[max(0, len(text)-4000):])
		}
	})
}

// ask speaks to the CA's management.
func (p *pebble) ask(path string, post any) []byte {
	p.t.Helper()
	client := http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.cert.Pool}, DisableKeepAlives: true}}
	url := "https://127.0.0.1:" + p.management + path
	var resp *http.Response
	var err error
	if post == nil {
		resp, err = client.Get(url)
	} else {
		data, _ := json.Marshal(post)
		resp, err = client.Post(url, "application/json", bytes.NewReader(data))
	}
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		p.t.Fatalf("%s: %s: %s, %v", path, resp.Status, text, err)
	}
	return text
}

// roots are what the CA's certificates are checked by.
func (p *pebble) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(p.ask("/roots/0", nil))
	return pool
}

// site makes a site that orders certificates there.
func (p *pebble) site(settings string) *site {
	p.t.Helper()
	s := newSite(p.t, fmt.Sprintf("%s\n[listen]\nsmtp = [\"127.0.0.1:0\"]\nsubmission = []\nsubmissions = [\"127.0.0.1:0\"]\n"+
		"http = [\"127.0.0.1:%s\"]\nhttps = [\"127.0.0.1:%s\"]\n[dns]\nservers = [\"127.0.0.1:%s\"]\n"+
		"[acme]\nenabled = true\ndirectory = \"https://127.0.0.1:%s/dir\"\n%s", "", p.http, p.tls, p.dns, p.acme, settings))
	if err := os.RemoveAll(s.path("certs")); err != nil {
		p.t.Fatal(err)
	}
	return s
}

// startTrusting starts relayd with the CA's own root for one of the system's.
func (p *pebble) startTrusting(s *site) *daemon {
	p.t.Helper()
	cmd := s.command(program(s.t, "relayd"), "-c", s.config())
	cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+filepath.Join(p.dir, "ca.pem"))
	d := s.launch(cmd)
	d.awaitUp()
	return d
}

// hurry lets all times that relayd waits for be over, while it is down.
func hurry(s *site) {
	s.t.Helper()
	var state map[string]map[string]any
	if err := json.Unmarshal([]byte(s.read("state/certs/state.json")), &state); err != nil {
		s.t.Fatal(err)
	}
	past := time.Now().Add(-48 * time.Hour).Format(time.RFC3339)
	for _, name := range state {
		for _, key := range []string{"try_at", "ask_at", "tried_at"} {
			if name[key] != nil {
				name[key] = past
			}
		}
	}
	data, err := json.Marshal(state)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write("state/certs/state.json", string(data))
}

// issued waits until relayd has had n certificates for a name.
func issued(d *daemon, name string, n int) {
	d.t.Helper()
	d.log.await(d.t, fmt.Sprintf("certificate %d for %s", n, name), func(l logLine) bool {
		if l.text("msg") == "certificate issued" && l.text("name") == name {
			n--
		}
		return n == 0
	}, d.done)
}

// shownTo is the certificate that the other side has shown.
func shownTo(c *dialog) *x509.Certificate {
	return c.conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
}

func TestPebbleIssuesByHTTP01AndRenewsUnderASession(t *testing.T) {
	t.Parallel()
	p := newPebble(t, 12*time.Second)
	s := p.site("")
	d := p.startTrusting(s)
	d.log.await(t, "no CA", func(l logLine) bool { return l.text("msg") == "no new certificate" }, d.done)
	if text := dialTLS(t, d.address("submissions"), &tls.Config{InsecureSkipVerify: true}).say("EHLO me.test", "250"); strings.Contains(text, "AUTH") {
		t.Errorf("a password would be taken under a self-signed certificate: %s", text)
	}
	if out, _, _ := s.util("status"); !strings.Contains(out, "CERTIFICATE: there is no certificate by ACME for "+hostname) || !strings.Contains(out, "connection refused") {
		t.Errorf("status:\n%s", out)
	}
	d.stop()
	p.start()
	hurry(s)
	d = p.startTrusting(s)
	issued(d, hostname, 1)
	trusting := &tls.Config{RootCAs: p.roots(), ServerName: hostname}
	first := dialTLS(t, d.address("submissions"), trusting)
	if text := first.say("EHLO me.test", "250"); !strings.Contains(text, "AUTH") {
		t.Errorf("no password is taken: %s", text)
	}
	issued(d, hostname, 2)
	first.say("NOOP", "250")
	second := dialTLS(t, d.address("submissions"), trusting)
	if shownTo(first).SerialNumber.Cmp(shownTo(second).SerialNumber) == 0 || shownTo(second).PublicKeyAlgorithm != x509.ECDSA {
		t.Error("the old certificate is shown on")
	}
	if resp, err := http.Get("http://127.0.0.1:" + p.http + "/"); err != nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("a visitor: %v, %v", resp, err)
	} else {
		resp.Body.Close()
	}
}

func TestPebbleIssuesByTLSALPN01AndHasTheCertificateReplaced(t *testing.T) {
	t.Parallel()
	p := newPebble(t, 90*24*time.Hour)
	p.start()
	s := p.site("challenge = \"tls-alpn-01\"\nnames = [\"mail.example.test\"]\n")
	d := p.startTrusting(s)
	issued(d, hostname, 1)
	issued(d, "mail.example.test", 1)
	before := shownTo(dialTLS(t, d.address("submissions"), &tls.Config{RootCAs: p.roots(), ServerName: "mail.example.test"}))
	now := time.Now()
	p.ask("/set-renewal-info/", map[string]string{
		"Certificate": s.read("state/certs/" + hostname + "/fullchain.pem"),
		"ARIResponse": fmt.Sprintf(`{"suggestedWindow":{"start":%q,"end":%q}}`, now.Add(-2*time.Hour).Format(time.RFC3339), now.Add(-time.Hour).Format(time.RFC3339)),
	})
	d.stop()
	hurry(s)
	d = p.startTrusting(s)
	issued(d, hostname, 1)
	if after := shownTo(dialTLS(t, d.address("submissions"), &tls.Config{RootCAs: p.roots(), ServerName: "mail.example.test"})); after.SerialNumber.Cmp(before.SerialNumber) != 0 {
		t.Error("the certificate that the CA did not speak of was replaced, too")
	}
	if out := s.mustUtil("status"); strings.Contains(out, "CERTIFICATE") || strings.Count(out, "ACME ") != 2 || !strings.Contains(out, "renewal ") {
		t.Errorf("status:\n%s", out)
	}
}

func TestPebbleIssuesAWildcardByDNS01(t *testing.T) {
	t.Parallel()
	p := newPebble(t, 90*24*time.Hour)
	p.start()
	script := filepath.Join(p.dir, "hook")
	text := fmt.Sprintf("#!/bin/sh -e\ncase $1 in present) verb=set-txt ;; *) verb=clear-txt ;; esac\n"+
		"%s -sf -d '{\"host\":\"'$2'\",\"value\":\"'$3'\"}' http://127.0.0.1:%s/$verb\n", peer(t, "curl"), p.records)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	s := p.site(fmt.Sprintf("challenge = \"dns-01\"\nprovider = \"exec\"\nnames = [\"*.example.test\"]\ndns = { program = %q, wait = \"0s\" }\n", script))
	if out, code := s.check(); code != 0 {
		t.Errorf("-check exits with %d:\n%s", code, out)
	}
	d := p.startTrusting(s)
	issued(d, "*.example.test", 1)
	shown := shownTo(dialTLS(t, d.address("submissions"), &tls.Config{RootCAs: p.roots(), ServerName: "other.example.test"}))
	if !slices.Equal(shown.DNSNames, []string{"*.example.test"}) {
		t.Errorf("shown: %v", shown.DNSNames)
	}
}

// pebbleTool builds a tool of the CA's module.
func pebbleTool(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(binDir, name)
	if _, err := os.Stat(path); err == nil {
		return path
	}
	cmd := exec.Command("go", "install", pebbleModule+"/cmd/"+name+"@"+pebbleVersion)
	cmd.Env = append(os.Environ(), "GOBIN="+binDir, "GOFLAGS=") // -race is not for it
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", name, err, out)
	}
	return path
}

// portsTaken counts the ports that freePorts has given away.
var portsTaken atomic.Int64

// freePorts are ports that nobody listens on now, and that nobody gets while a test starts its programs
// anew: they are below those that the system gives to connections.
func freePorts(t testing.TB, n int) []string {
	t.Helper()
	var ports []string
	for len(ports) < n {
		port := 20_000 + portsTaken.Add(1)
		if port > 30_000 {
			t.Fatal("no port is free")
		}
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			l.Close()
			ports = append(ports, fmt.Sprint(port))
		}
	}
	return ports
}

// listens waits until somebody listens on a port.
func listens(t testing.TB, port string) {
	t.Helper()
	waitFor(t, "port "+port, patience, func() bool {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}
