package delivery

import (
	"fmt"
	"sync"
	"time"
)

// A pool keeps connections that may be used again, for a short while.
type pool struct {
	idle time.Duration

	mu     sync.Mutex
	kept   map[string][]*keptSession
	closed bool
}

type keptSession struct {
	*session
	timer *time.Timer
}

func (p *pool) init(idle time.Duration) { p.idle, p.kept = idle, map[string][]*keptSession{} }

// poolKey is the same for connections that are as good as each other.
func poolKey(route Route, a target) string {
	return fmt.Sprintf("%s|%s|%d|%s", a.name, a.addr, route.TLS, route.User)
}

// get takes the connection that was used last, nil if there is none.
func (p *pool) get(key string) *session {
	p.mu.Lock()
	defer p.mu.Unlock()
	for list := p.kept[key]; len(list) > 0; list = p.kept[key] {
		k := list[len(list)-1]
		p.drop(key, len(list)-1)
		if k.timer.Stop() {
			return k.session
		}
	}
	return nil
}

// put keeps s until it is taken or idle for too long.
func (p *pool) put(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		s.close()
		return
	}
	k := &keptSession{session: s}
	k.timer = time.AfterFunc(p.idle, func() { p.expire(k) })
	p.kept[s.key] = append(p.kept[s.key], k)
}

func (p *pool) expire(k *keptSession) {
	p.mu.Lock()
	for i, other := range p.kept[k.key] {
		if other == k {
			p.drop(k.key, i)
			break
		}
	}
	p.mu.Unlock()
	k.session.close()
}

func (p *pool) drop(key string, i int) {
	list := p.kept[key]
	list[i] = list[len(list)-1]
	list[len(list)-1] = nil
	p.kept[key] = list[:len(list)-1]
	if len(p.kept[key]) == 0 {
		delete(p.kept, key)
	}
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, list := range p.kept {
		for _, k := range list {
			if k.timer.Stop() {
				k.session.close()
			}
		}
	}
	p.kept = nil
}
