package dane

import (
	"crypto/x509"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"relayd/dns"
)

// check verifies and compares with the wanted Result, "" for an authenticated server.
func check(t *testing.T, want Result, records []dns.TLSA, certs []*x509.Certificate, names ...string) {
	t.Helper()
	if len(names) == 0 {
		names = []string{"mx.example.com"}
	}
	err := Verify(records, certs, names, noon)
	if err == nil && want == "" {
		return
	}
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Result != want || e.Error() == "" || errors.Is(err, ErrUnusable) != (want == TLSAInvalid) {
		t.Errorf("%v; want %q", err, want)
	}
}

// TestEveryRecordOfEveryKey goes through all that a record can say about each certificate of a
// chain, and about one of somebody else.
func TestEveryRecordOfEveryKey(t *testing.T) {
	for _, algorithm := range []string{"RSA", "ECDSA", "Ed25519"} {
		p := newPKI(t, algorithm, server("mx.example.com"))
		stranger := issue(t, server("mx.example.com"), newKey(t, algorithm), nil, nil)
		full := chain(p.leaf, p.middle, p.root)
		for _, selector := range []uint8{0, 1} {
			for _, matching := range []uint8{0, 1, 2} {
				t.Run(fmt.Sprintf("%s %d %d", algorithm, selector, matching), func(t *testing.T) {
					of := func(usage uint8, cert *x509.Certificate) []dns.TLSA {
						return []dns.TLSA{record(usage, selector, matching, cert)}
					}
					for _, usage := range []uint8{0, 1, 4, 255} {
						check(t, TLSAInvalid, of(usage, p.leaf), full)
						check(t, TLSAInvalid, of(usage, p.root), full)
					}
					check(t, "", of(3, p.leaf), full)
					check(t, "", of(3, p.leaf), chain(p.leaf))
					check(t, "", of(3, p.leaf), full, "another.example.org")
					check(t, ValidationFailure, of(3, p.root), full)
					check(t, ValidationFailure, of(3, stranger), full)

					check(t, "", of(2, p.root), full)
					check(t, "", of(2, p.middle), full)
					check(t, "", of(2, p.middle), chain(p.leaf, p.middle))
					check(t, "", of(2, p.root), chain(p.leaf, p.root, p.middle))
					check(t, CertificateHostMismatch, of(2, p.root), full, "another.example.org")
					check(t, CertificateNotTrusted, of(2, p.root), chain(p.leaf, p.root))

					// What is not presented must stand in the record.
					absent := Result("")
					if matching != 0 {
						absent = ValidationFailure
					}
					check(t, absent, of(2, p.root), chain(p.leaf, p.middle))
					check(t, absent, of(2, p.middle), chain(p.leaf))
					missing := ValidationFailure
					if matching == 0 && selector == 0 {
						missing = CertificateNotTrusted // the root is known, but not what lies between
					}
					check(t, missing, of(2, p.root), chain(p.leaf))

					strange := ValidationFailure
					if matching == 0 && selector == 0 {
						strange = CertificateNotTrusted
					}
					check(t, strange, of(2, stranger), full)
					check(t, "", append(of(2, stranger), of(3, p.leaf)...), full)
					check(t, "", append(of(3, stranger), of(2, p.root)...), full)
					check(t, TLSAInvalid, nil, full)
					check(t, ValidationFailure, of(3, p.leaf), nil)
				})
			}
		}
	}
}

func TestNames(t *testing.T) {
	p := newPKI(t, "Ed25519", server("mx.example.com", "*.example.net"))
	anchor := []dns.TLSA{record(2, 1, 1, p.root)}
	for _, c := range []struct {
		names []string
		want  Result
	}{
		{[]string{"mx.example.com"}, ""},
		{[]string{"MX.Example.COM"}, ""},
		{[]string{"other.example.org", "mx.example.com"}, ""},
		{[]string{"a.example.net"}, ""},
		{[]string{"a.b.example.net"}, CertificateHostMismatch},
		{[]string{"example.net"}, CertificateHostMismatch},
		{[]string{"server"}, CertificateHostMismatch}, // the common name
		{[]string{""}, CertificateHostMismatch},
	} {
		check(t, c.want, anchor, chain(p.leaf, p.middle, p.root), c.names...)
	}
	err := Verify(anchor, chain(p.leaf, p.middle, p.root), nil, noon)
	if e, ok := errors.AsType[*Error](err); !ok || e.Result != CertificateHostMismatch {
		t.Errorf("without any name: %v", err)
	}
}

func TestDates(t *testing.T) {
	p := newPKI(t, "ECDSA", server("mx.example.com"))
	past := func(cert *x509.Certificate) *x509.Certificate {
		cert.NotBefore, cert.NotAfter = noon.Add(-2*time.Hour), noon.Add(-time.Hour)
		return cert
	}
	oldLeaf := issue(t, past(server("mx.example.com")), p.leafKey, p.middle, p.middleKey)
	oldMiddle := issue(t, past(authority("middle")), p.middleKey, p.root, p.rootKey)
	oldRoot := issue(t, past(authority("root")), p.rootKey, nil, nil)
	future := server("mx.example.com")
	future.NotBefore, future.NotAfter = noon.Add(time.Hour), noon.Add(2*time.Hour)
	newLeaf := issue(t, future, p.leafKey, p.middle, p.middleKey)

	for _, selector := range []uint8{0, 1} {
		check(t, "", []dns.TLSA{record(3, selector, 1, oldLeaf)}, chain(oldLeaf, p.middle, p.root))
		check(t, "", []dns.TLSA{record(3, selector, 1, newLeaf)}, chain(newLeaf, p.middle, p.root))
		check(t, CertificateExpired, []dns.TLSA{record(2, selector, 1, p.root)}, chain(oldLeaf, p.middle, p.root))
		check(t, CertificateExpired, []dns.TLSA{record(2, selector, 1, p.root)}, chain(newLeaf, p.middle, p.root))
		check(t, CertificateExpired, []dns.TLSA{record(2, selector, 1, p.root)}, chain(p.leaf, oldMiddle, p.root))
		check(t, CertificateExpired, []dns.TLSA{record(2, selector, 1, oldRoot)}, chain(p.leaf, p.middle, oldRoot))
	}
}

// An end entity below the anchor must not be able to issue certificates.
func TestServerAsAuthority(t *testing.T) {
	p := newPKI(t, "Ed25519", server("mx.example.com"))
	forged := issue(t, server("mx.example.com"), newKey(t, "Ed25519"), p.leaf, p.leafKey)
	check(t, CertificateNotTrusted, []dns.TLSA{record(2, 1, 1, p.root)}, chain(forged, p.leaf, p.middle, p.root))
	check(t, CertificateNotTrusted, []dns.TLSA{record(2, 1, 1, p.leaf)}, chain(forged, p.leaf, p.middle, p.root))
}

// A record of usage 2 that stands for the server's own certificate was meant to be one of usage 3,
// and a certificate for something else than servers is none for a server.
func TestAnchorIsNotTheServer(t *testing.T) {
	self := issue(t, server("mx.example.com"), newKey(t, "Ed25519"), nil, nil)
	check(t, ValidationFailure, []dns.TLSA{record(2, 1, 1, self)}, chain(self))

	client := server("mx.example.com")
	client.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	p := newPKI(t, "Ed25519", client)
	check(t, CertificateNotTrusted, []dns.TLSA{record(2, 1, 1, p.root)}, chain(p.leaf, p.middle, p.root))
}

func TestSHA1ProvesNothing(t *testing.T) {
	p := newPKI(t, "ECDSA", server("mx.example.com"))
	weak := server("mx.example.com")
	weak.SignatureAlgorithm = x509.ECDSAWithSHA1
	leaf := issue(t, weak, p.leafKey, p.middle, p.middleKey)
	check(t, ValidationFailure, []dns.TLSA{record(2, 1, 0, p.middle)}, chain(leaf))
	check(t, CertificateNotTrusted, []dns.TLSA{record(2, 1, 0, p.middle)}, chain(leaf, p.middle))
}

// A server's certificate that stands behind its own place, too, is not looked for there.
func TestOnlyTheFirstIsTheServer(t *testing.T) {
	p := newPKI(t, "Ed25519", server("mx.example.com"))
	other := newPKI(t, "Ed25519", server("mx.example.com"))
	check(t, ValidationFailure, []dns.TLSA{record(3, 1, 1, p.leaf)}, chain(other.leaf, p.leaf))
	check(t, CertificateNotTrusted, []dns.TLSA{record(2, 1, 1, p.root)}, chain(other.leaf, p.middle, p.root))
}

func TestLongChain(t *testing.T) {
	p := newPKI(t, "Ed25519", server("mx.example.com"))
	long := chain(p.leaf)
	for range 200 {
		long = append(long, p.middle)
	}
	check(t, "", []dns.TLSA{record(2, 0, 0, p.root)}, long)
	check(t, ValidationFailure, []dns.TLSA{record(2, 0, 1, p.root)}, append(long, p.root))
}

// No record helps a server of another chain, whatever else stands beside it.
func TestStrangerIsNeverAuthenticated(t *testing.T) {
	p, other := newPKI(t, "Ed25519", server("mx.example.com")), newPKI(t, "Ed25519", server("mx.example.com"))
	certs := chain(p.leaf, p.middle, p.root, other.leaf, other.middle, other.root)
	rapid.Check(t, func(t *rapid.T) {
		var records []dns.TLSA
		for range rapid.IntRange(0, 5).Draw(t, "records") {
			small := rapid.Uint8Range(0, 4)
			records = append(records, record(small.Draw(t, "usage"), small.Draw(t, "selector"),
				small.Draw(t, "matching"), rapid.SampledFrom(certs[:3]).Draw(t, "cert")))
		}
		presented := append(chain(other.leaf), rapid.SliceOf(rapid.SampledFrom(certs)).Draw(t, "chain")...)
		if err := Verify(records, presented, []string{"mx.example.com"}, noon); err == nil {
			t.Fatal("authenticated")
		}
	})
}
