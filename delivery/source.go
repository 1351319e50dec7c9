package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"relayd/dns"
)

const (
	// sourceEvery is how often our IPv6 address is looked at.
	sourceEvery = 24 * time.Hour
	// sourceAgain is when that is repeated if DNS did not answer.
	sourceAgain = 10 * time.Minute
	// sourceTime is what one look may take.
	sourceTime = time.Minute
)

// A Source finds out whether mail can well leave over IPv6: the address that it would leave from
// has a PTR record, and that name leads back to it. Gmail and others take no mail over IPv6 without
// (RFC 8501 tells why). It is safe for concurrent use.
type Source struct {
	opt SourceOptions

	mu    sync.Mutex // guards the rest
	good  bool
	state string
	at    time.Time // when state was last found to be so; zero: never looked
}

// SourceOptions are a Source's. PTR and IP are those of *dns.Resolver.
type SourceOptions struct {
	PTR func(ctx context.Context, ip netip.Addr) ([]string, error)
	IP  func(ctx context.Context, host, network string) (dns.Answer[netip.Addr], error)
	// Address is where mail leaves from by the settings; the zero Addr: from Local.
	Address netip.Addr
	// Local is the address from which something sent to the world would leave; nil: what the system
	// would choose.
	Local func() (netip.Addr, error)
	Log   *slog.Logger
	Now   func() time.Time // nil: time.Now
}

// NewSource makes a Source that knows nothing until Run.
func NewSource(opt SourceOptions) *Source {
	if opt.Local == nil {
		opt.Local = localIPv6
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	return &Source{opt: opt, state: "not looked at yet"}
}

// Run looks at once and then every day, until ctx ends. As long as DNS does not answer, what was
// found last stands.
func (s *Source) Run(ctx context.Context) {
	for {
		wait := sourceEvery
		if err := s.look(ctx); err != nil {
			wait = sourceAgain
			s.opt.Log.Info("whether our IPv6 address has reverse DNS is not known", "error", err.Error())
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// String is for the admin: whether IPv6 comes first, else why not, and how old the news is.
func (s *Source) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at.IsZero() {
		return s.found()
	}
	return s.found() + " (checked " + ago(s.opt.Now().Sub(s.at)) + ")"
}

// found is String without the time. The caller holds mu.
func (s *Source) found() string {
	if s.good {
		return "used first: " + s.state
	}
	return "used only where IPv4 fails: " + s.state
}

// ago says how long ago something was.
func ago(d time.Duration) string {
	switch {
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours ago", int(d.Hours()))
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d minutes ago", int(d.Minutes()))
	}
	return "just now"
}

// isGood reports whether IPv6 comes first. A nil Source is not.
func (s *Source) isGood() bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.good
}

// look finds out. An error is one of DNS, that may be gone soon.
func (s *Source) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sourceTime)
	defer cancel()
	ip, err := s.address()
	if err != nil {
		s.note(false, err.Error())
		return nil
	}
	name, err := s.confirmed(ctx, ip)
	switch {
	case err != nil:
		return fmt.Errorf("reverse DNS of %s: %w", ip, err)
	case name == "":
		s.note(false, ip.String()+" has no reverse DNS: its PTR record must give a name whose AAAA record leads back to it")
	default:
		s.note(true, ip.String()+" is "+name)
	}
	return nil
}

// address is the one that mail leaves from. An error is for the admin.
func (s *Source) address() (netip.Addr, error) {
	if s.opt.Address.IsValid() {
		return s.opt.Address, checkSource(s.opt.Address)
	}
	ip, err := s.opt.Local()
	if err != nil {
		return ip, errors.New("this machine has no IPv6 address of the world's")
	}
	return ip, nil
}

func (s *Source) note(good bool, state string) {
	s.mu.Lock()
	news := state != s.state
	s.good, s.state, s.at = good, state, s.opt.Now()
	found := s.found()
	s.mu.Unlock()
	if news {
		s.opt.Log.Info("IPv6 is " + found)
	}
}

// maxNames bounds the names of one address that are looked at.
const maxNames = 10

// confirmed is the first name of ip that leads back to it; "" if none does.
func (s *Source) confirmed(ctx context.Context, ip netip.Addr) (string, error) {
	names, err := s.opt.PTR(ctx, ip)
	if isAbsent(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var unanswered error
	for _, name := range names[:min(len(names), maxNames)] {
		answer, err := s.opt.IP(ctx, name, "ip6")
		switch {
		case err == nil && slices.Contains(answer.Records, ip):
			return strings.TrimSuffix(name, "."), nil
		case err != nil && !isAbsent(err):
			unanswered = err
		}
	}
	return "", unanswered
}

// isAbsent reports whether DNS has answered that there is nothing.
func isAbsent(err error) bool {
	return errors.Is(err, dns.ErrNotExist) || errors.Is(err, dns.ErrNoData)
}

// localIPv6 asks the system: to connect a UDP socket sends nothing.
func localIPv6() (netip.Addr, error) {
	conn, err := net.Dial("udp6", "[2001:4860:4860::8888]:25")
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	here, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return netip.Addr{}, err
	}
	if ip := here.Addr().Unmap().WithZone(""); ip.Is6() && ip.IsGlobalUnicast() && !ip.IsPrivate() {
		return ip, nil
	}
	return netip.Addr{}, errors.New("no global address")
}
