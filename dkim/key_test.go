package dkim

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"strings"
	"sync"
	"testing"
)

// testKeys are one key of each kind, made once since RSA keys take long.
var testKeys = sync.OnceValue(func() []*Key {
	var keys []*Key
	for _, algo := range []string{"rsa2048", "ed25519"} {
		data, err := Generate(algo)
		if err != nil {
			panic(err)
		}
		k, err := ParseKey("Example.ORG.", algo, data)
		if err != nil {
			panic(err)
		}
		keys = append(keys, k)
	}
	return keys
})

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func TestParseKeyReadsBothForms(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"PKCS #8":          pemOf("PRIVATE KEY", pkcs8),
		"PKCS #1":          pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key)),
		"text before, LF":  append([]byte("my key\n"), pemOf("PRIVATE KEY", pkcs8)...),
		"line ends of DOS": []byte(strings.ReplaceAll(string(pemOf("PRIVATE KEY", pkcs8)), "\n", "\r\n")),
	} {
		k, err := ParseKey("example.org", "s1.Mail", data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if k.Algorithm() != "rsa-sha256" || k.Selector != "s1.mail" || k.Domain != "example.org" {
			t.Errorf("%s: %+v", name, k)
		}
	}
}

func TestParseKeySaysWhatIsWrong(t *testing.T) {
	good, err := Generate("ed25519")
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := x509.MarshalPKCS8PrivateKey(curve)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, domain, selector string
		pem                    []byte
		want                   string
	}{
		{"no key", "example.org", "s", nil, "BEGIN PRIVATE KEY"},
		{"a certificate", "example.org", "s", pemOf("CERTIFICATE", ec), `"CERTIFICATE"`},
		{"encrypted", "example.org", "s", pemOf("ENCRYPTED PRIVATE KEY", ec), "passphrase"},
		{"elliptic curve", "example.org", "s", pemOf("PRIVATE KEY", ec), "RSA and Ed25519"},
		{"half a key", "example.org", "s", pemOf("PRIVATE KEY", ec[:40]), "no private key in this PEM block"},
		{"512 bits", "example.org", "s", pemOf("PRIVATE KEY", shortKey), "512 bits"},
		{"512 bits, PKCS #1", "example.org", "s", pemOf("RSA PRIVATE KEY", shortKey[pkcs1At:]), "512 bits"},
		{"no selector", "example.org", "", good, "selector"},
		{"selector with a slash", "example.org", "../s", good, "selector"},
		{"selector with a space", "example.org", "a b", good, "selector"},
		{"selector with a tag", "example.org", "a;d=evil.example", good, "selector"},
		{"no domain", "", "s", good, "empty"},
		{"an address", "[192.0.2.1]", "s", good, "not a domain"},
		{"too long a name", strings.Repeat("abcdefg.", 29) + "example.org", "s1234567", good, "shorter selector"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k, err := ParseKey(tt.domain, tt.selector, tt.pem)
			if err == nil || !strings.Contains(err.Error(), tt.want) || k != nil {
				t.Errorf("ParseKey = %v, %v; want … %s …", k, err, tt.want)
			}
		})
	}
}

// shortKey is the PKCS #8 form of an RSA key of 512 bits, which Go no longer makes.
var shortKey = mustBase64(`
MIIBUwIBADANBgkqhkiG9w0BAQEFAASCAT0wggE5AgEAAkEAsIYSGneuxhihR1ecoBbfpoNqMzfS+8DfZ+OQrPjLYb0icLunUv5f
XumJhKym2kgeGGMtPQccXLkPgPIjaQAxZQIDAQABAkBPqFCnDPcbgaXV0d1mCKxoMclMz5Yv8TtfYDu7MpJkyfqypVP0t7i8smI9
4YdPBCRZBwIDpcVsWvBIhqXmtM3BAiEA3Gr0pMHRFtjM5iP5OF4GJAtNjAcfQwodmWggYqjc0E0CIQDNBSL4Bfy1iX7Tm6tWGssH
LmHLtQQTiyWTL8SFwU8xeQIgA86lIyNl5SshfugoKd0V5hF76WtGEvZdxIST6qBYEBECIF51lmX1xDgT8GYom+lhENfvK8nCTe1/
N8G3yXDi3szpAiBH647ZKbr0bjm/mdLK4QWZpYw+ZSMKldPRyeJU9hytiw==`)

// pkcs1At is where the PKCS #1 form begins in it.
const pkcs1At = 26

func mustBase64(s string) []byte {
	b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return b
}

func TestGenerateNamesWhatThereIs(t *testing.T) {
	if _, err := Generate("rsa512"); err == nil || !strings.Contains(err.Error(), "rsa2048 and ed25519") {
		t.Errorf("Generate(rsa512): %v", err)
	}
}

func TestRecord(t *testing.T) {
	seed := mustBase64("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=") // RFC 8463 appendix A.2
	der, err := x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(seed))
	if err != nil {
		t.Fatal(err)
	}
	k, err := ParseKey("football.example.com", "brisbane", pemOf("PRIVATE KEY", der))
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(k.Record())
	want := `{"name":"brisbane._domainkey.football.example.com","type":"TXT",` +
		`"value":"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="}`
	if err != nil || string(got) != want {
		t.Errorf("record %s, %v", got, err)
	}
	zone := `brisbane._domainkey.football.example.com. IN TXT "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="`
	if z := k.Record().Zone(); z != zone {
		t.Errorf("zone line %s", z)
	}
}

func TestZoneSplitsAndQuotes(t *testing.T) {
	a, b := strings.Repeat("a", 255), strings.Repeat("b", 10)
	for value, want := range map[string]string{
		"":       `""`,
		a:        `"` + a + `"`,
		a + b:    `"` + a + `" "` + b + `"`,
		"\"\\\n": `"\"\\\010"`,
	} {
		if got := (Record{"n", "TXT", value}).Zone(); got != "n. IN TXT "+want {
			t.Errorf("%q: %s", value, got)
		}
	}
	rsa := testKeys()[0].Record()
	if strings.Count(rsa.Zone(), `"`) != 4 || len(rsa.Value) < 400 {
		t.Errorf("zone line of an RSA key: %s", rsa.Zone())
	}
}

func FuzzParseKey(f *testing.F) {
	for _, algo := range []string{"rsa2048", "ed25519"} {
		data, err := Generate(algo)
		if err != nil {
			f.Fatal(err)
		}
		f.Add("example.org", "s", data)
	}
	f.Add("a", "b.c", pemOf("PRIVATE KEY", shortKey))
	f.Add("a", "b.c", pemOf("RSA PRIVATE KEY", shortKey[pkcs1At:]))
	f.Fuzz(func(t *testing.T, domain, selector string, data []byte) {
		k, err := ParseKey(domain, selector, data)
		if err != nil {
			if k != nil {
				t.Fatal("a key and an error")
			}
			return
		}
		if n := len(k.Record().Name); n > maxName || strings.ContainsAny(k.Record().Zone(), "\r\n") {
			t.Fatalf("record %v", k.Record())
		}
		if _, err := Sign(strings.NewReader("From: a@b\r\n\r\n"), []*Key{k}, signTime); err != nil {
			t.Fatalf("the key cannot sign: %v", err)
		}
	})
}
