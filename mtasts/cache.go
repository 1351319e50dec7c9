package mtasts

import (
	"cmp"
	"errors"
	"maps"
	"runtime/debug"
	"slices"
	"time"
)

const (
	// minHold keeps a policy with a tiny max_age for the mail that it was fetched for, and spares
	// its host a fetch for each message.
	minHold = time.Minute
	// A failed fetch is repeated after firstRetry, which doubles up to lastRetry. So long, a
	// domain with a broken policy costs nothing.
	firstRetry = 5 * time.Minute
	lastRetry  = time.Hour
)

var errPanicked = errors.New("something went wrong here")

var errClosed = errors.New("the cache is closed")

// An entry is what is known about a domain: a policy, or why there is none, or both when the policy
// could not be renewed.
type entry struct {
	saved
	failures int       // in a row
	retry    time.Time // no fetch before
	err      *Error    // of the last fetch; nil if it succeeded
}

// saved is the part of an entry that survives a restart.
type saved struct {
	Domain  string
	ID      string    // what DNS announced when the policy was fetched
	Fetched time.Time // zero if there is no policy
	Used    time.Time // when somebody last asked
	Policy  Policy
}

func (s *saved) inForce(now time.Time) bool {
	return !s.Fetched.IsZero() && now.Before(s.Fetched.Add(max(s.Policy.MaxAge, minHold)))
}

// worthless reports whether an entry can be forgotten without anybody noticing.
func (e *entry) worthless(now time.Time) bool { return !e.inForce(now) && !now.Before(e.retry) }

// inForce returns the policy in force, or else err, which may be nil.
func (c *Cache) inForce(domain string, err *Error) (Policy, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.opt.Now()
	if e := c.entries[domain]; e != nil {
		e.Used = now
		if e.inForce(now) {
			return e.Policy, nil
		}
	}
	if err != nil {
		return Policy{}, err
	}
	return Policy{}, nil
}

// A flight is a fetch under way, for everybody who wants the same policy.
type flight struct {
	done   chan struct{} // closed when the fields below are set and the entry is as it shall be
	policy Policy
	err    *Error
}

// find returns the policy that is announced as id, the flight that fetches it, or, while that must
// not be tried again, what inForce would return.
func (c *Cache) find(domain, id string) (Policy, *flight, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.opt.Now()
	if e := c.entries[domain]; e != nil {
		e.Used = now
		paused := now.Before(e.retry)
		switch {
		case e.inForce(now) && (e.ID == id || paused):
			return e.Policy, nil, nil
		case paused:
			return Policy{}, nil, e.err
		}
	}
	return Policy{}, c.start(domain, id), nil
}

// start returns the flight for a domain; c.mu is held.
func (c *Cache) start(domain, id string) *flight {
	if f, underWay := c.flights[domain]; underWay {
		return f
	}
	f := &flight{done: make(chan struct{})}
	if c.closed {
		f.err = &Error{domain, FetchError, errClosed}
		close(f.done)
		return f
	}
	c.flights[domain] = f
	c.running.Go(func() {
		defer c.end(domain, f)
		defer func() { // a policy that brings us down is none, for this time
			if p := recover(); p != nil {
				c.opt.Log.Error("panic while fetching an MTA-STS policy", "domain", domain, "panic", p, "stack", string(debug.Stack()))
				f.err = &Error{domain, FetchError, errPanicked}
			}
		}()
		policy, err := c.fetchInTurn(domain)
		f.policy, f.err = policy, err
		if err != nil {
			c.disk.remove(c.failed(domain, err)...)
		} else {
			got, evicted := c.succeeded(saved{Domain: domain, ID: id, Policy: policy})
			c.disk.write(got)
			c.disk.remove(evicted...)
		}
	})
	return f
}

// end makes room for the domain's next flight.
func (c *Cache) end(domain string, f *flight) {
	c.mu.Lock()
	delete(c.flights, domain)
	c.mu.Unlock()
	close(f.done)
}

// fetchInTurn fetches as soon as fewer than maxFetches others do.
func (c *Cache) fetchInTurn(domain string) (Policy, *Error) {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-c.ctx.Done():
		return Policy{}, &Error{domain, FetchError, errClosed}
	}
	return c.fetch(c.ctx, domain)
}

// failed remembers that a fetch failed, and returns what had to be forgotten for that.
func (c *Cache) failed(domain string, err *Error) (evicted []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil // its failure was to be under way when the program ended
	}
	now := c.opt.Now()
	e := c.entry(domain, now)
	e.err, e.retry = err, now.Add(min(firstRetry<<min(e.failures, 10), lastRetry))
	e.failures++
	c.opt.Log.Warn("MTA-STS policy not available", "domain", domain, "result", string(err.Result),
		"error", err.Cause, "in_force", e.inForce(now), "retry", e.retry)
	return c.evict(now)
}

// succeeded puts a policy into force as of now. It returns what is to be kept on disk, and what
// had to be forgotten for it.
func (c *Cache) succeeded(got saved) (keep saved, evicted []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.opt.Now()
	e := c.entry(got.Domain, now)
	if e.Fetched.IsZero() || e.Policy.String() != got.Policy.String() {
		c.opt.Log.Info("MTA-STS policy fetched", "domain", got.Domain, "id", got.ID,
			"mode", got.Policy.Mode.String(), "mx", got.Policy.MX, "max_age", got.Policy.MaxAge)
	}
	got.Fetched, got.Used = now, e.Used
	*e = entry{saved: got}
	return got, c.evict(now)
}

// entry returns the entry of a domain, a new one if need be.
func (c *Cache) entry(domain string, now time.Time) *entry {
	e := c.entries[domain]
	if e == nil {
		e = &entry{saved: saved{Domain: domain, Used: now}}
		c.entries[domain] = e
	}
	return e
}

// evict forgets entries when there are too many, and returns their domains: first those that are
// worth nothing, then those that nobody asked for the longest. c.mu is held, or nobody else is
// here yet.
func (c *Cache) evict(now time.Time) []string {
	over := len(c.entries) - c.opt.MaxEntries
	if over <= 0 {
		return nil
	}
	rank := func(e *entry) int {
		if e.worthless(now) {
			return 0
		}
		return 1
	}
	domains := slices.SortedFunc(maps.Keys(c.entries), func(a, b string) int {
		x, y := c.entries[a], c.entries[b]
		return cmp.Or(cmp.Compare(rank(x), rank(y)), x.Used.Compare(y.Used), cmp.Compare(a, b))
	})[:over]
	for _, domain := range domains {
		delete(c.entries, domain)
	}
	return domains
}
