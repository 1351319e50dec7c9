package relay

import (
	"net/netip"
	"sync"
	"time"

	"relayd/address"
)

// limits bound by the hour what one user sends and what one source tries at a catch-all, so that
// a stolen password or a list of guessed names cannot cost the mailbox behind it its good name.
// Safe for concurrent use.
type limits struct {
	now func() time.Time

	mu      sync.Mutex
	began   time.Time // of the hour that is counted
	sent    map[address.Address]int
	guesses map[netip.Prefix]map[string]bool
}

// maxSources bounds the memory of one hour: past it the counting begins anew.
const maxSources = 20_000

func newLimits(now func() time.Time) *limits { return &limits{now: now} }

// turn begins a new hour when the old one is over. The caller holds mu.
func (l *limits) turn() {
	now := l.now()
	if age := now.Sub(l.began); age >= 0 && age < time.Hour && len(l.guesses) < maxSources {
		return
	}
	l.began, l.sent, l.guesses = now, map[address.Address]int{}, map[netip.Prefix]map[string]bool{}
}

// maySend counts a message of user, and is false when it is one too many. 0 is no limit.
func (l *limits) maySend(user address.Address, limit int) bool {
	if limit == 0 {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turn()
	if l.sent[user] >= limit {
		return false
	}
	l.sent[user]++
	return true
}

// mayTry notes that a source has tried an address that only the catch-all takes, and is false
// when it has tried too many different ones. A source is an IPv4 address or an IPv6 /64.
func (l *limits) mayTry(ip netip.Addr, to address.Address, limit int) bool {
	if limit == 0 {
		return true
	}
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	source, _ := ip.Prefix(bits) // of a valid length; the zero Prefix serves for no address
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turn()
	tried := l.guesses[source]
	if tried == nil {
		tried = map[string]bool{}
		l.guesses[source] = tried
	}
	if !tried[to.Key()] && len(tried) >= limit {
		return false
	}
	tried[to.Key()] = true
	return true
}
