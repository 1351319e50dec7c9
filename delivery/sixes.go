package delivery

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// sixPause is for how long nothing is sent over IPv6 to who has refused it: the admin needs to
	// mend something, and then a DNS record to run out.
	sixPause = 24 * time.Hour
	// maxSixes bounds the providers that are remembered, at about 500 bytes each.
	maxSixes = 1000
)

// sixes remember which providers take no mail over IPv6, by registrable domain. The zero value
// knows of none. Safe for concurrent use.
type sixes struct {
	mu    sync.Mutex // guards the rest
	until map[string]IPv6Refusal
}

// An IPv6Refusal is what is remembered of a provider that takes no mail from us over IPv6.
type IPv6Refusal struct {
	Until  time.Time `json:"until"`
	Advice string    `json:"advice"` // for the admin
}

// holds reports whether s is still in force. One further away than it can have been meant to be is
// not: the clock was set back.
func (s IPv6Refusal) holds(now time.Time) bool {
	left := s.Until.Sub(now)
	return left > 0 && left <= sixPause
}

// refuses reports whether the provider of t has refused IPv6 of late.
func (m *sixes) refuses(t target, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.until[t.provider()].holds(now)
}

// note remembers that t refuses IPv6, and reports whether that is news. Where there is no name
// nothing is remembered.
func (m *sixes) note(t target, advice string, now time.Time) bool {
	name := t.provider()
	if name == "" {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	news := !m.until[name].holds(now)
	m.makeRoom(name, now)
	m.until[name] = IPv6Refusal{Until: now.Add(sixPause).Round(0), Advice: advice}
	return news
}

// makeRoom for one of that name: those go that are over, or else the one that is over first. m.mu
// is held.
func (m *sixes) makeRoom(name string, now time.Time) {
	if m.until == nil {
		m.until = map[string]IPv6Refusal{}
	}
	if _, known := m.until[name]; known || len(m.until) < maxSixes {
		return
	}
	maps.DeleteFunc(m.until, func(_ string, s IPv6Refusal) bool { return !s.holds(now) })
	if len(m.until) < maxSixes {
		return
	}
	first := ""
	for other, s := range m.until {
		if first == "" || s.Until.Before(m.until[first].Until) {
			first = other
		}
	}
	delete(m.until, first)
}

// forget is for a provider that takes mail over IPv6 again.
func (m *sixes) forget(t target) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.until, t.provider())
}

// warnings are for the administrator, by provider.
func (m *sixes) warnings(now time.Time) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []string
	for _, name := range slices.Sorted(maps.Keys(m.until)) {
		if s := m.until[name]; s.holds(now) {
			all = append(all, fmt.Sprintf("%s takes no mail from us over IPv6; until %s it goes over IPv4. %s", name, s.Until.UTC().Format(time.RFC3339), s.Advice))
		}
	}
	return all
}

// IPv6Refusals are who takes no mail from us over IPv6 at the moment, by registrable domain.
func (c *Client) IPv6Refusals() map[string]IPv6Refusal {
	c.sixes.mu.Lock()
	defer c.sixes.mu.Unlock()
	all := map[string]IPv6Refusal{}
	for name, s := range c.sixes.until {
		if s.holds(c.opt.Now()) {
			all[name] = s
		}
	}
	return all
}

// RestoreIPv6Refusals takes up what IPv6Refusals has told before a restart, as far as it is still in
// force.
func (c *Client) RestoreIPv6Refusals(all map[string]IPv6Refusal) {
	c.sixes.mu.Lock()
	defer c.sixes.mu.Unlock()
	now := c.opt.Now()
	for name, s := range all {
		if name != "" && s.holds(now) {
			c.sixes.makeRoom(name, now)
			c.sixes.until[name] = s
		}
	}
}
