package dns

import (
	"encoding/binary"
	"testing"

	"github.com/miekg/dns"
	"pgregory.net/rapid"
)

// FuzzAnswer feeds parse with whatever a server may send: it must not panic, and what it takes
// for an answer keeps the bounds.
func FuzzAnswer(f *testing.F) {
	req := new(dns.Msg).SetQuestion("x.test.", dns.TypeMX)
	for _, answers := range [][]string{
		{}, {"x.test. 60 IN MX 10 mx.test."}, {"x.test. 60 IN MX 0 ."},
		{"x.test. 60 IN CNAME y.test.", "y.test. 60 IN MX 10 mx.test."},
		{"x.test. 60 IN CNAME x.test."}, {`x.test. 60 IN TXT "a\200\"" "b"`},
		{"x.test. 60 IN A 192.0.2.1", "x.test. 60 IN AAAA 2001:db8::1", "x.test. 60 IN PTR y.test."},
	} {
		f.Add(pack(reply(req, answers...)), dns.TypeMX)
	}
	denied := reply(req)
	denied.Rcode = dns.RcodeNameError
	soa, err := dns.NewRR("test. 60 IN SOA ns.test. root.test. 1 2 3 4 5")
	if err != nil {
		f.Fatal(err)
	}
	denied.Ns = []dns.RR{soa}
	denied.SetEdns0(udpSize, false)
	f.Add(pack(denied), dns.TypeMX)
	txt := new(dns.Msg).SetQuestion("x.test.", dns.TypeTXT)
	f.Add(pack(reply(txt, `x.test. 60 IN TXT "a\200\"" "b"`)), dns.TypeTXT)
	f.Add([]byte{}, dns.TypeA)

	f.Fuzz(func(t *testing.T, wire []byte, typ uint16) {
		var id uint16
		if len(wire) >= 2 {
			id = binary.BigEndian.Uint16(wire)
		}
		resp, err := parse(wire, id, question{"x.test.", typ})
		if err != nil {
			return
		}
		if len(resp.records) > maxRecords || resp.hops > maxChain || resp.target == "" || resp.ttl < 0 {
			t.Errorf("out of bounds: %+v", resp)
		}
		if len(resp.records) > 0 && resp.rcode != dns.RcodeSuccess {
			t.Errorf("records with rcode %d", resp.rcode)
		}
	})
}

func TestTXTSurvivesTheWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := string(rapid.SliceOfN(rapid.Byte(), 0, 255).Draw(t, "string"))
		// The string is written into the wire form directly: one TXT record of one string.
		req := new(dns.Msg).SetQuestion("x.test.", dns.TypeTXT)
		wire := pack(reply(req))
		wire[7] = 1
		wire = append(wire, 0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60, 0, 0, byte(len(want)))
		binary.BigEndian.PutUint16(wire[len(wire)-3:], uint16(len(want)+1))
		wire = append(wire, want...)
		resp, err := parse(wire, req.Id, question{"x.test.", dns.TypeTXT})
		if err != nil || len(resp.records) != 1 || resp.records[0].text != want {
			t.Fatalf("%q became %+v, %v", want, resp, err)
		}
	})
}
