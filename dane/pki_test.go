package dane

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	"relayd/dns"
)

// noon is when the tests take place.
var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// newKey makes a key of an algorithm: "RSA", "ECDSA" or "Ed25519".
func newKey(t testing.TB, algorithm string) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch algorithm {
	case "RSA":
		key, err = rsa.GenerateKey(rand.Reader, 1024) // small, because it is made anew each time
	case "ECDSA":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue makes cert with key, signed by the parent; by itself when parent is nil.
func issue(t testing.TB, cert *x509.Certificate, key crypto.Signer, parent *x509.Certificate, signer crypto.Signer) *x509.Certificate {
	t.Helper()
	if parent == nil {
		parent, signer = cert, key
	}
	cert.SerialNumber = big.NewInt(1)
	if cert.NotAfter.IsZero() {
		cert.NotBefore, cert.NotAfter = noon.Add(-time.Hour), noon.Add(time.Hour)
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func authority(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
}

func server(names ...string) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: "server"}, DNSNames: names, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
}

// A pki is a root, what it has signed, and the keys.
type pki struct {
	root, middle, leaf          *x509.Certificate
	rootKey, middleKey, leafKey crypto.Signer
}

// newPKI makes a chain of three for a server with the given certificate.
func newPKI(t testing.TB, algorithm string, leaf *x509.Certificate) *pki {
	t.Helper()
	return certify(t, &pki{rootKey: newKey(t, algorithm), middleKey: newKey(t, algorithm), leafKey: newKey(t, algorithm)}, leaf)
}

// fixedPKI is the same in every process, as fuzzing needs it.
func fixedPKI(t testing.TB, leaf *x509.Certificate) *pki {
	t.Helper()
	key := func(n byte) crypto.Signer { return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize)) }
	return certify(t, &pki{rootKey: key(1), middleKey: key(2), leafKey: key(3)}, leaf)
}

// certify fills in the certificates for the keys.
func certify(t testing.TB, p *pki, leaf *x509.Certificate) *pki {
	t.Helper()
	p.root = issue(t, authority("root"), p.rootKey, nil, nil)
	p.middle = issue(t, authority("middle"), p.middleKey, p.root, p.rootKey)
	p.leaf = issue(t, leaf, p.leafKey, p.middle, p.middleKey)
	return p
}

// chain is what a server with the certificates presents.
func chain(certs ...*x509.Certificate) []*x509.Certificate { return certs }

// record makes the TLSA record of cert.
func record(usage, selector, matching uint8, cert *x509.Certificate) dns.TLSA {
	data := cert.Raw
	if selector == 1 {
		data = cert.RawSubjectPublicKeyInfo
	}
	switch matching {
	case 1:
		digest := sha256.Sum256(data)
		data = digest[:]
	case 2:
		digest := sha512.Sum512(data)
		data = digest[:]
	}
	return dns.TLSA{Usage: usage, Selector: selector, Matching: matching, Data: data}
}
