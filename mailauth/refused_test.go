package mailauth

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"relayd/address"
	"relayd/dns"
	"relayd/internal/testnet"
	"relayd/message"
)

// TestNameServerOfAClosedNetwork: one that refuses the rest of the world puts no mail off, one that
// is broken does.
func TestNameServerOfAClosedNetwork(t *testing.T) {
	for rcode, want := range map[int]string{mdns.RcodeRefused: "", mdns.RcodeServerFailure: "451 4.4.3"} {
		server := testnet.NewDNS(t, "")
		server.Fail(testnet.Everything, rcode)
		c := New(Options{Resolver: dns.New(dns.Options{Servers: []string{server.Addr()}}), Hostname: "mx.here.test", Now: time.Now})
		text := "From: s@stranger.test\r\nSubject: hi\r\n\r\nHello\r\n"
		header, err := message.ReadHeader(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		v, err := c.Check(t.Context(), Message{
			IP: netip.MustParseAddr("192.0.2.1"), Helo: "client.test", Sender: address.Address{Local: "s", Domain: "stranger.test"},
			Header: header, Text: strings.NewReader(text),
		})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if err := v.Disposition(Reject); err != nil {
			got = err.Error()
		}
		if !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%s: %q, want %q", mdns.RcodeToString[rcode], got, want)
		}
	}
}
