//go:build interop

package interop

import (
	"bytes"
	"encoding/pem"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"relayd/internal/sink"
	"relayd/internal/testnet"
)

// sClient is the certificate that openssl s_client is shown and finds to be right, in PEM.
func sClient(t *testing.T, d *daemon, service, name, caFile string) string {
	t.Helper()
	args := []string{"s_client", "-connect", d.address(service), "-servername", name, "-verify_hostname", name,
		"-CAfile", caFile, "-verify_return_error", "-showcerts"}
	if service != "submissions" {
		args = append(args, "-starttls", "smtp")
	}
	cmd := exec.Command(peer(t, "openssl"), args...)
	cmd.Stdin = strings.NewReader("QUIT\r\n")
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("Verify return code: 0 (ok)")) {
		t.Errorf("%s as %s: %v\n%s", service, name, err, out)
	}
	block, _ := pem.Decode(out)
	if block == nil {
		t.Fatalf("%s shows no certificate:\n%s", service, out)
	}
	return string(pem.EncodeToMemory(block))
}

// leaf is the first certificate of a chain, in PEM.
func leaf(c testnet.Certificate) string {
	block, _ := pem.Decode(c.Chain)
	return string(pem.EncodeToMemory(block))
}

func TestCertificateByName(t *testing.T) {
	s, _ := newWorld(t, sink.Options{}, "")
	other := testnet.Cert(t, "mail.other.test")
	s.addCertificate("other", other)
	s.write("other.pem", string(lastBlock(other.Chain)))
	d := s.start()
	for _, service := range []string{"smtp", "submission", "submissions"} {
		if got := sClient(t, d, service, hostname, s.path("ca.pem")); got != leaf(s.cert) {
			t.Errorf("%s shows another certificate for %s", service, hostname)
		}
		if got := sClient(t, d, service, "mail.other.test", s.path("other.pem")); got != leaf(other) {
			t.Errorf("%s shows another certificate for mail.other.test", service)
		}
	}

	// A new certificate while sessions are open: they go on, new ones get the new one.
	open := s.submit(d, "submissions", "app@example.test")
	old := s.cert
	s.certify(testnet.Cert(t, hostname, "127.0.0.1"))
	began := time.Now()
	waitFor(t, "the new certificate", inForceWithin, func() bool {
		c := dial(t, d.address("smtp"))
		defer c.close()
		c.say("EHLO client.test", "250 ")
		c.say("STARTTLS", "220 ")
		return c.handshake(s.tlsConfig()) == nil
	})
	t.Logf("a new certificate is shown after %s", time.Since(began).Round(100*time.Millisecond))
	open.play("> NOOP\n< 250\n> MAIL FROM:<app@example.test>\n< 250\n> QUIT\n< 221")
	for _, service := range []string{"smtp", "submission", "submissions"} {
		if got := sClient(t, d, service, hostname, s.path("ca.pem")); got != leaf(s.cert) || got == leaf(old) {
			t.Errorf("%s still shows the old certificate", service)
		}
	}
}

// TestNoLoginWithoutCertificate: a password is not asked for where no client could know whom it
// tells it to.
func TestNoLoginWithoutCertificate(t *testing.T) {
	for _, c := range []struct {
		name, settings string
		offered        bool
	}{
		{"none", "", false},
		{"allowed", "[tls]\nallow_self_signed = true\n", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := newWorld(t, sink.Options{}, c.settings)
			if err := os.RemoveAll(s.path("certs")); err != nil {
				t.Fatal(err)
			}
			d := s.start()
			trusting := s.tlsConfig()
			trusting.InsecureSkipVerify = true // to see what a careless client sees
			session := dial(t, d.address("submission"))
			submission := session.startTLS(trusting)
			implicit := dialTLS(t, d.address("submissions"), trusting)
			submissions := implicit.say("EHLO client.test", "250 ")
			mx := dial(t, d.address("smtp")).startTLS(trusting)
			for name, reply := range map[string]string{"submission": submission, "submissions": submissions} {
				if got := strings.Contains(reply, "AUTH PLAIN LOGIN"); got != c.offered {
					t.Errorf("%s: AUTH offered: %v\n%s", name, got, reply)
				}
			}
			if strings.Contains(mx, "AUTH") {
				t.Errorf("AUTH is offered on the MX port:\n%s", mx)
			}
			if got := session.login("app@example.test", password); strings.HasPrefix(got, "235 ") != c.offered {
				t.Errorf("login: %s", got)
			}
		})
	}
	s, _ := newWorld(t, sink.Options{}, "")
	d := s.start()
	for _, service := range []string{"smtp", "submission"} {
		plain := dial(t, d.address(service))
		if got := plain.say("EHLO client.test", "250 "); strings.Contains(got, "AUTH") || !strings.Contains(got, "STARTTLS") {
			t.Errorf("%s before TLS:\n%s", service, got)
		}
	}
	plain := dial(t, d.address("submission"))
	plain.play("> EHLO client.test\n< 250\n> AUTH PLAIN AGEAYg==\n< 530 5.7.0\n> MAIL FROM:<app@example.test>\n< 530 5.7.0")
}
