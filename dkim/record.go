package dkim

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"strings"
)

// A Record is a DNS record that is to be published.
type Record struct {
	Name  string `json:"name"`  // without a dot at the end, such as "sel._domainkey.example.org"
	Type  string `json:"type"`  // "TXT"
	Value string `json:"value"` // whole, not split into strings
}

// between is what stands between selector and domain (RFC 6376 section 3.6.2.1).
const between = "._domainkey."

func (k *Key) recordName() string { return k.Selector + between + k.Domain }

// Record returns the key record of RFC 6376 section 3.6.1.
func (k *Key) Record() Record {
	kind, public := "rsa", []byte(nil)
	switch key := k.signer.Public().(type) {
	case ed25519.PublicKey:
		// The bare 32 bytes, not a SubjectPublicKeyInfo as for RSA (RFC 8463 section 4.2).
		kind, public = "ed25519", key
	default:
		public, _ = x509.MarshalPKIXPublicKey(key) // fails only for kinds that ParseKey refuses
	}
	return Record{
		Name:  k.recordName(),
		Type:  "TXT",
		Value: "v=DKIM1; k=" + kind + "; p=" + base64.StdEncoding.EncodeToString(public),
	}
}

// maxString is the longest character-string of a TXT record (RFC 1035 section 3.3).
const maxString = 255

// Zone is the record as one line of a zone file, without a line end, its value split into
// strings of at most 255 octets.
func (r Record) Zone() string {
	var b strings.Builder
	b.WriteString(r.Name + ". IN " + r.Type)
	for rest := r.Value; ; {
		part := rest[:min(len(rest), maxString)]
		rest = rest[len(part):]
		b.WriteString(` "`)
		writeEscaped(&b, part)
		b.WriteByte('"')
		if rest == "" {
			return b.String()
		}
	}
}

// writeEscaped writes a string as RFC 1035 section 5.1 quotes it.
func writeEscaped(b *strings.Builder, s string) {
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c > '~':
			fmt.Fprintf(b, `\%03d`, c)
		default:
			b.WriteByte(c)
		}
	}
}
