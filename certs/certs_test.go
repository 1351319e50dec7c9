package certs

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relayd/problem"
)

// start is the time of most tests. Files that they write have the time of the machine, which is
// not near it, so every look reads them.
var start = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// A spec says what certificate to make.
type spec struct {
	names             []string
	notBefore, notEnd time.Duration // from start; a year where notEnd is 0
	rsa               bool
}

func (s spec) make(t testing.TB) (chain, key []byte) {
	t.Helper()
	var signer crypto.Signer
	var err error
	if s.rsa {
		signer, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	if s.notEnd == 0 {
		s.notEnd = 365 * 24 * time.Hour
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: s.names[0]},
		DNSNames:     s.names,
		NotBefore:    start.Add(s.notBefore),
		NotAfter:     start.Add(s.notEnd),
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, signer.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
}

func write(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s spec) write(t testing.TB, dir, name string) {
	t.Helper()
	chain, key := s.make(t)
	write(t, filepath.Join(dir, name, chainFile), chain)
	write(t, filepath.Join(dir, name, keyFile), key)
}

func open(t testing.TB, dir string) *Store {
	t.Helper()
	s, problems := New(Options{Dir: dir, Hostname: "mx.example.org", Now: func() time.Time { return start }})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	return s
}

// shown makes a handshake and returns the certificate that the client got.
func shown(t testing.TB, config *tls.Config, client *tls.Config) *x509.Certificate {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	done := make(chan error, 1)
	go func() { done <- tls.Server(a, config).Handshake() }()
	client.InsecureSkipVerify = true
	c := tls.Client(b, client)
	if err := c.Handshake(); err != nil {
		t.Errorf("handshake: %v", err)
		return nil
	}
	// Tickets follow the server's last word; the pipe has no buffer for them.
	go c.Read(make([]byte, 1))
	if err := <-done; err != nil {
		t.Errorf("handshake: %v", err)
	}
	return c.ConnectionState().PeerCertificates[0]
}

func nameFor(t testing.TB, s *Store, serverName string) string {
	t.Helper()
	cert := shown(t, s.TLSConfig(), &tls.Config{ServerName: serverName})
	if cert == nil {
		return ""
	}
	return cert.Subject.CommonName
}

func TestCertificateByName(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	spec{names: []string{"a.example", "Shop.A.example"}}.write(t, dir, "1")
	spec{names: []string{"*.a.example", "wild.example"}}.write(t, dir, "2")
	spec{names: []string{"www.a.example"}}.write(t, dir, "3")
	spec{names: []string{"mx.example.org"}}.write(t, dir, "9")
	spec{names: []string{"secret.example"}}.write(t, filepath.Dir(dir), "outside")
	write(t, filepath.Join(dir, "README"), []byte("x"))
	write(t, filepath.Join(dir, ".old", "x"), []byte("x"))
	s := open(t, dir)
	for asked, want := range map[string]string{
		"a.example":        "a.example",
		"A.EXAMPLE":        "a.example",
		"shop.a.example":   "a.example",
		"other.a.example":  "*.a.example",
		"www.a.example":    "www.a.example",
		"x.y.a.example":    "mx.example.org",
		"wild.example":     "*.a.example",
		"mx.example.org":   "mx.example.org",
		"unknown.example":  "mx.example.org",
		"../../etc/passwd": "mx.example.org",
		"../outside":       "mx.example.org",
		"%2e%2e/outside":   "mx.example.org",
		".old":             "mx.example.org",
		"1":                "mx.example.org", // a folder's name is none to ask for
		"a.example\x00":    "mx.example.org",
		"":                 "mx.example.org",
	} {
		if got := nameFor(t, s, asked); got != want {
			t.Errorf("asked for %q: shown %q, want %q", asked, got, want)
		}
		if !s.Real(asked) {
			t.Errorf("Real(%q) is false", asked)
		}
	}
	for _, literal := range []string{"a.example.", "*.a.example", ".a.example"} {
		s.Real(literal) // whatever a client sends
	}
	if got := s.current.Load().find("a.example.")[0].info.Name; got != "1" {
		t.Errorf("with a dot at the end: %s", got)
	}
}

func TestNoCertificateForTheHostname(t *testing.T) {
	dir := t.TempDir()
	spec{names: []string{"b.example"}}.write(t, dir, "b")
	spec{names: []string{"a.example"}}.write(t, dir, "z")
	s := open(t, dir)
	if got := nameFor(t, s, ""); got != "b.example" {
		t.Errorf("shown %q, want the first by the name of its folder", got)
	}
	spec{names: []string{"*.example.org"}}.write(t, dir, "zz")
	s.Reload()
	if got := nameFor(t, s, ""); got != "*.example.org" {
		t.Errorf("shown %q, want the wildcard for the hostname", got)
	}
}

func TestSelfSignedWhereThereIsNone(t *testing.T) {
	var log bytes.Buffer
	dir := filepath.Join(t.TempDir(), "certs")
	s, problems := New(Options{
		Dir: dir, Hostname: "MX.example.org", Log: slog.New(slog.NewTextHandler(&log, nil)),
		Now: func() time.Time { return start },
	})
	if len(problems) != 0 || !strings.Contains(log.String(), "NO CERTIFICATE") {
		t.Errorf("problems %v, log %s", problems, &log)
	}
	cert := shown(t, s.TLSConfig(), &tls.Config{ServerName: "x.example"})
	if err := cert.VerifyHostname("mx.example.org"); err != nil {
		t.Error(err)
	}
	if !cert.NotAfter.Equal(start.AddDate(10, 0, 0)) || cert.PublicKeyAlgorithm != x509.ECDSA {
		t.Errorf("until %v, %v", cert.NotAfter, cert.PublicKeyAlgorithm)
	}
	if s.Real("mx.example.org") || s.Real("") {
		t.Error("the self-signed certificate passes as real")
	}
	if l := s.List(); len(l) != 1 || !l[0].SelfSigned || l[0].File != "" {
		t.Errorf("List() = %+v", l)
	}
	log.Reset()
	s.Reload()
	if log.Len() != 0 {
		t.Errorf("said again: %s", &log)
	}

	spec{names: []string{"mx.example.org"}}.write(t, dir, "mx")
	s.Reload()
	if l := s.List(); !s.Real("") || len(l) != 1 || l[0].SelfSigned || l[0].Name != "mx" || l[0].File != filepath.Join(dir, "mx", chainFile) {
		t.Errorf("List() = %+v", l)
	}
	log.Reset()
	if err := os.RemoveAll(filepath.Join(dir, "mx")); err != nil {
		t.Fatal(err)
	}
	s.Reload()
	if s.Real("") || !strings.Contains(log.String(), "NO CERTIFICATE") {
		t.Errorf("after the pair was removed: Real %v, log %s", s.Real(""), &log)
	}
	if again := shown(t, s.TLSConfig(), &tls.Config{}); !again.Equal(cert) {
		t.Error("another self-signed certificate than before")
	}
}

func TestABrokenPairNeverReplacesAGoodOne(t *testing.T) {
	good := spec{names: []string{"good.example"}}
	chain, key := good.make(t)
	otherChain, otherKey := spec{names: []string{"new.example"}}.make(t)
	expired, expiredKey := spec{names: []string{"new.example"}, notBefore: -48 * time.Hour, notEnd: -time.Hour}.make(t)
	early, earlyKey := spec{names: []string{"new.example"}, notBefore: time.Hour}.make(t)
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")})
	tests := []struct {
		name       string
		chain, key []byte // nil: the file is missing
		file, want string
	}{
		{"key of another", chain, otherKey, keyFile, "not that of the first certificate"},
		{"certificate of another", otherChain, key, keyFile, "not that of the first certificate"},
		{"half a chain", otherChain[:len(otherChain)/2], otherKey, chainFile, "no PEM certificate"},
		{"half a second certificate", slices.Concat(otherChain, rubbish("CERTIFICATE")), otherKey, chainFile, "behind the first"},
		{"rubbish in the chain", rubbish("CERTIFICATE"), otherKey, chainFile, "x509"},
		{"half a key", otherChain, otherKey[:len(otherKey)/2], keyFile, "no PEM private key"},
		{"rubbish for a key", otherChain, rubbish("PRIVATE KEY"), keyFile, "parse"},
		{"empty files", []byte{}, []byte{}, chainFile, "no PEM certificate"},
		{"encrypted key", otherChain, encrypted, keyFile, "passphrase"},
		{"a huge file", bytes.Repeat([]byte("x"), maxFile+1), otherKey, chainFile, "MiB"},
		{"no chain", nil, otherKey, chainFile, "no such file"},
		{"no key", otherChain, nil, keyFile, "no such file"},
		{"expired", expired, expiredKey, chainFile, "expired at 2019-12-31"},
		{"not yet valid", early, earlyKey, chainFile, "valid only from"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			put := func(file string, data []byte) {
				path := filepath.Join(dir, "x", file)
				if err := os.RemoveAll(path); err != nil {
					t.Fatal(err)
				}
				if data != nil {
					write(t, path, data)
				}
			}
			put(chainFile, chain)
			put(keyFile, key)
			s := open(t, dir)
			put(chainFile, tt.chain)
			put(keyFile, tt.key)
			problems := s.Reload()
			checkProblem(t, problems, filepath.Join(dir, "x", tt.file), tt.want)
			if got := s.Problems(); !slices.Equal(got, problems) {
				t.Errorf("Problems() = %v", got)
			}
			if got := nameFor(t, s, "good.example"); got != "good.example" {
				t.Errorf("shown %q", got)
			}
			put(chainFile, otherChain)
			put(keyFile, otherKey)
			if err := s.Reload().Err(); err != nil {
				t.Error(err)
			}
			if got := nameFor(t, s, "new.example"); got != "new.example" {
				t.Errorf("after the repair: shown %q", got)
			}
		})
	}
}

func rubbish(kind string) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte("rubbish")})
}

func checkProblem(t *testing.T, problems problem.List, file, want string) {
	t.Helper()
	if len(problems) != 1 || problems[0].File != file || !strings.Contains(problems[0].Reason, want) {
		t.Errorf("problems %v, want %s: … %s …", problems, file, want)
	}
}

func TestAnExpiredPairIsBetterThanNone(t *testing.T) {
	dir := t.TempDir()
	spec{names: []string{"mx.example.org"}, notBefore: -48 * time.Hour, notEnd: -time.Hour}.write(t, dir, "a")
	s, problems := New(Options{Dir: dir, Hostname: "mx.example.org", Now: func() time.Time { return start }})
	checkProblem(t, problems, filepath.Join(dir, "a", chainFile), "expired at")
	if got := nameFor(t, s, ""); got != "mx.example.org" || !s.Real("") {
		t.Errorf("shown %q", got)
	}
	spec{names: []string{"new.example", "mx.example.org"}}.write(t, dir, "b")
	s.Reload()
	if got := nameFor(t, s, "mx.example.org"); got != "new.example" {
		t.Errorf("shown %q, want the one that is valid", got)
	}
}

func TestACertificateThatExpiresWhileInForceIsAProblem(t *testing.T) {
	dir := t.TempDir()
	spec{names: []string{"mx.example.org"}, notEnd: time.Hour}.write(t, dir, "a")
	now := start
	s, problems := New(Options{Dir: dir, Hostname: "mx.example.org", Now: func() time.Time { return now }})
	if len(problems) != 0 {
		t.Fatal(problems)
	}
	now = now.Add(2 * time.Hour)
	checkProblem(t, s.Reload(), filepath.Join(dir, "a", chainFile), "expired at")
}

func TestAFolderThatCannotBeReadKeepsWhatIsInForce(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "certs")
	spec{names: []string{"mx.example.org"}}.write(t, dir, "a")
	s := open(t, dir)
	if err := os.Rename(dir, filepath.Join(parent, "away")); err != nil {
		t.Fatal(err)
	}
	checkProblem(t, s.Reload(), dir, "no such file")
	if !s.Real("") {
		t.Error("the certificate is gone")
	}
}

func TestLinksAreFollowed(t *testing.T) {
	dir, archive := t.TempDir(), t.TempDir()
	spec{names: []string{"one.example"}}.write(t, archive, "1")
	spec{names: []string{"two.example"}}.write(t, archive, "2")
	link := filepath.Join(dir, "mx")
	if err := os.Symlink(filepath.Join(archive, "1"), link); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	if got := nameFor(t, s, ""); got != "one.example" {
		t.Errorf("shown %q", got)
	}
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(archive, "2"), link); err != nil {
		t.Fatal(err)
	}
	s.Reload()
	if got := nameFor(t, s, ""); got != "two.example" {
		t.Errorf("after the link was changed: shown %q", got)
	}
}

// TestARewriteWithinTheSameSecondIsSeen writes a file of the same size, time and inode: what a
// script does that makes a certificate twice in a row.
func TestARewriteWithinTheSameSecondIsSeen(t *testing.T) {
	dir := t.TempDir()
	const long = 100 * 365 * 24 * time.Hour
	spec{names: []string{"a.example"}, notEnd: long}.write(t, dir, "x")
	now := time.Now()
	stamp := func() {
		for _, file := range []string{chainFile, keyFile} {
			if err := os.Chtimes(filepath.Join(dir, "x", file), now, now); err != nil {
				t.Fatal(err)
			}
		}
	}
	stamp()
	s, _ := New(Options{Dir: dir, Hostname: "mx.example.org", Now: func() time.Time { return now.Add(time.Second) }})
	spec{names: []string{"b.example"}, notEnd: long}.write(t, dir, "x")
	stamp()
	s.Reload()
	if got := nameFor(t, s, ""); got != "b.example" {
		t.Errorf("shown %q", got)
	}
}

func TestOldFilesAreNotReadAgain(t *testing.T) {
	dir := t.TempDir()
	spec{names: []string{"mx.example.org"}}.write(t, dir, "x")
	s, _ := New(Options{Dir: dir, Hostname: "mx.example.org", Now: func() time.Time { return time.Now().Add(time.Minute) }})
	if p := s.folders[0].pairs["x"]; !p.certain {
		t.Error("a file that is a minute old would be read at every look")
	}
}

func TestTheClientGetsAKeyThatItCanUse(t *testing.T) {
	dir := t.TempDir()
	spec{names: []string{"mx.example.org", "ecdsa"}}.write(t, dir, "ecdsa")
	spec{names: []string{"mx.example.org", "rsa"}, rsa: true}.write(t, dir, "rsa")
	s := open(t, dir)
	old := func() *tls.Config {
		return &tls.Config{
			MaxVersion:   tls.VersionTLS12,
			CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
		}
	}
	for _, name := range []string{"mx.example.org", "", "unknown.example"} {
		client := old()
		client.ServerName = name
		if cert := shown(t, s.TLSConfig(), client); cert == nil || cert.PublicKeyAlgorithm != x509.RSA {
			t.Errorf("a client with RSA only asked for %q", name)
		}
		if cert := shown(t, s.TLSConfig(), &tls.Config{ServerName: name}); cert == nil || cert.PublicKeyAlgorithm != x509.ECDSA {
			t.Errorf("a new client asked for %q", name)
		}
	}
}

func TestOldVersionsOfTLSAreRefused(t *testing.T) {
	s := open(t, "")
	if s.TLSConfig().MinVersion != tls.VersionTLS12 || s.TLSConfig().SessionTicketsDisabled {
		t.Error("TLS below 1.2, or no tickets")
	}
}

func TestCertificatesChangeWhileClientsConnect(t *testing.T) {
	dir := t.TempDir()
	specs := []spec{{names: []string{"mx.example.org", "one"}}, {names: []string{"mx.example.org", "two"}}}
	specs[0].write(t, dir, "x")
	s := open(t, dir)
	config := s.TLSConfig()
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if cert := shown(t, config, &tls.Config{ServerName: "mx.example.org"}); cert == nil || cert.Subject.CommonName != "mx.example.org" {
						t.Error("no certificate")
					}
					s.List()
					s.Problems()
				}
			}
		})
	}
	for i := range 30 {
		chain, key := specs[i%2].make(t)
		write(t, filepath.Join(dir, "x", chainFile), chain)
		s.Reload() // between the two files: they do not belong together
		write(t, filepath.Join(dir, "x", keyFile), key)
		if err := s.Reload().Err(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	clients.Wait()
}

func TestWatchReloadsUntilItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := open(t, dir)
		ctx, cancel := context.WithCancel(t.Context())
		var watching sync.WaitGroup
		watching.Go(func() { s.Watch(ctx, 5*time.Second) })
		spec{names: []string{"mx.example.org"}}.write(t, dir, "x")
		synctest.Wait()
		if s.Real("") {
			t.Error("reloaded too early")
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if !s.Real("") {
			t.Error("not reloaded")
		}
		cancel()
		watching.Wait()
	})
}

func TestSelfSignedForAnAddressAndForNothing(t *testing.T) {
	cert, err := SelfSigned("192.0.2.1", start)
	if err != nil || cert.Leaf.VerifyHostname("192.0.2.1") != nil {
		t.Errorf("%v", err)
	}
	if _, err := SelfSigned("schön.example", start); err == nil {
		t.Error("a name that no certificate can have was taken")
	}
	s, problems := New(Options{Hostname: "schön.example"})
	if len(problems) != 1 || s.Real("") || len(s.List()) != 0 {
		t.Errorf("problems %v", problems)
	}
}

// TestTheAdminsCertificateComesFirst: of two for one name the first folder's is shown, as long as it
// is valid.
func TestTheAdminsCertificateComesFirst(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	now := start
	spec{names: []string{"mx.example.org", "first"}, notEnd: time.Hour}.write(t, first, "z")
	spec{names: []string{"mx.example.org", "second"}}.write(t, second, "a")
	s, problems := New(Options{Dir: first, Second: second, Hostname: "mx.example.org", Now: func() time.Time { return now }})
	if len(problems) > 0 {
		t.Error(problems)
	}
	for _, want := range []string{"first", "second"} {
		for _, name := range []string{"", "mx.example.org"} {
			if cert := shown(t, s.TLSConfig(), &tls.Config{ServerName: name}); cert == nil || cert.DNSNames[1] != want {
				t.Errorf("asked for %q: not the %s", name, want)
			}
		}
		now = now.Add(2 * time.Hour)
		s.Reload()
	}
}
