package dns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"github.com/miekg/dns"
	"pgregory.net/rapid"
)

const tlsaZones = `
example.com. SOA ns hostmaster 1 3600 600 86400 60
_25._tcp.mx.example.com. TLSA 3 1 1 00ff
_25._tcp.mx.example.com. TLSA 2 0 0 C0FFEE
_25._tcp.alias.example.com. CNAME _25._tcp.mx.example.com.
_465._tcp.mx.example.com. TLSA 255 7 9 00
_25._tcp.none.example.com. TXT "else"
`

func TestTLSA(t *testing.T) {
	r, server, _ := setup(t)
	server.Set(tlsaZones)
	server.Fail("_25._tcp.broken.example.com", dns.RcodeServerFailure)
	two := "[{3 1 1 [0 255]} {2 0 0 [192 255 238]}]"
	for _, c := range []struct {
		host string
		port int
		want string
		kind Kind
	}{
		{"mx.example.com", 25, two, -1},
		{"MX.Example.Com.", 25, two, -1},
		{"alias.example.com", 25, two, -1},
		{"mx.example.com", 465, "[{255 7 9 [0]}]", -1},
		{"mx.example.com", 587, "[]", NotExist},
		{"none.example.com", 25, "[]", NoData},
		{"broken.example.com", 25, "[]", Temporary},
		{"", 25, "[]", NotExist},
		{"a b", 25, "[]", NotExist},
	} {
		got, err := r.TLSA(t.Context(), c.host, c.port)
		if fmt.Sprint(got.Records) != c.want || kindOf(t, err) != c.kind || got.Secure {
			t.Errorf("%q port %d: %+v, %v; want %s and kind %d", c.host, c.port, got, err, c.want, c.kind)
		}
	}
	if n := server.Count("_25._tcp", ""); n != 0 {
		t.Error("an empty host was asked for")
	}
}

func TestSecureTLSA(t *testing.T) {
	r, server, _ := setup(t)
	server.Set(tlsaZones)
	server.Secure("_25._tcp.mx.example.com")
	for range 2 { // the second comes from the cache
		got, err := r.TLSA(t.Context(), "mx.example.com", 25)
		if err != nil || !got.Secure || len(got.Records) != 2 {
			t.Fatalf("%+v, %v", got, err)
		}
		got.Records[0].Data[0] = 42 // is the caller's own copy
	}
	if got, _ := r.TLSA(t.Context(), "mx.example.com", 25); got.Records[0].Data[0] != 0 {
		t.Error("a caller changed what is in the cache")
	}
}

// tlsaWire is a response with one TLSA record of the given data.
func tlsaWire(rdata []byte) ([]byte, uint16) {
	req := new(dns.Msg).SetQuestion("x.test.", dns.TypeTLSA)
	wire := pack(reply(req))
	wire[7] = 1
	wire = append(wire, 0xc0, 12, 0, 52, 0, 1, 0, 0, 0, 60)
	wire = binary.BigEndian.AppendUint16(wire, uint16(len(rdata)))
	return append(wire, rdata...), req.Id
}

// A record of one byte looked like usage 0, selector 0, matching 0.
func TestTLSACutShort(t *testing.T) {
	for size := range 6 {
		wire, id := tlsaWire([]byte{3, 1, 1, 0xaa, 0xbb}[:min(size, 5)])
		_, err := parse(wire, id, question{"x.test.", dns.TypeTLSA})
		if size < 3 && !errors.Is(err, errMalformed) || size >= 3 && err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func TestTLSASurvivesTheWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.Byte(), 3, 600).Draw(t, "rdata")
		wire, id := tlsaWire(want)
		resp, err := parse(wire, id, question{"x.test.", dns.TypeTLSA})
		if err != nil || len(resp.records) != 1 || resp.records[0].text != string(want) {
			t.Fatalf("%x became %+v, %v", want, resp, err)
		}
	})
}

// FuzzTLSA decodes whatever may stand in a record: what is taken has at least the three numbers
// that the lookup takes apart, and is what the server sent.
func FuzzTLSA(f *testing.F) {
	for _, seed := range [][]byte{{}, {3}, {3, 1}, {3, 1, 1}, {3, 1, 1, 0xff}, {2, 0, 0, '\\', '"', 0}} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, rdata []byte) {
		if len(rdata) > 1<<16-1 {
			return
		}
		wire, id := tlsaWire(rdata)
		resp, err := parse(wire, id, question{"x.test.", dns.TypeTLSA})
		if (err == nil) != (len(rdata) >= 3) {
			t.Fatalf("%d bytes: %v", len(rdata), err)
		}
		if err == nil && !reflect.DeepEqual(resp.records, []record{{text: string(rdata)}}) {
			t.Errorf("%x became %+v", rdata, resp.records)
		}
	})
}
