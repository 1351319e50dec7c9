package delivery

import (
	"slices"
	"sync"
	"time"
)

// A pool keeps connections that may be used again, for a short while.
type pool struct {
	idle time.Duration

	mu     sync.Mutex // guards the rest
	kept   map[poolKey][]*keptSession
	closed bool
}

// A poolKey is the same for connections that are as good as each other.
type poolKey struct {
	target         target
	tls            TLSMode
	demand         string
	lmtp           bool
	user, password string
}

func newPoolKey(route Route, t target) poolKey {
	return poolKey{t, route.tls(), route.demand.String(), route.LMTP, route.User, route.Password}
}

type keptSession struct {
	*session
	timer *time.Timer
}

func (p *pool) init(idle time.Duration) { p.idle, p.kept = idle, map[poolKey][]*keptSession{} }

// get takes the connection that was used last of those that take recipients in domain, nil if there
// is none.
func (p *pool) get(key poolKey, domain string) *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.kept[key]) - 1; i >= 0; i-- {
		k := p.kept[key][i]
		if !k.takes(domain) {
			continue
		}
		p.drop(key, i)
		if k.timer.Stop() {
			return k.session
		}
	}
	return nil
}

// put keeps s until it is taken, idle for too long, or too old. It reports whether it does: a
// closed pool leaves s to the caller.
func (p *pool) put(s *session) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	k := &keptSession{session: s}
	k.timer = time.AfterFunc(min(p.idle, time.Until(s.opened.Add(s.times.Age))), func() { p.expire(k) })
	p.kept[s.key] = append(p.kept[s.key], k)
	return true
}

func (p *pool) expire(k *keptSession) {
	p.mu.Lock()
	if i := slices.Index(p.kept[k.key], k); i >= 0 {
		p.drop(k.key, i)
	}
	p.mu.Unlock()
	k.session.close()
}

func (p *pool) drop(key poolKey, i int) {
	p.kept[key] = slices.Delete(p.kept[key], i, i+1)
	if len(p.kept[key]) == 0 {
		delete(p.kept, key)
	}
}

// close ends all connections that are kept, and keeps none from now on.
func (p *pool) close() {
	p.mu.Lock()
	kept := p.kept
	p.closed, p.kept = true, nil
	p.mu.Unlock()
	var wg sync.WaitGroup // a goodbye may take a second
	for _, list := range kept {
		for _, k := range list {
			if k.timer.Stop() {
				wg.Go(k.session.close)
			}
		}
	}
	wg.Wait()
}
