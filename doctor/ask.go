package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	mdns "github.com/miekg/dns"

	"relayd/delivery"
	"relayd/dns"
)

// A Resolver answers from DNS; *dns.Resolver is one. Its errors are all *dns.Error.
type Resolver interface {
	TXT(ctx context.Context, name string) ([]string, error)
	MX(ctx context.Context, domain string) (dns.Answer[dns.MX], error)
	IP(ctx context.Context, host, network string) (dns.Answer[netip.Addr], error)
	PTR(ctx context.Context, ip netip.Addr) ([]string, error)
	// Servers are the recursive servers that it asks, as "ip:port".
	Servers() []string
}

// Options are a Doctor's.
type Options struct {
	Resolver Resolver
	// Patience is how long one server has for one answer over one protocol; default 2 s.
	Patience time.Duration
	// Authority is where the authoritative server with an address is asked; nil: on port 53 of it.
	Authority func(netip.Addr) string
	// Addresses are those of this machine that the world can reach; nil: PublicAddresses.
	Addresses func() ([]netip.Addr, error)
	// Rehearse plays a delivery up to RCPT, as mail leaves: RehearseMX of a *delivery.Client. Only
	// CheckPort25 needs it.
	Rehearse func(context.Context, delivery.Trial) (delivery.Rehearsal, error)
	// Dial connects to our own mail servers; nil: a net.Dialer does.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	Now  func() time.Time // nil: time.Now
}

// A Doctor looks at the world. It remembers which servers a zone has, so make one for each look
// around. It is safe for concurrent use.
type Doctor struct {
	opt Options

	mu    sync.Mutex // guards the rest
	zones map[string]*zone
}

// New makes a Doctor. It opens nothing and starts nothing.
func New(opt Options) *Doctor {
	opt.Patience = cmp.Or(opt.Patience, 2*time.Second)
	if opt.Authority == nil {
		opt.Authority = func(ip netip.Addr) string { return netip.AddrPortFrom(ip, 53).String() }
	}
	if opt.Addresses == nil {
		opt.Addresses = PublicAddresses
	}
	if opt.Dial == nil {
		opt.Dial = new(net.Dialer).DialContext
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	return &Doctor{opt: opt, zones: map[string]*zone{}}
}

// tries is how often a server that is silent is asked.
const tries = 2

var errStrange = errors.New("the response does not match the question")

// A query is a question to a server.
type query struct {
	name     string // without the dot at the end
	typ      uint16
	recurse  bool
	validate bool // to be told by AD whether the answer was validated
}

// ask puts a question to one server, by UDP and, where the answer is too long for that, by TCP.
func (d *Doctor) ask(ctx context.Context, server string, q query) (*mdns.Msg, error) {
	m := new(mdns.Msg).SetQuestion(mdns.Fqdn(q.name), q.typ)
	m.RecursionDesired, m.AuthenticatedData = q.recurse, q.validate
	m.SetEdns0(1232, false)
	network := "udp"
	var last error
	for range tries + 2 { // once more without EDNS, once more by TCP
		client := mdns.Client{Net: network, Timeout: d.opt.Patience, UDPSize: 1232}
		m.Id = mdns.Id()
		resp, _, err := client.ExchangeContext(ctx, m, server)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil && !isTimeout(err):
			return nil, err
		case err != nil && last != nil:
			return nil, err
		case err != nil:
			last = err
		case !answers(resp, m):
			return nil, errStrange
		case resp.Truncated && network == "udp":
			network = "tcp"
		case resp.Rcode == mdns.RcodeFormatError && len(m.Extra) > 0:
			m.Extra = nil
		default:
			return resp, nil
		}
	}
	return nil, errStrange
}

func answers(resp, m *mdns.Msg) bool {
	return resp.Response && len(resp.Question) == 1 && resp.Question[0].Qtype == m.Question[0].Qtype &&
		strings.EqualFold(resp.Question[0].Name, m.Question[0].Name)
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

// brief is an error of the network without the addresses, which those who read it know.
func brief(err error) error {
	if isTimeout(err) {
		return errors.New("no answer")
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

// recursive asks the resolver's servers in turn until one has an answer.
func (d *Doctor) recursive(ctx context.Context, q query) (*mdns.Msg, string, error) {
	q.recurse = true
	last := errors.New("there is no name server to ask")
	for _, server := range d.opt.Resolver.Servers() {
		resp, err := d.ask(ctx, server, q)
		switch {
		case err != nil:
			last = fmt.Errorf("%s: %w", server, brief(err))
		case resp.Rcode != mdns.RcodeSuccess && resp.Rcode != mdns.RcodeNameError:
			last = fmt.Errorf("%s answers %s", server, mdns.RcodeToString[resp.Rcode])
		default:
			return resp, server, nil
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, "", last
}

// An answer is what one or several servers say about a question.
type answer struct {
	servers []string  // for people
	exists  bool      // whether there is such a name
	alias   string    // where a CNAME at the name leads; "" if there is none
	records []mdns.RR // of the type, at the end of all CNAMEs
}

// newAnswer reads a response.
func newAnswer(resp *mdns.Msg, server string, q query) answer {
	a := answer{servers: []string{server}, exists: resp.Rcode == mdns.RcodeSuccess}
	target := mdns.CanonicalName(q.name)
	for range resp.Answer { // as many CNAMEs as there can be
		for _, rr := range resp.Answer {
			if cname, ok := rr.(*mdns.CNAME); ok && mdns.CanonicalName(cname.Hdr.Name) == target && q.typ != mdns.TypeCNAME {
				target = mdns.CanonicalName(cname.Target)
				a.alias = bare(target)
				break
			}
		}
	}
	for _, rr := range resp.Answer {
		if rr.Header().Rrtype == q.typ && mdns.CanonicalName(rr.Header().Name) == target {
			a.records = append(a.records, rr)
		}
	}
	slices.SortFunc(a.records, func(x, y mdns.RR) int { return strings.Compare(data(x), data(y)) })
	return a
}

// values are the data of the records as zone files have them, but TXT as one string.
func (a answer) values() []string {
	var list []string
	for _, rr := range a.records {
		list = append(list, plain(data(rr)))
	}
	return list
}

// same reports whether two servers say the same.
func (a answer) same(b answer) bool {
	return a.exists == b.exists && a.alias == b.alias && slices.EqualFunc(a.records, b.records, func(x, y mdns.RR) bool { return data(x) == data(y) })
}

// data is what a record says.
func data(rr mdns.RR) string {
	if txt, ok := rr.(*mdns.TXT); ok {
		return strings.Join(pieces(txt), "")
	}
	return strings.TrimPrefix(rr.String(), rr.Header().String())
}

// pieces are the strings of a TXT record without the escapes that the DNS library writes.
func pieces(txt *mdns.TXT) []string {
	list := make([]string, len(txt.Txt))
	for i, s := range txt.Txt {
		list[i] = unescaped(s)
	}
	return list
}

// unescaped undoes the escapes of RFC 1035 section 5.1.
func unescaped(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != '\\' || i+1 == len(s):
			b.WriteByte(s[i])
		case i+3 < len(s) && isDigits(s[i+1:i+4]):
			b.WriteByte((s[i+1]-'0')*100 + (s[i+2]-'0')*10 + s[i+3] - '0')
			i += 3
		default:
			i++
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

func isDigits(s string) bool {
	return strings.Trim(s, "0123456789") == ""
}

// bare is a name in lower case, without the dot at the end.
func bare(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }
