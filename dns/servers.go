package dns

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	sickTime  = 30 * time.Second // how long a server that is silent stands behind the others
	sickAfter = 2                // silences in a row: a single one may be the fault of the name
	checkTime = 5 * time.Second  // how often resolv.conf is looked at
)

// servers knows whom to ask, in which order. The order is the administrator's, since the first
// may be the one that validates, or that block lists answer; a server that falls silent goes
// behind the others for a while, so that its timeout is not paid for by every lookup. Safe for concurrent use.
type servers struct {
	path string // of resolv.conf; "" when the list is fixed

	mu      sync.Mutex // guards the rest
	list    []string
	silent  map[string]silence
	checked time.Time
	modTime time.Time
	size    int64
}

// A silence is what is held against a server.
type silence struct {
	times int       // in a row
	until time.Time // when it gets its place back
}

func newServers(list []string, resolvConf string) *servers {
	s := &servers{silent: map[string]silence{}}
	if len(list) == 0 {
		// With nothing to read, resolv.conf(5) has the server on this host.
		s.path, s.list = resolvConf, []string{"127.0.0.1:53"}
		return s
	}
	for _, server := range list {
		s.list = append(s.list, withPort(server, "53"))
	}
	return s
}

// withPort adds the port to a bare IP address.
func withPort(server, port string) string {
	if _, err := netip.ParseAddr(server); err == nil {
		return net.JoinHostPort(server, port)
	}
	return server
}

// order returns the servers, those that are well first.
func (s *servers) order(now time.Time) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.path != "" && (s.checked.IsZero() || now.Sub(s.checked) >= checkTime) {
		s.checked = now
		s.reread()
	}
	list := slices.Clone(s.list)
	slices.SortStableFunc(list, func(a, b string) int {
		sickA, sickB := now.Before(s.silent[a].until), now.Before(s.silent[b].until)
		switch {
		case sickA == sickB:
			return 0
		case sickB:
			return -1
		}
		return 1
	})
	return list
}

// reread takes resolv.conf over if it changed; one that cannot be read leaves the last list.
func (s *servers) reread() {
	info, err := os.Stat(s.path)
	if err != nil || info.ModTime().Equal(s.modTime) && info.Size() == s.size {
		return
	}
	conf, err := dns.ClientConfigFromFile(s.path)
	if err != nil || len(conf.Servers) == 0 {
		return
	}
	s.modTime, s.size = info.ModTime(), info.Size()
	s.list = nil
	s.silent = map[string]silence{}
	for _, server := range conf.Servers {
		s.list = append(s.list, net.JoinHostPort(server, conf.Port))
	}
}

// failed counts a silence of server.
func (s *servers) failed(server string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.silent[server]
	if state.times++; state.times >= sickAfter {
		state.until = now.Add(sickTime)
	}
	s.silent[server] = state
}

// answered puts server back in its place.
func (s *servers) answered(server string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.silent, server)
}

// Servers are whom the resolver asks, as "ip:port", those that are well first.
func (r *Resolver) Servers() []string { return r.servers.order(r.now()) }
