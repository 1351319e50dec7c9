//go:build interop

package interop

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relayd/control"
	"relayd/dkim"
	"relayd/internal/sink"
	"relayd/internal/testnet"
	"relayd/users"
)

// The world that most tests play in. The sink stands for every destination.
const (
	hostname = "mx.example.test"
	password = "correct horse"
	zones    = `
elsewhere.test.    MX 10 mx.elsewhere.test.
mailbox.test.      MX 10 mx.elsewhere.test.
mx.elsewhere.test. A 127.0.0.1
`
)

// patience is how long a test waits for what must happen. It is long, for machines are slow; what
// has a limit of its own is measured against that.
const patience = 60 * time.Second

// A site is one installation of relayd in a folder of its own.
type site struct {
	t    testing.TB
	dir  string
	cert testnet.Certificate // for hostname, as certs/mx
	keys []*dkim.Key         // of all domains
	ns   *namespace          // where it runs; nil: with the test
}

// newSite makes a site with a certificate and a relayd.toml that ends with settings, which may
// begin with top-level keys.
func newSite(t testing.TB, settings string) *site {
	t.Helper()
	dir, err := os.MkdirTemp("", "relayd-site-") // t.TempDir may be too long for a unix socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &site{t: t, dir: dir}
	s.write("relayd.toml", fmt.Sprintf("hostname = %q\nstate_dir = %q\n%s\n[auth]\nbcrypt_cost = 4\n[log]\nformat = \"json\"\n",
		hostname, s.path("state"), settings))
	s.certify(testnet.Cert(t, hostname, "127.0.0.1", "localhost"))
	return s
}

// certify makes c the certificate for hostname, and ca.pem its authority.
func (s *site) certify(c testnet.Certificate) {
	s.t.Helper()
	s.cert = c
	s.addCertificate("mx", c)
	s.write("ca.pem", string(lastBlock(c.Chain)))
}

// localListeners is a [listen] on ports that the system chooses.
const localListeners = "[listen]\nsmtp = [\"127.0.0.1:0\"]\nsubmission = [\"127.0.0.1:0\"]\nsubmissions = [\"127.0.0.1:0\"]\n"

// newWorld makes a site whose mail goes to a sink, with the domain example.test: a user "app" and
// a catch-all to you@mailbox.test.
func newWorld(t testing.TB, opt sink.Options, settings string) (*site, *sink.Sink) {
	t.Helper()
	snk, err := sink.Start(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(snk.Close)
	_, port, _ := net.SplitHostPort(snk.Addr())
	names := testnet.NewDNS(t, zones)
	s := newSite(t, fmt.Sprintf("%s%s[dns]\nservers = [%q]\n[outbound]\nport = %s\n", settings, localListeners, names.Addr(), port))
	s.addDomain("example.test", "*: you@mailbox.test\n", "app")
	return s, snk
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) config() string { return s.path("relayd.toml") }

// write writes a file below the site as editors do: under another name, then renamed.
func (s *site) write(name, text string) {
	s.t.Helper()
	file := s.path(name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		s.t.Fatal(err)
	}
	tmp := filepath.Join(filepath.Dir(file), ".new")
	if err := errors.Join(os.WriteFile(tmp, []byte(text), 0o600), os.Rename(tmp, file)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) read(name string) string {
	s.t.Helper()
	text, err := os.ReadFile(s.path(name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// addDomain hosts a domain with an RSA and an Ed25519 key and users who share one password.
func (s *site) addDomain(domain, aliases string, names ...string) {
	s.t.Helper()
	var list strings.Builder
	for _, name := range names {
		hash, err := users.Hash(password, users.MinCost)
		if err != nil {
			s.t.Fatal(err)
		}
		fmt.Fprintf(&list, "%s:%s\n", name, hash)
	}
	s.write("domains/"+domain+"/users", list.String())
	s.write("domains/"+domain+"/aliases", aliases)
	for selector, algo := range map[string]string{"r1": "rsa2048", "e1": "ed25519"} {
		text, err := dkim.Generate(algo)
		if err != nil {
			s.t.Fatal(err)
		}
		s.write("domains/"+domain+"/dkim/"+selector+".pem", string(text))
		key, err := dkim.ParseKey(domain, selector, text)
		if err != nil {
			s.t.Fatal(err)
		}
		s.keys = append(s.keys, key)
	}
}

func (s *site) addCertificate(name string, c testnet.Certificate) {
	s.t.Helper()
	s.write("certs/"+name+"/privkey.pem", string(c.Key))
	s.write("certs/"+name+"/fullchain.pem", string(c.Chain))
}

// lastBlock is the last certificate of a chain: the authority of a testnet.Certificate.
func lastBlock(chain []byte) []byte {
	var last []byte
	for block, rest := pem.Decode(chain); block != nil; block, rest = pem.Decode(rest) {
		last = pem.EncodeToMemory(block)
	}
	return last
}

// dnsRecords are the TXT records of the site's keys, by name.
func (s *site) dnsRecords() map[string]string {
	records := map[string]string{}
	for _, k := range s.keys {
		r := k.Record()
		records[strings.TrimSuffix(r.Name, ".")] = r.Value
	}
	return records
}

// command is a program that runs where the site does.
func (s *site) command(path string, args ...string) *exec.Cmd {
	if s.ns != nil {
		return s.ns.command(path, args...)
	}
	return exec.Command(path, args...)
}

// util runs relay-util with the site's configuration.
func (s *site) util(args ...string) (stdout, stderr string, code int) {
	s.t.Helper()
	cmd := s.command(program(s.t, "relay-util"), append([]string{"-c", s.config()}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		s.t.Fatalf("relay-util: %v", err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// mustUtil is util for what must not fail.
func (s *site) mustUtil(args ...string) string {
	s.t.Helper()
	stdout, stderr, code := s.util(args...)
	if code != 0 {
		s.t.Fatalf("relay-util %q exits with %d:\n%s%s", args, code, stdout, stderr)
	}
	return stdout
}

// check runs relayd -check.
func (s *site) check() (output string, code int) {
	s.t.Helper()
	cmd := exec.Command(program(s.t, "relayd"), "-c", s.config(), "-check")
	out, err := cmd.CombinedOutput()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		s.t.Fatalf("relayd -check: %v", err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// control asks the running daemon.
func (s *site) control() *control.Client { return control.NewClient(s.path("state/control.sock")) }

// retryAll has everything in the queue tried now.
func (s *site) retryAll() {
	s.t.Helper()
	if _, err := s.control().Change(context.Background(), "retry", control.Selection{All: true}); err != nil {
		s.t.Fatalf("asking for a retry: %v", err)
	}
}

// waitFor polls until done returns true.
func waitFor(t testing.TB, what string, limit time.Duration, done func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, limit)
		}
	}
}

// arrived waits for n messages at the sink.
func arrived(t testing.TB, s *sink.Sink, n int) []*sink.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	list, err := s.Wait(ctx, n)
	if err != nil {
		t.Fatal(err)
	}
	return list
}
