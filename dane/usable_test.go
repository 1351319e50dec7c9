package dane

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"testing"

	"relayd/dns"
)

func TestUsable(t *testing.T) {
	p := newPKI(t, "Ed25519", server("mx.example.com"))
	cut := record(3, 0, 0, p.leaf)
	cut.Data = cut.Data[:len(cut.Data)-1]
	short, long, empty := record(3, 1, 1, p.leaf), record(3, 1, 2, p.leaf), dns.TLSA{Usage: 3, Selector: 1}
	short.Data, long.Data = short.Data[1:], append(long.Data, 0)
	for name, c := range map[string]struct {
		records []dns.TLSA
		want    string
	}{
		"none":                    {nil, ""},
		"both usages":             {[]dns.TLSA{record(3, 1, 1, p.leaf), record(2, 0, 1, p.root)}, "311 201 "},
		"PKIX usages":             {[]dns.TLSA{record(0, 1, 1, p.leaf), record(1, 0, 1, p.leaf)}, ""},
		"unknown numbers":         {[]dns.TLSA{record(4, 1, 1, p.leaf), record(3, 2, 1, p.leaf), record(3, 1, 3, p.leaf)}, ""},
		"data of the wrong size":  {[]dns.TLSA{short, long, empty, cut, record(2, 1, 1, p.root)}, "211 "},
		"strongest digest":        {[]dns.TLSA{record(3, 1, 1, p.leaf), record(3, 1, 2, p.leaf)}, "312 "},
		"strongest of each class": {[]dns.TLSA{record(3, 1, 2, p.leaf), record(3, 0, 1, p.leaf), record(2, 1, 1, p.root)}, "312 301 211 "},
		"a broken strong one":     {[]dns.TLSA{record(3, 1, 1, p.leaf), long}, "311 "},
		"full beside a digest":    {[]dns.TLSA{record(3, 1, 0, p.leaf), record(3, 1, 1, p.leaf), record(3, 1, 2, p.leaf)}, "310 312 "},
	} {
		got := ""
		for _, r := range Usable(c.records) {
			got += fmt.Sprintf("%d%d%d ", r.Usage, r.Selector, r.Matching)
		}
		if got != c.want {
			t.Errorf("%s: %q; want %q", name, got, c.want)
		}
	}
}

// The weaker digest matches, the stronger one does not: somebody who can break the weak one must
// not get in.
func TestDigestAgility(t *testing.T) {
	p, other := newPKI(t, "Ed25519", server("mx.example.com")), newPKI(t, "Ed25519", server("mx.example.com"))
	check(t, ValidationFailure, []dns.TLSA{record(3, 1, 1, p.leaf), record(3, 1, 2, other.leaf)}, chain(p.leaf))
	check(t, "", []dns.TLSA{record(3, 0, 1, p.leaf), record(3, 1, 2, other.leaf)}, chain(p.leaf))
}

// FuzzVerify takes records as they may stand in DNS: nothing but the true data authenticates, or, for
// an anchor in full, the true key.
func FuzzVerify(f *testing.F) {
	p := fixedPKI(f, server("mx.example.com"))
	certs := chain(p.leaf, p.middle, p.root)
	for _, r := range []dns.TLSA{
		{}, record(3, 1, 1, p.leaf), record(2, 0, 0, p.root), record(2, 1, 0, p.root), record(2, 1, 2, p.middle),
		{Usage: 2, Selector: 0, Data: []byte{0x30, 0x80}},
	} {
		f.Add(r.Usage, r.Selector, r.Matching, r.Data)
	}
	f.Fuzz(func(t *testing.T, usage, selector, matching uint8, data []byte) {
		r := dns.TLSA{Usage: usage, Selector: selector, Matching: matching, Data: data}
		err := Verify([]dns.TLSA{r}, certs, []string{"mx.example.com"}, noon)
		if err == nil && !stands(r, certs) {
			t.Errorf("%d %d %d %x authenticates", usage, selector, matching, data)
		}
	})
}

// stands reports whether r holds what a record of one of certs would hold.
func stands(r dns.TLSA, certs []*x509.Certificate) bool {
	anchor, err := x509.ParseCertificate(r.Data)
	isAnchor := err == nil && r.Usage == 2 && r.Selector == 0 && r.Matching == 0
	for _, cert := range certs {
		if bytes.Equal(record(r.Usage, r.Selector, r.Matching, cert).Data, r.Data) ||
			isAnchor && bytes.Equal(anchor.RawSubjectPublicKeyInfo, cert.RawSubjectPublicKeyInfo) {
			return true
		}
	}
	return false
}
