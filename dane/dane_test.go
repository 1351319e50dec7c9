package dane

import (
	"crypto/tls"
	"errors"
	"net"
	"testing"

	mdns "github.com/miekg/dns"

	"relayd/dns"
	"relayd/internal/testnet"
)

func TestLookup(t *testing.T) {
	server := testnet.NewDNS(t, `
example.com. SOA ns hostmaster 1 3600 600 86400 60
_25._tcp.signed.example.com. TLSA 3 1 1 00
_25._tcp.signed.example.com. TLSA 0 1 1 00
_25._tcp.unsigned.example.com. TLSA 3 1 1 00
_25._tcp.other.example.com. TXT "x"
`)
	server.Secure("_25._tcp.signed.example.com")
	server.Secure("_25._tcp.none.example.com")
	server.Fail("_25._tcp.bogus.example.com", mdns.RcodeServerFailure)
	resolver := dns.New(dns.Options{Servers: []string{server.Addr()}})
	for _, c := range []struct {
		host    string
		records int
		result  Result
	}{
		{"signed.example.com", 2, ""},
		{"unsigned.example.com", 0, ""},
		{"none.example.com", 0, ""},
		{"other.example.com", 0, ""},
		{"bogus.example.com", 0, DNSSECInvalid},
	} {
		records, err := Lookup(t.Context(), resolver, c.host, 25)
		e, _ := errors.AsType[*Error](err)
		if len(records) != c.records || (e == nil) != (c.result == "") || e != nil && e.Result != c.result {
			t.Errorf("%s: %v, %v", c.host, records, err)
		}
		if cause, ok := errors.AsType[*dns.Error](err); err != nil && (!ok || !cause.Temporary()) {
			t.Errorf("%s: %v hides its cause", c.host, err)
		}
	}
}

// A server whose certificate nobody has issued is authenticated in a real handshake.
func TestHandshake(t *testing.T) {
	key := newKey(t, "ECDSA")
	self := issue(t, server(), key, nil, nil)
	ours, theirs := net.Pipe()
	defer ours.Close()
	done := make(chan error, 1)
	go func() {
		defer theirs.Close()
		conf := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{self.Raw}, PrivateKey: key}}}
		done <- tls.Server(theirs, conf).HandshakeContext(t.Context())
	}()
	client := tls.Client(ours, &tls.Config{
		ServerName: "mx.example.com", InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			return Verify([]dns.TLSA{record(3, 1, 1, self)}, state.PeerCertificates, []string{"mx.example.com"}, noon)
		},
	})
	if err := client.HandshakeContext(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
