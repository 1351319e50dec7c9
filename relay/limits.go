package relay

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"

	"relayd/address"
)

// limits bound by the hour what one user sends, what one source tries at a catch-all, and how many
// SRS addresses it makes up: so that a stolen password or a list of guessed names cannot cost the
// mailbox behind it its good name, and nobody finds a hash by trying. A source is an IPv4 address
// or an IPv6 /64. Safe for concurrent use.
type limits struct {
	now  func() time.Time
	seed maphash.Seed

	mu      sync.Mutex
	began   time.Time // of the hour that is counted
	sent    map[address.Address]int
	guesses map[netip.Prefix]map[uint64]bool // addresses, as hashes: who makes them up chooses how long they are
	tried   int                              // of them all
	forgers map[netip.Prefix]int             // forged SRS addresses
	unknown map[netip.Prefix]int             // addresses that there are not
}

// maxSources and maxTried, of addresses at a catch-all, bound the memory of one hour: past them the
// counting of sources begins anew, and of them only. Whoever has an IPv6 /48 has that many, and must not
// make room for a user's next messages.
const (
	maxSources = 20_000
	maxTried   = 2_000_000 // of about 20 bytes
)

// maxForged is how many SRS addresses with a wrong hash one source may try in an hour. A forwarder
// that returns spam of others does so now and then; to find one hash takes more than 2^40 tries.
const maxForged = 100

func newLimits(now func() time.Time) *limits { return &limits{now: now, seed: maphash.MakeSeed()} }

// turn begins a new hour when the old one is over. The caller holds mu.
func (l *limits) turn() {
	now := l.now()
	age := now.Sub(l.began)
	over := age < 0 || age >= time.Hour
	if over {
		l.began, l.sent = now, map[address.Address]int{}
	}
	if !over && len(l.guesses)+len(l.forgers)+len(l.unknown) < maxSources && l.tried < maxTried {
		return
	}
	l.tried = 0
	l.guesses, l.forgers, l.unknown = map[netip.Prefix]map[uint64]bool{}, map[netip.Prefix]int{}, map[netip.Prefix]int{}
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
// when it has tried too many different ones.
func (l *limits) mayTry(ip netip.Addr, to address.Address, limit int) bool {
	if limit == 0 {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turn()
	tried := l.guesses[source(ip)]
	if tried == nil {
		tried = map[uint64]bool{}
		l.guesses[source(ip)] = tried
	}
	key := maphash.String(l.seed, to.Key())
	switch {
	case tried[key]:
		return true
	case len(tried) >= limit:
		return false
	}
	tried[key] = true
	l.tried++
	return true
}

// mayReverse is false for a source that has forged too many SRS addresses. A true one is then
// refused as well, for now: else the refusals of the others would tell it apart.
func (l *limits) mayReverse(ip netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turn()
	return l.forgers[source(ip)] < maxForged
}

// forged notes that a source has tried an SRS address that no secret of ours signed.
func (l *limits) forged(ip netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turn()
	l.forgers[source(ip)]++
}

// maxUnknown is how many addresses that there are not one source may try in an hour. Who sends mail
// to old lists does so as well, so what it meets then passes.
const maxUnknown = 500

// mayAsk is false for a source that has tried too many addresses that there are not. True ones are
// then refused as well, for now: else the answers would go on telling the two apart. Who is on this
// machine need not ask.
func (l *limits) mayAsk(ip netip.Addr) bool {
	if ip.IsLoopback() {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turn()
	return l.unknown[source(ip)] < maxUnknown
}

// missed notes that a source has tried an address that there is not.
func (l *limits) missed(ip netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turn()
	l.unknown[source(ip)]++
}

// source is what is counted as one. The zero Prefix serves for no address.
func source(ip netip.Addr) netip.Prefix {
	bits := 32
	if ip = ip.Unmap(); ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits) // of a valid length
	return p
}
