package testnet

import (
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// Everything is the name that Fail, Silence and Secure take for every name at once.
const Everything = "*"

// A DNS is a name server that answers from zone-file text, over UDP and TCP on the same port of
// 127.0.0.1, as a recursive server would: it follows CNAMEs and sets RA. Safe for concurrent use.
//
// A zone is known when its SOA stands in the text; names outside of the known zones are REFUSED.
// Text without any SOA is taken for the whole tree, with an SOA made up for the root. A name that
// does not exist in a known zone is NXDOMAIN, a type that does not exist is NODATA, both with
// the SOA. An answer that does not fit the client's UDP size is truncated.
type DNS struct {
	t    testing.TB
	addr string

	mu     sync.Mutex
	rrs    map[question][]dns.RR
	names  map[string]bool // every owner and every name above one
	zones  map[string]*dns.SOA
	faults map[string]int // rcode, or silent
	secure map[string]bool
	counts map[question]int
	own    bool // it answers with authority
}

type question struct {
	name string // canonical: lower case with the dot at the end
	typ  uint16
}

// silent is a fault that no rcode has.
const silent = -1

// NewDNS starts a server with the given zones; it stops when the test ends. Text is in the format
// of RFC 1035 section 5 with "$ORIGIN ." and a TTL of 300 seconds where none is given.
func NewDNS(t testing.TB, zones string) *DNS {
	t.Helper()
	d := &DNS{t: t, faults: map[string]int{}, secure: map[string]bool{}, counts: map[question]int{}}
	d.Set(zones)
	l, pc := listenBoth(t)
	d.addr = l.Addr().String()
	for _, s := range []*dns.Server{{Listener: l, Handler: d}, {PacketConn: pc, Handler: d}} {
		started, stopped := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() {
			defer close(stopped)
			_ = s.ActivateAndServe() // ends with an error when it is shut down
		}()
		<-started
		t.Cleanup(func() {
			_ = s.Shutdown()
			<-stopped
		})
	}
	return d
}

// listenBoth finds a port that is free in both protocols.
func listenBoth(t testing.TB) (net.Listener, net.PacketConn) {
	t.Helper()
	var lastErr error
	for range 20 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatalf("listening for DNS: %v", err)
		}
		pc, err := net.ListenPacket("udp", l.Addr().String())
		if err == nil {
			return l, pc
		}
		lastErr = err
		_ = l.Close()
	}
	t.Fatalf("no port is free for DNS: %v", lastErr)
	return nil, nil
}

// Addr is where the server listens, as IP:port.
func (d *DNS) Addr() string { return d.addr }

// Set replaces all zones. Faults and counts stay.
func (d *DNS) Set(zones string) {
	d.t.Helper()
	rrs, names, soas := map[question][]dns.RR{}, map[string]bool{}, map[string]*dns.SOA{}
	// The directive, unlike the parser's default, is not changed by a TTL that a record has.
	parser := dns.NewZoneParser(strings.NewReader("$TTL 300\n"+zones), ".", "zones")
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		key := question{dns.CanonicalName(rr.Header().Name), rr.Header().Rrtype}
		rrs[key] = append(rrs[key], rr)
		if soa, ok := rr.(*dns.SOA); ok {
			soas[key.name] = soa
		}
		for i, end := 0, false; !end; i, end = dns.NextLabel(key.name, i) {
			names[key.name[i:]] = true
		}
	}
	if err := parser.Err(); err != nil {
		d.t.Fatalf("test zones: %v", err)
	}
	if len(soas) == 0 {
		soas["."] = &dns.SOA{
			Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: 300},
			Ns:  "ns.invalid.", Mbox: "hostmaster.invalid.", Serial: 1, Minttl: 60,
		}
		names["."] = true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rrs, d.names, d.zones = rrs, names, soas
}

// Fail makes the server answer every question for name with rcode, such as dns.RcodeServerFailure.
// dns.RcodeSuccess ends this fault and that of Silence.
func (d *DNS) Fail(name string, rcode int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if rcode == dns.RcodeSuccess {
		delete(d.faults, canonical(name))
		return
	}
	d.faults[canonical(name)] = rcode
}

// Silence makes the server leave every question for name without an answer.
func (d *DNS) Silence(name string) { d.Fail(name, silent) }

// Secure sets the AD bit in answers for name, as a validating server would for a signed zone, to
// clients that ask for it by AD or DO.
func (d *DNS) Secure(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.secure[canonical(name)] = true
}

// Authoritative makes the server one of the zones that it knows: it answers with authority (AA) and
// offers no recursion.
func (d *DNS) Authoritative() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.own = true
}

// Count is how often name was asked for with the type, such as "MX", over both protocols; the
// type "" counts all of them. A silenced question counts too.
func (d *DNS) Count(name, typ string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if typ != "" {
		return d.counts[question{canonical(name), dns.StringToType[typ]}]
	}
	sum := 0
	for q, n := range d.counts {
		if q.name == canonical(name) {
			sum += n
		}
	}
	return sum
}

func canonical(name string) string {
	if name == Everything {
		return name
	}
	return dns.CanonicalName(name)
}

// ServeDNS answers one question; it makes DNS a dns.Handler.
func (d *DNS) ServeDNS(w dns.ResponseWriter, req *dns.Msg) {
	if len(req.Question) != 1 {
		dns.HandleFailed(w, req)
		return
	}
	res := d.answer(req)
	if res == nil {
		return
	}
	size := dns.MaxMsgSize
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
		size = dns.MinMsgSize
		if opt := req.IsEdns0(); opt != nil {
			size = max(size, int(opt.UDPSize()))
		}
	}
	if opt := req.IsEdns0(); opt != nil {
		res.SetEdns0(1232, opt.Do())
	}
	res.Truncate(size)
	_ = w.WriteMsg(res) // the client may be gone already
}

// answer returns nil for a silenced name.
func (d *DNS) answer(req *dns.Msg) *dns.Msg {
	d.mu.Lock()
	defer d.mu.Unlock()
	q := question{dns.CanonicalName(req.Question[0].Name), req.Question[0].Qtype}
	d.counts[q]++
	res := new(dns.Msg).SetReply(req)
	res.RecursionAvailable, res.Authoritative = !d.own, d.own
	fault, broken := d.faults[q.name]
	if !broken {
		fault, broken = d.faults[Everything]
	}
	switch {
	case broken && fault == silent:
		return nil
	case broken:
		res.Rcode = fault
		return res
	}
	d.resolve(q, res)
	opt := req.IsEdns0()
	asked := req.AuthenticatedData || (opt != nil && opt.Do())
	res.AuthenticatedData = asked && (d.secure[q.name] || d.secure[Everything])
	return res
}

// resolve fills in the records for q, through at most 20 CNAMEs. A target outside of the known
// zones ends the answer there, which leaves it to the client to ask on.
func (d *DNS) resolve(q question, res *dns.Msg) {
	for range 20 {
		soa := d.soaOf(q.name)
		if soa == nil {
			if len(res.Answer) == 0 {
				res.Rcode = dns.RcodeRefused
			}
			return
		}
		if rrs := d.rrs[q]; len(rrs) > 0 {
			res.Answer = append(res.Answer, rrs...)
			return
		}
		alias := d.rrs[question{q.name, dns.TypeCNAME}]
		if len(alias) == 0 {
			res.Ns = []dns.RR{soa}
			if !d.names[q.name] {
				res.Rcode = dns.RcodeNameError
			}
			return
		}
		res.Answer = append(res.Answer, alias[0])
		q.name = dns.CanonicalName(alias[0].(*dns.CNAME).Target)
	}
}

// soaOf is the SOA of the closest known zone above name, nil when there is none.
func (d *DNS) soaOf(name string) *dns.SOA {
	for i, end := 0, false; !end; i, end = dns.NextLabel(name, i) {
		if soa := d.zones[name[i:]]; soa != nil {
			return soa
		}
	}
	return d.zones["."]
}
