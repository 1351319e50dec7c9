// Package dkim signs messages, checks the signatures of others, and says what stands in DNS for
// our keys: DKIM by RFC 6376 with rsa-sha256 as RFC 8301 limits it and ed25519-sha256 of RFC 8463.
//
// Sign reads a message once, in constant memory past its header, however many keys sign it, and
// returns fields to put in front; the message itself is never touched. Verify leaves the
// cryptography to go-msgauth and keeps from it what it cannot bear.
package dkim

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"relayd/address"
)

// The lengths of RSA keys in bits that every verifier takes (RFC 8301 section 3.2).
const (
	minRSA = 1024
	maxRSA = 4096
)

// maxName is the longest domain name in its written form (RFC 1035 section 2.3.4).
const maxName = 253

// A Key signs for one domain. It does not change after it was made and is safe for concurrent use.
type Key struct {
	Domain   string // d=, lower case, A-labels
	Selector string // s=, lower case
	signer   crypto.Signer
}

// ParseKey reads a private key from PEM: PKCS #8, or PKCS #1 for RSA. It is an RSA key of 1024 to
// 4096 bits or an Ed25519 key. The selector is one or more DNS labels joined by dots.
func ParseKey(domain, selector string, pemBytes []byte) (*Key, error) {
	k := &Key{}
	var err error
	if k.Domain, err = dnsName(domain); err != nil {
		return nil, err
	}
	if k.Selector, err = dnsName(selector); err != nil {
		return nil, fmt.Errorf("selector: %w", err)
	}
	if n := len(k.recordName()); n > maxName {
		return nil, fmt.Errorf("the name of the DNS record has %d octets, at most %d are allowed: take a shorter selector", n, maxName)
	}
	if k.signer, err = parsePrivate(pemBytes); err != nil {
		return nil, err
	}
	return k, nil
}

// dnsName is address.Domain without address literals.
func dnsName(s string) (string, error) {
	if strings.HasPrefix(s, "[") {
		return "", fmt.Errorf("%q is not a domain name", s)
	}
	return address.Domain(s)
}

func parsePrivate(data []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("no PEM block here: a key begins with -----BEGIN PRIVATE KEY-----")
	}
	var key any
	var err error
	switch {
	case strings.Contains(block.Type, "ENCRYPTED") || block.Headers["DEK-Info"] != "":
		return nil, errors.New("the key is encrypted: store it without a passphrase")
	case block.Type == "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case block.Type == "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("a PEM block %q where a PRIVATE KEY should be", block.Type)
	}
	if err != nil {
		// The library refuses short keys in its own words, before anybody can ask for their length.
		if bits := rsaBits(block.Bytes); bits > 0 && bits < minRSA {
			return nil, errRSASize(bits)
		}
		return nil, errors.New("there is no private key in this PEM block: the file is damaged (`relay-util dkim-keygen` makes a new key)")
	}
	switch key := key.(type) {
	case *rsa.PrivateKey:
		if bits := key.N.BitLen(); bits < minRSA || bits > maxRSA {
			return nil, errRSASize(bits)
		}
		return key, nil
	case ed25519.PrivateKey:
		return key, nil
	}
	return nil, fmt.Errorf("a key of type %T: DKIM knows only RSA and Ed25519", key)
}

func errRSASize(bits int) error {
	return fmt.Errorf("an RSA key of %d bits: it must have %d to %d, best 2048 (`relay-util dkim-keygen` makes one)", bits, minRSA, maxRSA)
}

// rsaBits is the length of the RSA key in der, PKCS #8 or PKCS #1, and 0 if there is none.
func rsaBits(der []byte) int {
	var pkcs8 struct {
		Version   int
		Algorithm asn1.RawValue
		Key       []byte
	}
	if rest, err := asn1.Unmarshal(der, &pkcs8); err == nil && len(rest) == 0 {
		der = pkcs8.Key
	}
	var seq asn1.RawValue
	if _, err := asn1.Unmarshal(der, &seq); err != nil || seq.Tag != asn1.TagSequence {
		return 0
	}
	var version int
	rest, err := asn1.Unmarshal(seq.Bytes, &version)
	if err != nil {
		return 0
	}
	modulus := new(big.Int)
	if _, err := asn1.Unmarshal(rest, &modulus); err != nil {
		return 0
	}
	return modulus.BitLen()
}

// Generate makes a private key in PEM (PKCS #8). algo is "rsa2048", which every receiver checks,
// or "ed25519", which is best used beside an RSA key, since many receivers do not know it yet.
func Generate(algo string) (pemBytes []byte, err error) {
	var key any
	switch algo {
	case "rsa2048":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		return nil, fmt.Errorf("no algorithm %q: there are rsa2048 and ed25519", algo)
	}
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("writing the key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// Algorithm is the a= tag of the key's signatures.
func (k *Key) Algorithm() string {
	if _, ok := k.signer.(ed25519.PrivateKey); ok {
		return "ed25519-sha256"
	}
	return "rsa-sha256"
}

// sign signs a SHA-256 digest. Ed25519 takes the digest for its message (RFC 8463 section 3).
func (k *Key) sign(digest []byte) ([]byte, error) {
	if _, ok := k.signer.(ed25519.PrivateKey); ok {
		return k.signer.Sign(rand.Reader, digest, crypto.Hash(0))
	}
	return k.signer.Sign(rand.Reader, digest, crypto.SHA256)
}
