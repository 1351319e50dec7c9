package delivery

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"relayd/reply"
	"relayd/tasks"
)

// A host that has had TLS for long and suddenly has none may have somebody in front of it who takes
// the offer away. Mail that may go in the clear waits for that to end, but not for ever: most often
// the host itself has changed.
const (
	// tlsProven is for how long a host must have had TLS on all connections.
	tlsProven = 7 * 24 * time.Hour
	// tlsPatience is how long mail waits for TLS to come back.
	tlsPatience = 4 * time.Hour
	// tlsWarning is for how long Warnings tells of a host.
	tlsWarning = 7 * 24 * time.Hour
	// maxTLSHosts bounds the hosts that are remembered, at about 200 bytes each.
	maxTLSHosts = 10_000
	// tlsSaveEvery is how often Run saves them.
	tlsSaveEvery = time.Minute
)

// A tlsHost is what is remembered of a host that has had TLS.
type tlsHost struct {
	Since time.Time `json:"since"`          // the first connection of a run of none but TLS
	Last  time.Time `json:"last"`           // the last one
	Lost  time.Time `json:"lost,omitzero"`  // when one without was first asked for since
	Clear time.Time `json:"clear,omitzero"` // when mail first went without
}

func (h tlsHost) proven() bool { return h.Last.Sub(h.Since) >= tlsProven }

// A tlsMemory remembers hosts by name, or by address where they have none. It is safe for
// concurrent use.
type tlsMemory struct {
	mu    sync.Mutex // guards the rest
	hosts map[string]tlsHost
	dirty bool // there is more than was saved
}

// secured notes a connection with TLS.
func (m *tlsMemory) secured(host string, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h, known := m.hosts[host]
	if !known {
		m.makeRoom()
	}
	if !known || !h.Clear.IsZero() || h.Since.After(now) {
		h.Since = now
	}
	m.hosts[host] = tlsHost{Since: h.Since, Last: now}
	m.dirty = true
}

// lost notes that a connection would have to do without TLS. It returns since when that is so if
// mail is to wait for that, the zero time if not.
func (m *tlsMemory) lost(host string, now time.Time) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	h, known := m.hosts[host]
	if !known || !h.proven() || !h.Clear.IsZero() {
		return time.Time{}
	}
	if h.Lost.IsZero() || h.Lost.After(now) {
		h.Lost = now
		m.hosts[host] = h
		m.dirty = true
	}
	if now.Sub(h.Lost) >= tlsPatience {
		return time.Time{}
	}
	return h.Lost
}

// cleared notes a connection in the clear. It reports whether that is news for the administrator.
func (m *tlsMemory) cleared(host string, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	h, known := m.hosts[host]
	if !known || h.proven() && !h.Clear.IsZero() && now.Sub(h.Clear) < tlsWarning {
		return false
	}
	m.dirty = true
	if !h.proven() || !h.Clear.IsZero() {
		delete(m.hosts, host)
		return false
	}
	h.Clear = now
	m.hosts[host] = h
	return true
}

// makeRoom forgets a tenth of the hosts when there are too many, those first that have nothing
// proven and were not met for the longest; m.mu is held.
func (m *tlsMemory) makeRoom() {
	if len(m.hosts) < maxTLSHosts {
		return
	}
	type worth struct {
		host string
		last int64
	}
	var all []worth
	for host, h := range m.hosts {
		last := h.Last.Unix()
		if h.proven() {
			last += 1 << 40 // later than any that is not
		}
		all = append(all, worth{host, last})
	}
	slices.SortFunc(all, func(a, b worth) int { return cmp.Compare(a.last, b.last) })
	for _, w := range all[:maxTLSHosts/10] {
		delete(m.hosts, w.host)
	}
}

// encode returns nil if nothing has changed since the last time.
func (m *tlsMemory) encode() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dirty {
		return nil
	}
	m.dirty = false
	data, err := json.Marshal(m.hosts)
	if err != nil {
		panic(err) // texts and times of our clock always have a JSON form
	}
	return data
}

// decode replaces what is remembered by what encode made. Times to come, of a clock that has been
// put right since, become now.
func (m *tlsMemory) decode(data []byte, now time.Time) error {
	hosts := map[string]tlsHost{}
	if err := json.Unmarshal(data, &hosts); err != nil {
		return err
	}
	if hosts == nil || len(hosts) > maxTLSHosts {
		return fmt.Errorf("it has %d hosts", len(hosts))
	}
	for name, h := range hosts {
		if h.Since.IsZero() || h.Last.Before(h.Since) || name == "" {
			return fmt.Errorf("what it says of %.255q cannot be", name)
		}
		for _, t := range []*time.Time{&h.Since, &h.Last, &h.Lost, &h.Clear} {
			if t.After(now) {
				*t = now
			}
		}
		hosts[name] = h
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hosts = hosts
	return nil
}

// hostKey is the name under which a host is remembered.
func (t target) hostKey() string {
	if t.name == "" {
		return t.addr.Addr().String()
	}
	return strings.ToLower(t.name)
}

// forgo returns nil if mail may go to t without TLS, and else the reply that defers it.
func (c *Client) forgo(t target, why error) error {
	lost := c.secure.lost(t.hostKey(), c.opt.Now())
	if lost.IsZero() {
		return nil
	}
	return reply.New(451, "4.7.5", "%s has had TLS for long and has none now: mail waits until %s for it to come back",
		t, lost.Add(tlsPatience).UTC().Format(time.RFC3339)).Because(why)
}

// remember notes how a new connection is protected, which is more than the demand of one in the
// clear could say where TLS was not wanted.
func (c *Client) remember(s *session) {
	now := c.opt.Now()
	switch {
	case s.tls.Version != "":
		c.secure.secured(s.peer.hostKey(), now)
	case s.demand.level != noTLS && c.secure.cleared(s.peer.hostKey(), now):
		c.opt.Log.Warn("a host that has had TLS for long has none any more: mail for it goes in the clear", "host", s.peer.String())
	}
}

// Warnings are what the administrator should know, each in a sentence or two: the hosts that mail has
// gone to in the clear during the last week although they used to have TLS, and who takes no mail
// over IPv6.
func (c *Client) Warnings() []string {
	return slices.Concat(c.foreignSources(), c.clearHosts(), c.sixes.warnings(c.opt.Now()))
}

func (c *Client) clearHosts() []string {
	c.secure.mu.Lock()
	defer c.secure.mu.Unlock()
	var all []string
	for name, h := range c.secure.hosts {
		if !h.Clear.IsZero() && c.opt.Now().Sub(h.Clear) < tlsWarning {
			all = append(all, fmt.Sprintf("%s used to have TLS; since %s mail goes there in the clear (outbound.tls can demand TLS)", name, h.Clear.UTC().Format(time.RFC3339)))
		}
	}
	slices.Sort(all)
	return all
}

// Run saves what is known of hosts that have had TLS, at most once a minute, until ctx ends. Without
// it only Close does, which is to be called after its end.
func (c *Client) Run(ctx context.Context) {
	tasks.Every(ctx, tlsSaveEvery, c.saveHosts)
}

func (c *Client) saveHosts() {
	if c.opt.TLS.Save == nil {
		return
	}
	data := c.secure.encode()
	if data == nil {
		return
	}
	if err := c.opt.TLS.Save(data); err != nil {
		c.secure.mu.Lock()
		c.secure.dirty = true
		c.secure.mu.Unlock()
		c.opt.Log.Warn("what is known of hosts with TLS was not saved", "error", err.Error())
	}
}

func (c *Client) loadHosts() {
	if c.opt.TLS.Load == nil {
		return
	}
	data, err := c.opt.TLS.Load()
	if err == nil && data != nil {
		err = c.secure.decode(data, c.opt.Now())
	}
	if err != nil {
		c.opt.Log.Warn("which hosts have had TLS is forgotten", "error", err.Error())
	}
}
