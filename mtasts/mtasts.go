// Package mtasts finds out which domains demand TLS with a proper certificate from those who send
// mail to them (MTA-STS), and remembers it. It promises:
//
//   - A policy comes over HTTPS from the domain's own policy host, whose certificate is checked, and
//     is in force until its max_age is over. Neither a lost TXT record nor a failed fetch ends it
//     earlier; only a newer policy does.
//   - A fetch that fails has taken a minute at most, and holds up nobody longer than their context.
//     The domain is then left alone for 5 minutes, later for up to an hour.
//   - Policies survive a restart. What a damaged or foreign file in the folder says is not believed.
//   - Memory, disk, fetches under way and the size of a policy are bounded.
//
// What a policy means for a connection, and how DANE goes before it, is the sender's business.
//
// Sources: RFC 8461 (MTA-STS), RFC 8460 section 4.3 (the names of failures).
package mtasts

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"relayd/address"
	"relayd/dns"
)

// maxFetches bounds the fetches at a time; the rest wait. One that is under way costs a connection
// and some 300 KiB at most.
const maxFetches = 8

// maxDomain is the longest domain that leaves room for the label in front of it.
const maxDomain = address.MaxDomain - len("_mta-sts.")

// A Result is a kind of failure under the name that TLS reports use for it (RFC 8460 section 4.3).
type Result string

const (
	// FetchError: the policy, or what DNS has to say about it, cannot be had.
	FetchError Result = "sts-policy-fetch-error"
	// PolicyInvalid: the policy host serves something that is not a valid policy.
	PolicyInvalid Result = "sts-policy-invalid"
	// WebPKIInvalid: the policy host's certificate does not verify.
	WebPKIInvalid Result = "sts-webpki-invalid"
)

// An Error says why the policy of a domain is not known. It is the only type of error that Policy
// returns.
type Error struct {
	Domain string
	Result Result
	Cause  error // never nil
}

// Error is one line for a log.
func (e *Error) Error() string { return fmt.Sprintf("MTA-STS policy of %s: %v", e.Domain, e.Cause) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Resolver is the part of dns.Resolver that is needed.
type Resolver interface {
	TXT(ctx context.Context, name string) ([]string, error)
	IP(ctx context.Context, host, network string) (dns.Answer[netip.Addr], error)
}

// Options are a Cache's. Only the Resolver is needed.
type Options struct {
	Resolver Resolver
	// Dir is a folder for policies and nothing else. It is made if need be; "" keeps nothing.
	Dir string
	// RootCAs are who may vouch for policy hosts; nil for the system's.
	RootCAs *x509.CertPool
	// Network of the connections to policy hosts: "ip4", "ip6", or "ip" for both, the default.
	Network string
	// Port of policy hosts; default 443.
	Port int
	// Dial opens connections to an "ip:port"; default that of a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Now is the clock that policies age by; default time.Now.
	Now func() time.Time
	// MaxEntries bounds the domains that something is remembered about, in memory and on disk;
	// default 2000. An entry has 1 KiB as a rule and never more than 100 KiB.
	MaxEntries int
	// Log tells of policies that change, fetches that fail, and damaged files; nil for nobody.
	Log *slog.Logger
}

// A Cache finds and keeps policies. Make one with Open and share it: it is safe for concurrent use.
type Cache struct {
	opt   Options
	disk  folder
	slots chan struct{} // holds a token for each fetch under way

	ctx     context.Context // of all fetches; ends with Close
	cancel  context.CancelFunc
	running sync.WaitGroup // flights

	mu      sync.Mutex // guards the rest
	entries map[string]*entry
	flights map[string]*flight
	closed  bool
}

// Open reads what the folder holds, and throws out of it what is damaged. The error is that of a
// folder that cannot be made or read. Close the cache when it is no longer needed.
func Open(opt Options) (*Cache, error) {
	opt.Network = cmp.Or(opt.Network, "ip")
	opt.Port = cmp.Or(opt.Port, 443)
	opt.MaxEntries = cmp.Or(opt.MaxEntries, 2000)
	if opt.Dial == nil {
		opt.Dial = new(net.Dialer).DialContext
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	c := &Cache{
		opt: opt, disk: folder{opt.Dir, opt.Log}, slots: make(chan struct{}, maxFetches),
		entries: map[string]*entry{}, flights: map[string]*flight{},
	}
	saved, err := c.disk.load(opt.Now())
	if err != nil {
		return nil, fmt.Errorf("reading MTA-STS policies: %w", err)
	}
	for _, s := range saved {
		c.entries[s.Domain] = &entry{saved: s}
	}
	c.disk.remove(c.evict(opt.Now())...)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c, nil
}

// Close ends the fetches under way and waits for them. After it, Policy knows what is remembered
// and nothing more.
func (c *Cache) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.running.Wait()
}

// Policy returns the policy of domain, which is that of the recipients, never that of a host. The
// zero Policy, whose Mode is None, stands for a domain without one.
//
// An error, always an *Error, means that there is no policy in force and that it is not known
// whether there ought to be one; mail then goes on as if there were none (RFC 8461 section 3.3). A
// policy in force makes up for all that fails, which is logged.
//
// When DNS announces a policy that is not here yet, Policy fetches it. That may take a minute, and
// longer when many others are being fetched. The wait ends with ctx; the fetch goes on for those who
// ask later.
func (c *Cache) Policy(ctx context.Context, domain string) (Policy, error) {
	domain, err := address.Domain(domain)
	if err != nil || domain[0] == '[' || len(domain) > maxDomain {
		return Policy{}, nil // an address literal, or nothing that DNS could say anything about
	}
	id, err := c.announced(ctx, domain)
	if err != nil && !absent(err) {
		return c.inForce(domain, &Error{domain, FetchError, err})
	}
	if id == "" {
		return c.inForce(domain, nil)
	}
	policy, f, err := c.find(domain, id)
	if f == nil {
		return policy, err
	}
	select {
	case <-f.done:
		if f.err == nil {
			return f.policy, nil
		}
		return c.inForce(domain, f.err)
	case <-ctx.Done():
		return c.inForce(domain, &Error{domain, FetchError, context.Cause(ctx)})
	}
}

// announced returns the id of the policy that DNS announces, "" if it announces none.
func (c *Cache) announced(ctx context.Context, domain string) (string, error) {
	records, err := c.opt.Resolver.TXT(ctx, "_mta-sts."+domain)
	if err != nil {
		return "", err
	}
	return parseRecords(records), nil
}

// absent reports whether err is DNS saying that there is no record.
func absent(err error) bool { return errors.Is(err, dns.ErrNotExist) || errors.Is(err, dns.ErrNoData) }
