//go:build interop

package interop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"relayd/internal/sink"
)

// A submission is what a client is to do.
type submission struct {
	s        *site
	port     string
	implicit bool // TLS from the first byte, else STARTTLS
	from, to string
	message  string
}

func (m *submission) ca() string { return m.s.path("ca.pem") }

// Each client returns the command that submits m; the message is on its standard input.
var clients = map[string]func(t *testing.T, m *submission) *exec.Cmd{
	"smtplib": func(t *testing.T, m *submission) *exec.Cmd {
		cmd := exec.Command(python, "-I", "testdata/submit.py", "127.0.0.1", m.port, m.ca(), m.from, password, m.from, m.to)
		cmd.Env = []string{fmt.Sprintf("TLS=%d", map[bool]int{true: 1}[m.implicit])}
		return cmd
	},
	"curl": func(t *testing.T, m *submission) *exec.Cmd {
		scheme := map[bool]string{true: "smtps", false: "smtp"}[m.implicit]
		return exec.Command(peer(t, "curl"), "-sS", "--ssl-reqd", "--cacert", m.ca(), "--user", m.from+":"+password,
			"--mail-from", m.from, "--mail-rcpt", m.to, "--crlf", "--upload-file", "-", scheme+"://127.0.0.1:"+m.port)
	},
	"swaks": func(t *testing.T, m *submission) *exec.Cmd {
		args := []string{"--server", "127.0.0.1", "--port", m.port, "--auth", "LOGIN", "--auth-user", m.from, "--auth-password", password,
			"--from", m.from, "--to", m.to, "--tls-verify", "--tls-ca-path", m.ca(), "--data", "-"}
		if m.implicit {
			return exec.Command(peer(t, "swaks"), append(args, "--tls-on-connect")...)
		}
		return exec.Command(peer(t, "swaks"), append(args, "--tls")...)
	},
	"msmtp": func(t *testing.T, m *submission) *exec.Cmd {
		conf := filepath.Join(t.TempDir(), "msmtprc")
		starttls := map[bool]string{true: "off", false: "on"}[m.implicit]
		text := fmt.Sprintf("account default\nhost 127.0.0.1\nport %s\nfrom %s\nauth plain\nuser %s\npassword %q\ntls on\ntls_starttls %s\ntls_trust_file %s\n",
			m.port, m.from, m.from, password, starttls, m.ca())
		if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return exec.Command(peer(t, "msmtp"), "-C", conf, m.to)
	},
}

// TestClients: four mail clients submit on both ports; what arrives is signed by the domain, as
// python3-dkim and OpenDKIM find. The installation is made with relay-util.
func TestClients(t *testing.T) {
	s, snk := newWorld(t, sink.Options{}, "")
	s.mustUtil("domain-add", "clients.test", "--forward", "you@mailbox.test")
	s.mustUtil("user-add", "app@clients.test", "--password="+password)
	for _, algo := range []string{"rsa2048", "ed25519"} {
		s.mustUtil("dkim-keygen", "clients.test", "--selector", algo, "--algo", algo)
	}
	var records []struct{ Name, Type, Value string }
	if err := json.Unmarshal([]byte(s.mustUtil("--json", "dkim-dns", "clients.test")), &records); err != nil {
		t.Fatal(err)
	}
	dns := map[string]string{}
	for _, r := range records {
		dns[strings.TrimSuffix(r.Name, ".")] = r.Value
	}
	d := s.start()

	submitted := map[string]string{} // text by subject
	for _, service := range []string{"submission", "submissions"} {
		for _, name := range sortedKeys(clients) {
			subject := name + "-" + service
			m := &submission{s: s, port: d.port(service), implicit: service == "submissions", from: "app@clients.test", to: subject + "@elsewhere.test",
				message: "From: An App <app@clients.test>\nTo: " + subject + "@elsewhere.test\nSubject: " + subject + "\n\nGrüße by " + name + "\n.\n..dots\n"}
			cmd := clients[name](t, m)
			text := m.message
			if name == "smtplib" {
				text = string(crlf([]byte(text)))
			}
			cmd.Stdin = strings.NewReader(text)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s on %s: %v\n%s", name, service, err, out)
				continue
			}
			submitted[subject] = m.message
		}
	}
	messages := map[string][]byte{}
	for _, m := range arrived(t, snk, len(submitted)) {
		subject, _, _ := strings.Cut(m.Rcpts[0], "@")
		messages[subject] = m.Data
		_, want, _ := strings.Cut(submitted[subject], "\n\n")
		if !strings.HasSuffix(strings.TrimRight(string(m.Data), "\r\n"), strings.TrimRight(string(crlf([]byte(want))), "\r\n")) {
			t.Errorf("%s arrives as\n%s", subject, m.Data)
		}
		if m.From != "app@clients.test" {
			t.Errorf("%s has the reverse-path <%s>", subject, m.From)
		}
	}
	for subject, list := range verifyAll(t, messages, dns) {
		algorithms := map[string]bool{}
		for _, signature := range list {
			algorithms[signature.Algorithm] = true
			if !signature.OK || signature.Domain != "clients.test" {
				t.Errorf("%s: python3-dkim: %v", subject, signature)
			}
		}
		if !algorithms["rsa-sha256"] || !algorithms["ed25519-sha256"] {
			t.Errorf("%s is signed by %v", subject, list)
		}
	}
	n := openDKIM(t, messages, dns)
	t.Logf("%d submitted by %v, arrived and verified by python3-dkim (rsa-sha256, ed25519-sha256); %d by opendkim-testmsg", len(messages), sortedKeys(clients), n)
}

// openDKIM checks messages with opendkim-testmsg in a namespace where dnsmasq knows the keys. It
// knows no Ed25519 and judges the RSA signature alone.
func openDKIM(t *testing.T, messages map[string][]byte, dns map[string]string) (verified int) {
	t.Helper()
	ns := newNamespace(t, "dkim", "127.0.0.1")
	ns.dnsmasq("listen-address=127.0.0.1\nbind-interfaces\n", dns)
	run := func(message []byte) (string, error) {
		cmd := ns.command(peer(t, "opendkim-testmsg"))
		cmd.Stdin = bytes.NewReader(message)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for name, message := range messages {
		if out, err := run(message); err != nil || out != "" {
			t.Errorf("%s: opendkim-testmsg: %v %s", name, err, out)
			continue
		}
		verified++
	}
	for _, message := range messages { // it does look
		forged := bytes.Replace(slices.Clone(message), []byte("dots"), []byte("d0ts"), 1)
		if out, err := run(forged); err == nil && out == "" {
			t.Error("opendkim-testmsg takes a changed message")
		}
		break
	}
	return verified
}
