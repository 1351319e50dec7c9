package dns

import (
	"context"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// A TLSA says which certificate or key a TLS server has (RFC 6698 section 2.1). The fields are what
// stands in DNS, and need not mean anything to us.
type TLSA struct {
	Usage    uint8
	Selector uint8
	Matching uint8  // 0: Data is the thing itself; else its digest
	Data     []byte // certificate association data; may be empty
}

// TLSA returns the TLSA records of a TCP port of host, in the order of the response. They mean
// something only when the answer is Secure.
func (r *Resolver) TLSA(ctx context.Context, host string, port int) (Answer[TLSA], error) {
	// The dot keeps an empty host from becoming a name that can be asked for.
	name := "_" + strconv.Itoa(port) + "._tcp." + strings.TrimSuffix(host, ".") + "."
	res := r.lookup(ctx, name, dns.TypeTLSA)
	if res.err != nil {
		return Answer[TLSA]{}, res.err
	}
	records := make([]TLSA, len(res.records))
	for i, rec := range res.records {
		records[i] = TLSA{rec.text[0], rec.text[1], rec.text[2], []byte(rec.text[3:])}
	}
	return Answer[TLSA]{Records: records, Name: res.name, Secure: res.secure}, nil
}

// newTLSA keeps a TLSA record in its wire form. It is not ok for one that is cut short: the DNS
// library takes the missing numbers for 0, and a PKIX-TA record would appear out of nothing.
func newTLSA(rr *dns.TLSA) (rec record, ok bool) {
	data, err := hex.DecodeString(rr.Certificate)
	wire := append([]byte{rr.Usage, rr.Selector, rr.MatchingType}, data...)
	return record{text: string(wire)}, err == nil && rr.Hdr.Rdlength >= 3
}
