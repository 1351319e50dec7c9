package dns

import (
	"os"
	"path/filepath"
	"testing"

	"relayd/internal/testnet"
)

// TestWhoseADBitCounts asks one server that vouches for everything, as one of several.
func TestWhoseADBitCounts(t *testing.T) {
	server := testnet.NewDNS(t, zones)
	server.Secure(testnet.Everything)
	for _, c := range []struct {
		trust  Trust
		others []string
		want   bool
	}{
		{TrustLocal, nil, true},
		{TrustLocal, []string{"[::1]:53"}, true},
		{TrustLocal, []string{"127.9.9.9"}, true},
		{TrustLocal, []string{"192.0.2.53"}, false},
		{TrustLocal, []string{"dns.example:53"}, false},
		{TrustAll, []string{"192.0.2.53"}, true},
		{TrustNone, nil, false},
	} {
		r := New(Options{Servers: append([]string{server.Addr()}, c.others...), Trust: c.trust})
		for range 2 { // the second comes from the cache
			if a, err := r.MX(t.Context(), "example.com"); err != nil || a.Secure != c.want {
				t.Errorf("trust %d beside %q: secure %v, %v", c.trust, c.others, a.Secure, err)
			}
		}
	}
}

func TestSystemServersOnThisMachine(t *testing.T) {
	for text, want := range map[string]bool{
		"nameserver 127.0.0.53\n":                           true,
		"nameserver ::1\nnameserver 127.0.0.1\n":            true,
		"nameserver 127.0.0.1\nnameserver 192.0.2.53\n":     false,
		"nameserver fe80::1%eth0\n":                         false,
		"# nothing, which is the server on this machine\n":  true,
		"nameserver ::ffff:127.0.0.1\nnameserver 127.1.1.1": true,
	} {
		file := filepath.Join(t.TempDir(), "resolv.conf")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r := newResolver(Options{}, file)
		r.servers.order(r.now()) // reads the file, as the question before any answer does
		if r.trusts() != want {
			t.Errorf("%q: trusted %v", text, !want)
		}
	}
}

// TestNameAtTheEndOfCNAMEs: TLSA records are looked up, and certificates are for, the name that an
// alias stands for (RFC 7672 section 2.2.2).
func TestNameAtTheEndOfCNAMEs(t *testing.T) {
	server := testnet.NewDNS(t, `
example.com. SOA ns hostmaster 1 3600 600 86400 60
example.com. MX 10 mx.example.com.
mx.example.com. CNAME Host.Example.Com.
host.example.com. A 192.0.2.1
host.example.com. AAAA 2001:db8::1
four.example.com. A 192.0.2.4
alias.example.com. CNAME example.com.
away.example.com. CNAME far.example.net.
example.net. SOA ns hostmaster 1 3600 600 86400 60
far.example.net. CNAME farther.example.net.
farther.example.net. AAAA 2001:db8::9
_25._tcp.mx.example.com. CNAME _25._tcp.host.example.com.
_25._tcp.host.example.com. TLSA 3 1 1 00
`)
	r := New(Options{Servers: []string{server.Addr()}})
	for _, c := range []struct{ host, network, want string }{
		{"HOST.example.com.", "ip", "host.example.com"},
		{"mx.example.com", "ip", "host.example.com"},
		{"mx.example.com", "ip4", "host.example.com"},
		{"mx.example.com", "ip6", "host.example.com"},
		{"four.example.com", "ip", "four.example.com"},
		{"away.example.com", "ip", "farther.example.net"},
		{"LocalHost.", "ip", "localhost"},
	} {
		for range 2 { // the second comes from the cache
			if a, err := r.IP(t.Context(), c.host, c.network); err != nil || a.Name != c.want {
				t.Errorf("%s %s: %q, %v", c.host, c.network, a.Name, err)
			}
		}
	}
	if a, err := r.MX(t.Context(), "alias.example.com"); err != nil || a.Name != "example.com" {
		t.Errorf("MX of an alias: %q, %v", a.Name, err)
	}
	if a, err := r.TLSA(t.Context(), "mx.example.com", 25); err != nil || a.Name != "_25._tcp.host.example.com" {
		t.Errorf("TLSA: %q, %v", a.Name, err)
	}
}
