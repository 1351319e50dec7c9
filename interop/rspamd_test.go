//go:build interop

package interop

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayd/internal/sink"
	"relayd/internal/testnet"
)

// peerDaemon runs a program of the system's until the test ends.
func peerDaemon(t testing.TB, name string, args ...string) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(peer(t, name), args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
		timer := time.AfterFunc(patience, func() { cmd.Process.Kill() })
		err := cmd.Wait()
		timer.Stop()
		if t.Failed() {
			t.Logf("%s: %v\n%s", name, err, out.String())
		}
	})
}

// awaitSocket waits until somebody listens.
func awaitSocket(t testing.TB, path string) {
	t.Helper()
	waitFor(t, "listening on "+path, patience, func() bool {
		conn, err := net.Dial("unix", path)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// startRspamd runs rspamd with the test patterns for all actions, and with nothing else: no rules, no
// Redis, no DNS. It returns the path of its socket.
func startRspamd(t testing.TB) string {
	t.Helper()
	dir := peerDir(t)
	socket := filepath.Join(dir, "normal.sock")
	text := strings.ReplaceAll(`
options {
    filters = ""; pidfile = "DIR/pid"; tempdir = "DIR"; hs_cache_dir = "DIR"; control_socket = "DIR/control.sock mode=0600";
    url_tld = "DIR/tld"; disable_hyperscan = true; enable_test_patterns = true; dns { nameserver = ["127.0.0.1:1"]; }
}
logging { type = "console"; level = "info"; }
worker "normal" { bind_socket = "DIR/normal.sock mode=0666"; count = 1; }
actions { reject = 15; add_header = 6; greylist = 4; }
`, "DIR", dir)
	for name, content := range map[string]string{"rspamd.conf": text, "tld": "test\ncom\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	peerDaemon(t, "rspamd", "-f", "-i", "-c", filepath.Join(dir, "rspamd.conf"))
	awaitSocket(t, socket)
	return socket
}

// peerDir is a folder that programs which give up root can work in.
func peerDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "relayd-peer-") // t.TempDir may be too long for a unix socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// filterSite is a relay with filters before a sink.
func filterSite(t testing.TB, settings, zone string) (*site, *sink.Sink) {
	t.Helper()
	snk, err := sink.Start(sink.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(snk.Close)
	_, port, _ := net.SplitHostPort(snk.Addr())
	names := testnet.NewDNS(t, zones+zone)
	s := newSite(t, fmt.Sprintf("%s[dns]\nservers = [%q]\n[outbound]\nport = %s\n[filter]\n%s\n", localListeners, names.Addr(), port, settings))
	s.addDomain("example.test", "*: you@mailbox.test\n", "app")
	return s, snk
}

func mailWith(from, body string) []byte {
	return []byte("From: <" + from + ">\r\nTo: any@example.test\r\nSubject: hello\r\n\tyou\r\nDate: Sun, 22 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@plain.test>\r\n\r\n" + body + "\r\n")
}

// The patterns by which rspamd is tested.
const (
	gtube     = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
	addHeader = "YJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
)

// TestRspamd: what rspamd rejects is refused in the session, everything else goes on byte for byte.
func TestRspamd(t *testing.T) {
	t.Parallel()
	s, snk := filterSite(t, fmt.Sprintf("rspamd = %q", "unix:"+startRspamd(t)), "quarantine.test. TXT \"v=spf1 -all\"\n_dmarc.quarantine.test. TXT \"v=DMARC1; p=quarantine\"\n")
	c := s.courier(t, s.start(), "smtp")
	count := 0
	for _, m := range []struct{ from, body, want string }{
		{"a@plain.test", "Nothing of interest.", "250 2.0.0 Ok: forwarded"},
		{"a@plain.test", gtube, "550 5.7.1 The message looks like spam"},
		{"a@plain.test", addHeader, "250 2.0.0 Ok: forwarded"},
		{"a@quarantine.test", "Nothing of interest.", "250 2.0.0 Ok: forwarded"},
		{"a@quarantine.test", addHeader, "550 5.7.1 The message looks like spam"},
		{"a@plain.test", "Again.", "250 2.0.0 Ok: forwarded"},
	} {
		text := mailWith(m.from, m.body)
		if got := c.send(m.from, "any@example.test", stuff(text)); !strings.HasPrefix(got, m.want) {
			t.Fatalf("%s %q: %s", m.from, m.body, got)
		}
		if !strings.HasPrefix(m.want, "250") {
			continue
		}
		count++
		if at := arrived(t, snk, count)[count-1]; !bytes.HasSuffix(at.Data, text) {
			t.Errorf("%s", at.Data)
		}
	}
	if n := snk.Count(); n != count {
		t.Errorf("%d messages arrived, not %d", n, count)
	}
	status, err := s.control().Status(context.Background())
	if err != nil || status.Filters.Rspamd != 2 || strings.Contains(status.Warnings.Error(), "rspamd") {
		t.Errorf("%+v %v %v", status.Filters, status.Warnings, err)
	}
}

// TestMilter: what OpenDKIM refuses is refused in its words, and what it would put in front is not there.
func TestMilter(t *testing.T) {
	t.Parallel()
	a := newAuthor(t, "signed.test")
	dir := peerDir(t)
	socket := filepath.Join(dir, "opendkim.sock")
	keys := ""
	for name, value := range a.records() {
		keys += name + " " + value + "\n"
	}
	conf := fmt.Sprintf("Mode v\nSocket local:%s\nBackground no\nSyslog no\nUMask 000\nOn-BadSignature reject\nAlwaysAddARHeader yes\n"+
		"InternalHosts 192.0.2.1\nTestPublicKeys %s/keys\n", socket, dir)
	for name, content := range map[string]string{"opendkim.conf": conf, "keys": keys} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	peerDaemon(t, "opendkim", "-f", "-x", filepath.Join(dir, "opendkim.conf"))
	awaitSocket(t, socket)

	s, snk := filterSite(t, fmt.Sprintf("milter = [%q]", "unix:"+socket), a.zone())
	c := s.courier(t, s.start(), "smtp")
	signed, _ := a.sign(map[string][]byte{"x": mailWith("a@signed.test", "Signed.")})
	for _, m := range []struct {
		text []byte
		want string
	}{
		{signed["x"], "250 2.0.0 Ok: forwarded"},
		{bytes.Replace(signed["x"], []byte("Signed."), []byte("Changed"), 1), "550 5.7.0 bad DKIM signature"},
		{mailWith("a@plain.test", "Not signed."), "250 2.0.0 Ok: forwarded"},
	} {
		if got := c.send("a@signed.test", "any@example.test", stuff(m.text)); !strings.HasPrefix(got, m.want) {
			t.Errorf("%s\n%s", m.text, got)
		}
	}
	list := arrived(t, snk, 2)
	if text := list[0].Data; !bytes.HasSuffix(text, signed["x"]) || bytes.Count(text, []byte("Authentication-Results")) != 1 || len(list) != 2 {
		t.Errorf("%d arrived:\n%s", len(list), text)
	}
	status, err := s.control().Status(context.Background())
	if err != nil || status.Filters.Milter != 1 || strings.Contains(status.Warnings.Error(), "milter") {
		t.Errorf("%+v %v %v", status.Filters, status.Warnings, err)
	}
}
