package relay

import (
	"sync"
	"time"
)

const (
	// slowFor is for how long a mailbox that had too much gets less. Providers count by the hour.
	slowFor = time.Hour
	// maxPaces bounds the mailboxes that are remembered, at about 200 bytes each.
	maxPaces = 20_000
	// longestPace is the most that anybody waits for, so that many who wait do not wait in vain
	// after the mailbox has recovered.
	longestPace = time.Hour
)

// paces bound how much mail each mailbox gets, by token buckets. The zero pace is none. Safe for
// concurrent use.
type paces struct {
	mu        sync.Mutex // guards the rest
	mailboxes map[string]*pace
}

// A paced is a mailbox: its address as Key, and how many messages a minute it may get; 0: no bound is
// known.
type paced struct {
	key       string
	perMinute int
}

// A pace is the bucket of one mailbox.
type pace struct {
	tokens float64   // messages that it may get now
	at     time.Time // when that was so
	last   time.Time // what the last one who had to wait was told
	slow   int       // messages a minute, as its server has asked; 0: it has not
	until  time.Time // when slow ends
}

// holds reports whether t is to come, and within the time that it can have been meant to be: else
// the clock was set back.
func holds(t, now time.Time, most time.Duration) bool {
	left := t.Sub(now)
	return left > 0 && left <= most
}

// rate is how many messages a minute the mailbox may get now; 0 is without bound.
func (p *pace) rate(usual int, now time.Time) int {
	if p != nil && p.slow > 0 && holds(p.until, now, slowFor) && (usual == 0 || p.slow < usual) {
		return p.slow
	}
	return usual
}

// burst is how many messages may come at once at so many a minute: together with those of the
// minute that follows still fewer than what a provider takes offence at.
func burst(perMinute int) float64 { return float64(max(1, perMinute/4)) }

// take takes what one message to m needs. Else it returns when to come again: each who asks is
// told a time of his own, so that they do not come all at once.
func (s *paces) take(m paced, now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	rate := s.mailboxes[m.key].rate(m.perMinute, now)
	if rate == 0 {
		return time.Time{}
	}
	p := s.of(m.key, now)
	step := time.Minute / time.Duration(rate)
	p.tokens = min(burst(rate), p.tokens+float64(max(0, now.Sub(p.at)))/float64(step))
	p.at = now
	if p.tokens >= 1 {
		p.tokens--
		return time.Time{}
	}
	next := now.Add(time.Duration((1 - p.tokens) * float64(step)))
	if after := p.last.Add(step); holds(p.last, now, longestPace) && after.After(next) {
		next = after
	}
	if latest := now.Add(longestPace); next.After(latest) {
		next = latest
	}
	p.last = next
	return next
}

// slow has a mailbox get no more than that for an hour, from now on.
func (s *paces) slow(key string, perMinute int, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.of(key, now)
	if p.rate(perMinute, now) == perMinute {
		p.slow = perMinute
	}
	p.until, p.tokens, p.at = now.Add(slowFor).Round(0), 0, now
}

// lift is for a mailbox that has taken a message.
func (s *paces) lift(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.mailboxes[key]; p != nil {
		p.slow = 0
	}
}

// slowed are the mailboxes whose servers have asked for less.
func (s *paces) slowed(now time.Time) map[string]slowed {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string]slowed{}
	for key, p := range s.mailboxes {
		if p.slow > 0 && holds(p.until, now, slowFor) {
			all[key] = slowed{p.slow, p.until}
		}
	}
	return all
}

// restore takes up what slowed has told before a restart, as far as it is still in force.
func (s *paces) restore(all map[string]slowed, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, was := range all {
		if was.PerMinute > 0 && holds(was.Until, now, slowFor) {
			p := s.of(key, now)
			p.slow, p.until, p.tokens = was.PerMinute, was.Until, 0
		}
	}
}

// A slowed is a pace that a server has asked for.
type slowed struct {
	PerMinute int       `json:"per_minute"`
	Until     time.Time `json:"until"`
}

// of is the pace of a mailbox, a new one where none is remembered. The caller holds mu.
func (s *paces) of(key string, now time.Time) *pace {
	p := s.mailboxes[key]
	if p == nil {
		s.makeRoom(now)
		p = &pace{tokens: maxPaces, at: now} // as full as its bucket will be
		s.mailboxes[key] = p
	}
	return p
}

// makeRoom forgets mailboxes when there are too many: those that nothing was for of late, or else
// any. To have forgotten one costs no more than a burst.
func (s *paces) makeRoom(now time.Time) {
	if len(s.mailboxes) < maxPaces {
		return
	}
	for _, age := range []time.Duration{slowFor, time.Minute, 0} {
		for key, p := range s.mailboxes {
			if old := now.Sub(p.at); old < 0 || old >= age {
				delete(s.mailboxes, key)
			}
			if len(s.mailboxes) <= maxPaces/2 {
				break
			}
		}
		if len(s.mailboxes) <= maxPaces*3/4 {
			return
		}
	}
}
