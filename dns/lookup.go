package dns

import (
	"context"
	"time"

	"github.com/miekg/dns"
)

// How long results are kept. A minimum above 0 spares the servers during a burst of mail for one
// domain; the maxima let a correction of a wrong record reach us the same hour. Mail can wait.
const (
	minTime    = 30 * time.Second
	maxTime    = time.Hour
	maxDenied  = 5 * time.Minute
	failedTime = 5 * time.Second // RFC 9520 section 3.2 wants one second at least
)

// A result is how a lookup ended: with records or with an error. It is not changed once made.
type result struct {
	records []record
	name    string // where the records stand, at the end of all CNAMEs
	secure  bool
	err     *Error
	ttl     time.Duration // how long the result may be kept
}

// A flight is a lookup under way, for everybody who has the same question.
type flight struct {
	done      chan struct{} // closed when the fields below are set
	abandoned bool          // whoever flew it gave up: it says nothing to the others
	res       result
}

// lookup answers from the cache, from a lookup that is already under way, or by asking.
func (r *Resolver) lookup(ctx context.Context, name string, typ uint16) result {
	q, bad := newQuestion(name, typ)
	if bad != nil {
		return result{err: bad}
	}
	bounded, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	for {
		r.mu.Lock()
		if res, ok := r.cache.get(q, r.now()); ok {
			r.mu.Unlock()
			return res
		}
		f, joined := r.flights[q]
		if !joined {
			f = &flight{done: make(chan struct{}), abandoned: true}
			r.flights[q] = f
		}
		r.mu.Unlock()
		if !joined {
			defer r.land(q, f)
			f.res = r.resolve(bounded, q, "")
			// The end of the caller's own context is no finding that others could use.
			f.abandoned = ctx.Err() != nil && f.res.err != nil && f.res.err.Kind == Temporary
			return f.res
		}
		select {
		case <-f.done:
			if !f.abandoned {
				return f.res
			}
		case <-bounded.Done():
			return result{err: q.fail(Temporary, "", context.Cause(bounded))}
		}
	}
}

// land ends a flight, however it ended.
func (r *Resolver) land(q question, f *flight) {
	r.mu.Lock()
	delete(r.flights, q)
	if !f.abandoned {
		r.cache.put(q, f.res, r.now())
	}
	r.mu.Unlock()
	close(f.done)
}

// resolve asks the servers, past the cache, and asks on where a CNAME leads out of a response.
// The server avoid is left out if there is any other.
func (r *Resolver) resolve(ctx context.Context, q question, avoid string) result {
	res := result{secure: true, ttl: maxTime}
	for next, hops := q, 0; ; {
		resp, err := r.ask(ctx, next, avoid)
		if err != nil {
			return result{err: q.fail(Temporary, err.Server, err.Cause), ttl: failedTime}
		}
		hops += resp.hops
		res.secure = res.secure && resp.secure && r.trusts()
		res.ttl = min(res.ttl, resp.ttl)
		denied := result{ttl: min(max(res.ttl, minTime), maxDenied)}
		switch {
		case hops > maxChain:
			return result{err: q.fail(Temporary, resp.server, errChain), ttl: failedTime}
		case resp.rcode == dns.RcodeNameError:
			denied.err = q.fail(NotExist, resp.server, nil)
			return denied
		case len(resp.records) > 0:
			res.records, res.name, res.ttl = resp.records, bareName(resp.target), max(res.ttl, minTime)
			return res
		case resp.hops == 0 || resp.denied:
			denied.err = q.fail(NoData, resp.server, nil)
			return denied
		}
		var bad *Error
		if next, bad = newQuestion(resp.target, q.typ); bad != nil {
			denied.err = q.fail(NoData, resp.server, bad.Cause)
			return denied
		}
	}
}

// deniedBy is the server whose NXDOMAIN for name is in the cache, "" if there is none.
func (r *Resolver) deniedBy(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, typ := range []uint16{dns.TypeMX, dns.TypeA, dns.TypeAAAA, dns.TypeTXT} {
		res, ok := r.cache.get(question{name, typ}, r.now())
		if ok && res.err != nil && res.err.Kind == NotExist {
			return res.err.Server
		}
	}
	return ""
}

// forget drops what the cache holds about name, because it turned out to be wrong.
func (r *Resolver) forget(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, typ := range []uint16{dns.TypeMX, dns.TypeA, dns.TypeAAAA, dns.TypeTXT} {
		r.cache.remove(question{name, typ})
	}
}
