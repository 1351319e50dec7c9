package mtasts

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"relayd/dns"
	"relayd/internal/testnet"
)

const enforced = "version: STSv1\nmode: enforce\nmx: mx.example.com\nmax_age: 604800\n"

// A world is DNS, a policy host for every name, and a clock.
type world struct {
	t      *testing.T
	clock  *testnet.Clock
	pool   *x509.CertPool
	server *httptest.Server
	log    bytes.Buffer // read when nothing writes any more

	mu      sync.Mutex
	txt     map[string][]string // by domain
	dnsErr  error               // of every TXT lookup
	ips     []netip.Addr
	handler http.HandlerFunc
	fetches int
}

func newWorld(t *testing.T, names ...string) *world {
	t.Helper()
	w := &world{t: t, clock: testnet.NewClock(), txt: map[string][]string{}, ips: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}
	if len(names) == 0 {
		names = []string{"mta-sts.example.com"}
	}
	cert, pool := certificate(t, w.clock.Now(), names...)
	w.pool = pool
	w.server = httptest.NewUnstartedServer(http.HandlerFunc(w.serve))
	w.server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	w.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	w.server.StartTLS()
	t.Cleanup(w.server.Close)
	w.announce("example.com", "v=STSv1; id=1;")
	w.publish(enforced)
	return w
}

// certificate makes one for names that an authority of its own has issued, good for two hours.
func certificate(t *testing.T, now time.Time, names ...string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(365 * 24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: names, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	caKey, leafKey := key(), key()
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, leafKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(caDER)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	return tls.Certificate{Certificate: [][]byte{leafDER}, PrivateKey: leafKey}, pool
}

func (w *world) serve(rw http.ResponseWriter, req *http.Request) {
	w.mu.Lock()
	w.fetches++
	handler := w.handler
	w.mu.Unlock()
	if req.URL.Path != "/.well-known/mta-sts.txt" || req.Method != http.MethodGet || req.Host != req.TLS.ServerName {
		http.Error(rw, "not what was expected", http.StatusBadRequest)
		return
	}
	handler(rw, req)
}

func (w *world) announce(domain string, records ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.txt[domain] = records
}

func (w *world) breakDNS(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dnsErr = err
}

func (w *world) handle(h http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.handler = h
}

func (w *world) publish(policy string) {
	w.handle(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(rw, policy)
	})
}

func (w *world) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fetches
}

func (w *world) TXT(_ context.Context, name string) ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dnsErr != nil {
		return nil, w.dnsErr
	}
	if records := w.txt[name[len("_mta-sts."):]]; len(records) > 0 {
		return records, nil
	}
	return nil, &dns.Error{Name: name, Type: "TXT", Kind: dns.NotExist}
}

func (w *world) IP(_ context.Context, host, _ string) (dns.Answer[netip.Addr], error) {
	if len(w.ips) == 0 {
		return dns.Answer[netip.Addr]{}, &dns.Error{Name: host, Type: "A", Kind: dns.NoData}
	}
	return dns.Answer[netip.Addr]{Records: w.ips}, nil
}

// open makes a cache that is closed when the test ends.
func (w *world) open(change ...func(*Options)) *Cache {
	w.t.Helper()
	opt := Options{
		Resolver: w, RootCAs: w.pool, Port: w.server.Listener.Addr().(*net.TCPAddr).Port, Now: w.clock.Now,
		Log: slog.New(slog.NewTextHandler(&w.log, nil)),
	}
	for _, f := range change {
		f(&opt)
	}
	c, err := Open(opt)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	return c
}

// want asks for a policy and compares its mode and the kind of failure, "" for none, and how many
// fetches there have been since the world began.
func (w *world) want(c *Cache, domain string, mode Mode, result Result, fetches int) {
	w.t.Helper()
	p, err := c.Policy(w.t.Context(), domain)
	e, _ := errors.AsType[*Error](err)
	if p.Mode != mode || (err == nil) != (result == "") || e != nil && (e.Result != result || e.Domain == "" || e.Cause == nil) {
		w.t.Errorf("%s: %v, %v; want %v and %q", domain, p.Mode, err, mode, result)
	}
	if n := w.count(); n != fetches {
		w.t.Errorf("%s: %d fetches; want %d", domain, n, fetches)
	}
}

// A farWorld is one whose policy hosts are reached by nothing but a function, for tests in which
// time is made up. Every domain announces a policy.
type farWorld struct{ *world }

func newFarWorld(t *testing.T) farWorld {
	return farWorld{&world{t: t, ips: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}}
}

func (farWorld) TXT(context.Context, string) ([]string, error) { return []string{"v=STSv1; id=1"}, nil }

func (w farWorld) open(dial func(context.Context, string, string) (net.Conn, error)) *Cache {
	w.t.Helper()
	c, err := Open(Options{Resolver: w, Dial: dial})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	return c
}
