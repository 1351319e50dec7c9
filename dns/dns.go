// Package dns is the one resolver of the relay. It asks recursive name servers, by default those
// of /etc/resolv.conf, for the few record types that mail needs, and promises:
//
//   - Every failure is an *Error of one of three kinds. Only NXDOMAIN and NODATA are facts about a
//     name; all else, a broken or silent server above all, is Temporary: "later", never a bounce.
//     Confirm makes sure of an NXDOMAIN before somebody acts on it for good.
//   - A lookup ends within 10 seconds or with its context, whichever is first, and needs no more
//     than 256 sockets at a time together with all others.
//   - Answers are cached for their TTL, within bounds, failures for 5 seconds; the cache does not
//     grow past a fixed size. Equal questions at the same time are asked once.
//   - Malformed, forged or oversized responses cost a retry, never a crash.
//
// It does not read /etc/hosts, knows no search list and does no DNSSEC validation of its own: it
// passes on the AD bit of a server that is trusted to have validated; see Options.Trust.
//
// Sources: RFC 1035, RFC 2181 (data), RFC 2308 (negative caching), RFC 5452 (forgery), RFC 6840
// section 5.7 (AD), RFC 6891 (EDNS), RFC 7505 (null MX), RFC 6698 (TLSA), RFC 7766 (TCP), RFC 9520
// (failures).
package dns

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"relayd/tasks"
)

const (
	// lookupTime bounds one lookup over all servers, retries and CNAMEs.
	lookupTime = 10 * time.Second
	// maxQueries bounds the sockets in use: the rest wait, within their lookupTime.
	maxQueries = 256
)

// Options are the settings of a Resolver. The zero value works.
type Options struct {
	// Servers are recursive name servers as "ip:port", tried in this order. When there are none,
	// those of /etc/resolv.conf are used, which is read again within 5 seconds of a change.
	Servers []string
	// Now is the clock that the cache and the order of servers live by; default time.Now.
	Now func() time.Time
	// Timeout is how long one server has for one answer over one protocol; default 3 s.
	Timeout time.Duration
	// Trust says whether the AD bit of the servers is believed.
	Trust Trust
	// MaxEntries bounds the cache, in answers of up to 1 KiB (a larger one counts as several);
	// default 10000.
	MaxEntries int
}

// A Resolver looks names up. Make one with New and share it: it is safe for concurrent use.
//
// Names are absolute whether they end in a dot or not, in A-labels (punycode) and any case. One
// that cannot stand in DNS (an empty label, too long, bytes outside of printable ASCII) is answered
// ErrNotExist without asking anybody. Names in answers are in lower case, without the final dot.
type Resolver struct {
	now     func() time.Time
	timeout time.Duration
	trust   Trust
	servers *servers
	slots   chan struct{} // holds one token for each query under way

	mu      sync.Mutex // guards the rest
	cache   *cache
	flights map[question]*flight
}

// New returns a resolver. It opens nothing and starts nothing, so there is nothing to close.
func New(opt Options) *Resolver {
	return newResolver(opt, "/etc/resolv.conf")
}

func newResolver(opt Options, resolvConf string) *Resolver {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	return &Resolver{
		now:     opt.Now,
		timeout: cmp.Or(opt.Timeout, 3*time.Second),
		trust:   opt.Trust,
		servers: newServers(opt.Servers, resolvConf),
		slots:   make(chan struct{}, maxQueries),
		cache:   newCache(cmp.Or(opt.MaxEntries, 10000)),
		flights: map[question]*flight{},
	}
}

// An Answer is what DNS says about a name; there is at least one record in it.
type Answer[T any] struct {
	Records []T
	// Name is whose records they are: the name that was asked for, or where its CNAMEs lead. Where
	// the address families of a host lead to different names, it is the host itself.
	Name string
	// Secure is set when a server that is trusted vouched for every step by the AD bit.
	Secure bool
	// Partial is why one address family is missing from an answer of IP that was to hold both:
	// always a Temporary *Error. It is nil when the missing family is known to have no address.
	Partial error
}

// MX is a mail exchanger.
type MX struct {
	Host       string // "" only in a null MX
	Preference uint16 // the lower, the sooner
}

// MX returns the mail exchangers of domain by preference, those of the same preference in the
// order of the response. A domain that takes no mail (null MX, RFC 7505) has exactly one record,
// whose Host is ""; a null MX beside real ones is left out. A domain without MX is ErrNoData, and
// whether its addresses stand in for them (RFC 5321 section 5.1) is up to the caller.
func (r *Resolver) MX(ctx context.Context, domain string) (Answer[MX], error) {
	res := r.lookup(ctx, domain, dns.TypeMX)
	if res.err != nil {
		return Answer[MX]{}, res.err
	}
	var mx, null []MX
	for _, rec := range res.records {
		m := MX{Host: rec.text, Preference: rec.preference}
		if m.Host == "" {
			null = []MX{m}
		} else {
			mx = append(mx, m)
		}
	}
	if len(mx) == 0 {
		mx = null
	}
	slices.SortStableFunc(mx, func(a, b MX) int { return cmp.Compare(a.Preference, b.Preference) })
	return Answer[MX]{Records: mx, Name: res.name, Secure: res.secure}, nil
}

// TXT returns the TXT records of name, the strings of each joined as they are, bytes above 127
// and all.
func (r *Resolver) TXT(ctx context.Context, name string) ([]string, error) {
	return texts(r.lookup(ctx, name, dns.TypeTXT))
}

// PTR returns the names that ip's reverse zone gives it. Nobody vouches for them: they mean
// something only if their addresses lead back to ip.
func (r *Resolver) PTR(ctx context.Context, ip netip.Addr) ([]string, error) {
	name, err := dns.ReverseAddr(ip.Unmap().WithZone("").String())
	if err != nil {
		return nil, &Error{Name: ip.String(), Type: "PTR", Kind: NotExist, Cause: err}
	}
	return texts(r.lookup(ctx, name, dns.TypePTR))
}

func texts(res result) ([]string, error) {
	if res.err != nil {
		return nil, res.err
	}
	out := make([]string, len(res.records))
	for i, rec := range res.records {
		out[i] = rec.text
	}
	return out, nil
}

// Confirm asks once more, past the cache, whether domain exists. It returns nil if it does,
// ErrNotExist if a server says NXDOMAIN again, and a Temporary error if nobody can tell. Where
// there are several servers, the one whose NXDOMAIN is in the cache is not asked again, even when
// the others do not answer: a single server that lies must not turn into a bounce.
func (r *Resolver) Confirm(ctx context.Context, domain string) error {
	q, bad := newQuestion(domain, dns.TypeMX)
	if bad != nil {
		return bad
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	res := r.resolve(ctx, q, r.deniedBy(q.name))
	if res.err != nil && res.err.Kind != NoData {
		return res.err
	}
	r.forget(q.name)
	return nil
}

// IP returns the addresses of host in a network: "ip4", "ip6", or "ip" for both families.
//
// For "ip" the families are asked for at the same time, and IPv6 stands first. When one has
// addresses and the other fails (or takes longer than Options.Timeout after the first is there),
// the addresses come back with a nil error and with Partial set. An error means that there is no
// address at all; it is Temporary if either family's failure is.
//
// "localhost" and names under it are the loopback addresses (RFC 6761 section 6.3), without asking.
func (r *Resolver) IP(ctx context.Context, host, network string) (Answer[netip.Addr], error) {
	if isLocalhost(host) {
		return loopback(bareName(host), network)
	}
	switch network {
	case "ip4":
		return addresses(r.lookup(ctx, host, dns.TypeA))
	case "ip6":
		return addresses(r.lookup(ctx, host, dns.TypeAAAA))
	case "ip":
		return r.bothFamilies(ctx, host)
	}
	return Answer[netip.Addr]{}, badNetwork(host, network)
}

func (r *Resolver) bothFamilies(ctx context.Context, host string) (Answer[netip.Addr], error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	late := func() { cancel(context.DeadlineExceeded) }
	v4, v6 := make(chan result, 1), make(chan result, 1)
	var lookups tasks.Group
	for answer, typ := range map[chan result]uint16{v4: dns.TypeA, v6: dns.TypeAAAA} {
		lookups.Go(func() {
			defer close(answer) // also where it panics: Wait tells of that
			answer <- r.lookup(ctx, host, typ)
		})
	}

	var res4, res6 result
	for v4 != nil || v6 != nil { // both are waited for: a lookup ends soon after its context
		var got result
		select {
		case got = <-v4:
			res4, v4 = got, nil
		case got = <-v6:
			res6, v6 = got, nil
		}
		if got.err == nil {
			defer time.AfterFunc(r.timeout, late).Stop()
		}
	}
	lookups.Wait()
	if res4.err != nil && res6.err != nil {
		return Answer[netip.Addr]{}, worse(res4.err, res6.err)
	}
	both := result{name: cmp.Or(res4.name, res6.name), secure: true}
	if res4.err == nil && res6.err == nil && res4.name != res6.name {
		both.name = bareName(host)
	}
	var partial error
	for _, res := range []result{res6, res4} {
		switch {
		case res.err == nil:
			both.records = append(both.records, res.records...)
			both.secure = both.secure && res.secure
		case res.err.Kind == Temporary:
			partial = res.err
		}
	}
	ans, err := addresses(both)
	ans.Partial = partial
	return ans, err
}

func addresses(res result) (Answer[netip.Addr], error) {
	if res.err != nil {
		return Answer[netip.Addr]{}, res.err
	}
	ips := make([]netip.Addr, len(res.records))
	for i, rec := range res.records {
		ips[i] = rec.addr
	}
	return Answer[netip.Addr]{Records: ips, Name: res.name, Secure: res.secure}, nil
}

func isLocalhost(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

func loopback(host, network string) (Answer[netip.Addr], error) {
	v4, v6 := netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()
	switch network {
	case "ip4":
		return Answer[netip.Addr]{Records: []netip.Addr{v4}, Name: host}, nil
	case "ip6":
		return Answer[netip.Addr]{Records: []netip.Addr{v6}, Name: host}, nil
	case "ip":
		return Answer[netip.Addr]{Records: []netip.Addr{v6, v4}, Name: host}, nil
	}
	return Answer[netip.Addr]{}, badNetwork(host, network)
}

func badNetwork(host, network string) error {
	return &Error{Name: host, Type: "A", Kind: Temporary, Cause: fmt.Errorf("unknown network %q", network)}
}
