//go:build interop

package interop

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"

	"relayd/dkim"
	"relayd/internal/sink"
	"relayd/internal/testnet"
	"relayd/users"
)

// inForceWithin is the contract's limit for edited files.
const inForceWithin = 5 * time.Second

// A typo is a file that is broken while the server runs, and mended with something new in it.
type typo struct {
	file    string
	broken  string
	line    int // that is complained about; 0 where the file has no lines that mean anything
	mended  string
	inForce func(d *daemon) bool // whether the new thing is
}

func TestTypoWhileRunning(t *testing.T) {
	t.Parallel()
	s, snk := newWorld(t, sink.Options{}, "")
	s.addDomain("example.test", "box: you@mailbox.test\n", "app")
	s.write("domains/example.test/domain.toml", "# settings\n")
	d := s.start()
	hash, err := users.Hash(password, users.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	newKey, err := dkim.Generate("ed25519")
	if err != nil {
		t.Fatal(err)
	}
	newCert := testnet.Cert(t, hostname)
	goodUsers := s.read("domains/example.test/users")
	for _, c := range []typo{
		{"domains/example.test/users", goodUsers + "new$2y$10$", 2, goodUsers + "new:" + hash + "\n", func(d *daemon) bool {
			return s.canLogin(d, "new@example.test")
		}},
		{"domains/example.test/aliases", "box: you@mailbox.test\n\nnew you@mailbox.test\n", 3, "box: you@mailbox.test\nnew: you@mailbox.test\n", func(d *daemon) bool {
			return takes(t, d, "new@example.test")
		}},
		{"domains/example.test/domain.toml", "# settings\n\nsuffix_separators = \"-\n", 3, "suffix_separators = \"-\"\n", func(d *daemon) bool {
			return takes(t, d, "box-tag@example.test")
		}},
		{"domains/example.test/dkim/e1.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", 0, string(newKey), func(d *daemon) bool {
			return s.signsWith(d, snk, newKey)
		}},
		{"certs/mx/fullchain.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 0, "", func(d *daemon) bool {
			conn, err := tls.Dial("tcp", d.address("submissions"), &tls.Config{RootCAs: newCert.Pool, ServerName: hostname})
			if err == nil {
				conn.Close()
			}
			return err == nil
		}},
	} {
		t.Run(c.file, func(t *testing.T) {
			mark := d.log.mark()
			if c.mended == "" { // a pair: its other half must stay until both are new
				s.write("certs/mx/privkey.pem", string(newCert.Key))
				c.mended = string(newCert.Chain)
			}
			s.write(c.file, c.broken)
			l := d.log.awaitAfter(t, mark, c.file+" is broken", func(l logLine) bool {
				return l.text("level") == "ERROR" && l.text("file") == s.path(c.file)
			}, d.done)
			if c.line > 0 && l.text("line") != fmt.Sprint(c.line) {
				t.Errorf("the log names line %s, not %d: %v", l.text("line"), c.line, l)
			}
			t.Logf("the log: %s:%s: %s", c.file, l.text("line"), l.text("reason"))
			s.flows(d, snk)
			named := s.path(c.file) + ":"
			if c.line > 0 {
				named += fmt.Sprintf("%d: ", c.line)
			}
			if out, code := s.check(); code != 78 || !strings.Contains(out, named) {
				t.Errorf("relayd -check exits with %d:\n%s", code, out)
			}
			s.write(c.file, c.mended)
			began := time.Now()
			waitFor(t, c.file+" mended", inForceWithin, func() bool { return c.inForce(d) })
			t.Logf("mended: in force after %s", time.Since(began).Round(100*time.Millisecond))
			if c.file == "certs/mx/fullchain.pem" {
				s.cert = newCert
			}
			s.flows(d, snk)
		})
	}
	if out, code := s.check(); code != 0 {
		t.Errorf("in the end relayd -check exits with %d:\n%s", code, out)
	}
}

// flows checks that mail goes both ways.
func (s *site) flows(d *daemon, snk *sink.Sink) {
	s.t.Helper()
	before := snk.Count()
	c := s.submit(d, "submission", "app@example.test")
	c.play("> MAIL FROM:<app@example.test>\n< 250\n> RCPT TO:<friend@elsewhere.test>\n< 250")
	if got := c.message([]byte("From: app@example.test\r\n\r\nout\r\n")); !strings.HasPrefix(got, "250 ") {
		s.t.Errorf("out: %s", got)
	}
	c.close()
	c = dial(s.t, d.address("smtp"))
	c.play("> EHLO client.test\n< 250\n> MAIL FROM:<friend@elsewhere.test>\n< 250\n> RCPT TO:<box@example.test>\n< 250")
	if got := c.message([]byte("From: friend@elsewhere.test\r\n\r\nin\r\n")); !strings.HasPrefix(got, "250 ") {
		s.t.Errorf("in: %s", got)
	}
	c.close()
	for _, m := range arrived(s.t, snk, before+2)[before:] {
		if !bytes.Contains(m.Data, []byte("DKIM-Signature:")) {
			s.t.Errorf("not signed:\n%s", m.Data)
		}
	}
}

func (s *site) canLogin(d *daemon, user string) bool {
	s.t.Helper()
	s.mustUtil("unban", "--all") // whoever asks again and again until it is so guesses passwords
	c := dial(s.t, d.address("submission"))
	defer c.close()
	c.startTLS(s.tlsConfig())
	return strings.HasPrefix(c.login(user, password), "235 ")
}

// takes reports whether an address is taken on the MX port; 550 5.1.1 is the other answer.
func takes(t testing.TB, d *daemon, address string) bool {
	t.Helper()
	got := rcpt(t, d, address)
	if !strings.HasPrefix(got, "250 ") && !strings.HasPrefix(got, "550 5.1.1 ") {
		t.Fatalf("%s: %s", address, got)
	}
	return strings.HasPrefix(got, "250 ")
}

// rcpt is the reply to RCPT on the MX port.
func rcpt(t testing.TB, d *daemon, address string) string {
	t.Helper()
	c := dial(t, d.address("smtp"))
	defer c.close()
	c.play("> EHLO client.test\n< 250\n> MAIL FROM:<friend@elsewhere.test>\n< 250")
	c.send([]byte("RCPT TO:<" + address + ">\r\n"))
	return strings.TrimSpace(c.reply())
}

// signsWith reports whether mail is signed with a key that stands in e1.pem.
func (s *site) signsWith(d *daemon, snk *sink.Sink, pem []byte) bool {
	s.t.Helper()
	key, err := dkim.ParseKey("example.test", "e1", pem)
	if err != nil {
		s.t.Fatal(err)
	}
	before := snk.Count()
	s.flows(d, snk)
	for _, m := range snk.Messages()[before:] {
		results, err := dkim.Verify(context.Background(), bytes.NewReader(m.Data), func(_ context.Context, name string) ([]string, error) {
			return []string{key.Record().Value}, nil
		})
		if err != nil {
			s.t.Fatal(err)
		}
		for _, r := range results {
			if r.Algorithm == "ed25519-sha256" && r.Err == nil {
				return true
			}
		}
	}
	return false
}

func TestBrokenAtStart(t *testing.T) {
	s, snk := newWorld(t, sink.Options{}, "")
	good := s.read("relayd.toml")
	s.write("relayd.toml", good+"[queue]\nlifetime = \"soon\"\n")
	d := s.launch(s.command(program(t, "relayd"), "-c", s.config()))
	line := strings.Count(good, "\n") + 2
	if code := d.exitCode(); code != 78 || !d.log.has(fmt.Sprintf("relayd.toml:%d: ", line)) {
		t.Errorf("relayd exits with %d:\n%s", code, d.log.tail(10))
	}
	if out, code := s.check(); code != 78 || !strings.Contains(out, fmt.Sprintf("relayd.toml:%d: ", line)) {
		t.Errorf("relayd -check exits with %d:\n%s", code, out)
	}
	s.write("relayd.toml", good)

	// A domain whose alias file was never good: it waits, the others work.
	s.write("domains/broken.test/aliases", "box: you@mailbox.test\nbox: twice@mailbox.test\n")
	s.addDomain("example.test", "box: you@mailbox.test\n", "app")
	d = s.start()
	for address, want := range map[string]string{
		"box@broken.test":      "451 4.3.0 ",
		"nobody@broken.test":   "451 4.3.0 ",
		"box@example.test":     "250 ",
		"nobody@example.test":  "550 5.1.1 ", // the other domain's trouble is none of this one's
		"someone@foreign.test": "550 5.7.1 ",
	} {
		if got := rcpt(t, d, address); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
	s.flows(d, snk)
	s.write("domains/broken.test/aliases", "box: you@mailbox.test\n")
	waitFor(t, "the domain that was broken", inForceWithin, func() bool { return strings.HasPrefix(rcpt(t, d, "box@broken.test"), "250 ") })

	// From now on there is a last good copy, which outlives the process.
	s.write("domains/broken.test/aliases", "box you@mailbox.test\n")
	d.stop()
	d = s.start()
	if got := rcpt(t, d, "box@broken.test"); !strings.HasPrefix(got, "250 ") {
		t.Errorf("with a last good copy: %s", got)
	}
}
