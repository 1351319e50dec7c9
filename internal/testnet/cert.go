package testnet

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"
)

// A Certificate is a server certificate, issued by an authority that exists for this test only.
type Certificate struct {
	TLS   tls.Certificate // for tls.Config.Certificates of the server
	Chain []byte          // PEM: the certificate, then the authority's
	Key   []byte          // PEM: the private key, PKCS#8
	Pool  *x509.CertPool  // for tls.Config.RootCAs of a client that shall trust it
}

// Cert issues a certificate for names, which are DNS names or IP addresses. It is valid from an
// hour before now to a day after. Every call has an authority of its own.
func Cert(t testing.TB, names ...string) Certificate {
	t.Helper()
	return certify(t, newKey(t), names)
}

// RSACert is Cert with an RSA key of 2048 bits, as older ACME clients and many companies have it.
func RSACert(t testing.TB, names ...string) Certificate {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatalf("making a test key: %v", err)
	}
	return certify(t, key, names)
}

func certify(t testing.TB, leafKey crypto.Signer, names []string) Certificate {
	t.Helper()
	now := time.Now()
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "relayd test authority"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			leaf.IPAddresses = append(leaf.IPAddresses, ip)
		} else {
			leaf.DNSNames = append(leaf.DNSNames, name)
		}
	}
	caKey := newKey(t)
	caDER := issue(t, authority, authority, &caKey.PublicKey, caKey)
	caCert, err := x509.ParseCertificate(caDER)
	if err != nil {
		t.Fatalf("parsing the test authority: %v", err)
	}
	leafDER := issue(t, leaf, caCert, leafKey.Public(), caKey)
	keyDER, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		t.Fatalf("encoding a test key: %v", err)
	}
	c := Certificate{
		Chain: append(pemBlock("CERTIFICATE", leafDER), pemBlock("CERTIFICATE", caDER)...),
		Key:   pemBlock("PRIVATE KEY", keyDER),
		Pool:  x509.NewCertPool(),
	}
	c.Pool.AddCert(caCert)
	if c.TLS, err = tls.X509KeyPair(c.Chain, c.Key); err != nil {
		t.Fatalf("loading a test certificate: %v", err)
	}
	return c
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("making a test key: %v", err)
	}
	return key
}

func issue(t testing.TB, cert, parent *x509.Certificate, pub crypto.PublicKey, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, pub, key)
	if err != nil {
		t.Fatalf("issuing a test certificate: %v", err)
	}
	return der
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
