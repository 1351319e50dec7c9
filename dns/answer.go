package dns

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Bounds on what one response may make us do. The chain is also the bound over all responses
// that one lookup needs.
const (
	maxRecords = 100
	maxChain   = 10
)

// A question is a canonical name (lower case, final dot, checked) and a record type.
type question struct {
	name string
	typ  uint16
}

// newQuestion checks a name. Host names are not all that is asked for: underscores stand before
// DKIM keys, "/" in delegated reverse zones (RFC 2317), and "+" or "=" come out of SPF macros. So
// every printable byte may stand in a label, except those that have a meaning in zone files: the
// DNS library would read them as escapes.
func newQuestion(name string, typ uint16) (question, *Error) {
	bare := strings.ToLower(strings.TrimSuffix(name, "."))
	ok := bare != "" && len(bare) <= 253
	for label := range strings.SplitSeq(bare, ".") {
		ok = ok && label != "" && len(label) <= 63
	}
	for i := range len(bare) {
		ok = ok && bare[i] > ' ' && bare[i] < 0x7f && strings.IndexByte(`'@;()"\`, bare[i]) < 0
	}
	if !ok {
		cause := errors.New("not a name that can stand in DNS")
		return question{}, &Error{Name: bare, Type: dns.TypeToString[typ], Kind: NotExist, Cause: cause}
	}
	return question{bare + ".", typ}, nil
}

// fail makes an Error about q.
func (q question) fail(kind Kind, server string, cause error) *Error {
	return &Error{Name: bareName(q.name), Type: dns.TypeToString[q.typ], Server: server, Kind: kind, Cause: cause}
}

// A record is the data of one resource record; which field counts follows from the type.
type record struct {
	text       string // host of MX and PTR, joined strings of TXT, wire form of TLSA
	addr       netip.Addr
	preference uint16
}

// A response is what one server says about one question.
type response struct {
	server  string
	rcode   int           // RcodeSuccess or RcodeNameError
	records []record      // those of target, of the type that was asked for
	target  string        // where the chain of CNAMEs in this response ends
	hops    int           // how many CNAMEs lead there
	denied  bool          // an SOA says that there is nothing more to find
	secure  bool          // AD
	ttl     time.Duration // the smallest of all records used; 0 when there was none
}

// Why a message is not a response that can be used.
var (
	// errNotOurs is a message that somebody else may have sent: it is to be ignored.
	errNotOurs   = errors.New("response does not match the question")
	errTruncated = errors.New("response is truncated")
	errMalformed = errors.New("malformed response")
	errChain     = errors.New("too many CNAMEs")
)

// An rcodeError is a server's answer that it has no answer. The same server need not be asked
// again at once.
type rcodeError int

func (e rcodeError) Error() string { return dns.RcodeToString[int(e)] }

// lame is the rcodeError of a server that refers elsewhere instead of resolving. DNS knows no
// such code; taking its empty answer for NODATA would turn a misconfigured server into a bounce.
const lame = rcodeError(dns.RcodeRefused)

// parse reads a response to q from the wire. Its errors are those above.
func parse(wire []byte, id uint16, q question) (response, error) {
	var msg dns.Msg
	err := msg.Unpack(wire)
	if len(wire) < 12 || msg.Id != id || !msg.Response || msg.Opcode != dns.OpcodeQuery {
		return response{}, errNotOurs
	}
	answered := msg.Rcode == dns.RcodeSuccess || msg.Rcode == dns.RcodeNameError
	if len(msg.Question) == 0 && err == nil && !answered {
		return response{}, rcodeError(msg.Rcode) // some servers give FORMERR without the question
	}
	if len(msg.Question) != 1 || !echoes(msg.Question[0], q) {
		return response{}, errNotOurs
	}
	switch {
	case msg.Truncated:
		return response{}, errTruncated
	case err != nil, !complete(&msg, wire):
		return response{}, errMalformed
	case !answered:
		return response{}, rcodeError(msg.Rcode)
	}
	return read(&msg, q)
}

// complete reports whether msg has as many records as its header promises. The DNS library takes a
// message that ends too early for one with fewer records, and an answer cut off would read as NODATA.
func complete(msg *dns.Msg, wire []byte) bool {
	return int(binary.BigEndian.Uint16(wire[6:])) == len(msg.Answer) &&
		int(binary.BigEndian.Uint16(wire[8:])) == len(msg.Ns) &&
		int(binary.BigEndian.Uint16(wire[10:])) == len(msg.Extra)
}

func echoes(got dns.Question, q question) bool {
	return got.Qclass == dns.ClassINET && got.Qtype == q.typ && strings.EqualFold(got.Name, q.name)
}

// read takes from a response that is known to be ours what answers q.
func read(msg *dns.Msg, q question) (response, error) {
	resp := response{rcode: msg.Rcode, target: q.name, secure: msg.AuthenticatedData}
	var ttl minTTL
	if err := resp.follow(msg.Answer, &ttl); err != nil {
		return response{}, err
	}
	if err := resp.take(msg.Answer, q.typ, &ttl); err != nil {
		return response{}, err
	}
	for _, rr := range msg.Ns {
		if soa, ok := rr.(*dns.SOA); ok && len(resp.records) == 0 {
			resp.denied = true
			ttl.add(min(soa.Hdr.Ttl, soa.Minttl)) // RFC 2308 section 5
		}
	}
	resp.ttl = ttl.least()
	switch {
	case len(resp.records) > 0 && resp.rcode == dns.RcodeNameError:
		return response{}, errMalformed // it contradicts itself
	case len(msg.Answer) == 0 && !resp.denied && !msg.Authoritative && !msg.RecursionAvailable &&
		resp.rcode == dns.RcodeSuccess:
		return response{}, lame
	}
	return resp, nil
}

// follow moves the target along the CNAMEs in answer.
func (resp *response) follow(answer []dns.RR, ttl *minTTL) error {
	aliases := map[string]*dns.CNAME{}
	for _, rr := range answer {
		if alias, ok := rr.(*dns.CNAME); ok && alias.Target != "" && alias.Hdr.Class == dns.ClassINET {
			aliases[dns.CanonicalName(alias.Hdr.Name)] = alias
		}
	}
	for alias := aliases[resp.target]; alias != nil; alias = aliases[resp.target] {
		resp.target = dns.CanonicalName(alias.Target)
		ttl.add(alias.Hdr.Ttl)
		if resp.hops++; resp.hops > maxChain {
			return errChain
		}
	}
	return nil
}

// take collects the target's records of a type, up to maxRecords.
func (resp *response) take(answer []dns.RR, typ uint16, ttl *minTTL) error {
	for _, rr := range answer {
		h := rr.Header()
		if h.Rrtype != typ || h.Class != dns.ClassINET || dns.CanonicalName(h.Name) != resp.target {
			continue
		}
		rec, ok := newRecord(rr)
		if !ok {
			return errMalformed
		}
		ttl.add(h.Ttl)
		if resp.records = append(resp.records, rec); len(resp.records) == maxRecords {
			break
		}
	}
	return nil
}

// newRecord takes the data out of rr. It is not ok for a record without data, which the DNS
// library lets through because updates (RFC 2136) have such: an empty MX would look like a null MX.
func newRecord(rr dns.RR) (rec record, ok bool) {
	switch rr := rr.(type) {
	case *dns.MX:
		return record{text: bareName(rr.Mx), preference: rr.Preference}, rr.Mx != ""
	case *dns.PTR:
		return record{text: bareName(rr.Ptr)}, rr.Ptr != ""
	case *dns.TXT:
		return record{text: unescape(strings.Join(rr.Txt, ""))}, len(rr.Txt) > 0
	case *dns.A:
		addr, ok := netip.AddrFromSlice(rr.A.To4())
		return record{addr: addr}, ok
	case *dns.AAAA:
		addr, ok := netip.AddrFromSlice(rr.AAAA)
		return record{addr: addr}, ok && addr.Is6()
	case *dns.TLSA:
		return newTLSA(rr)
	}
	return record{}, false
}

// bareName is a name as this package returns it.
func bareName(name string) string {
	return strings.ToLower(strings.TrimSuffix(name, "."))
}

// unescape undoes the escapes that the DNS library puts into TXT strings (RFC 1035 section 5.1).
func unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '\\' && i+3 < len(s) && isDigit(s[i+1]) && isDigit(s[i+2]) && isDigit(s[i+3]) {
			c = (s[i+1]-'0')*100 + (s[i+2]-'0')*10 + s[i+3] - '0'
			i += 3
		} else if c == '\\' && i+1 < len(s) {
			i++
			c = s[i]
		}
		out = append(out, c)
	}
	return string(out)
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// A minTTL is the smallest of the TTLs added to it, 0 without any.
type minTTL struct {
	seconds uint32
	any     bool
}

func (t *minTTL) add(seconds uint32) {
	if seconds > 1<<31-1 {
		seconds = 0 // RFC 2181 section 8
	}
	if !t.any || seconds < t.seconds {
		t.seconds, t.any = seconds, true
	}
}

func (t *minTTL) least() time.Duration { return time.Duration(t.seconds) * time.Second }
