package delivery

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relayd/dns"
)

var (
	ourIPv6    = netip.MustParseAddr("2001:db8::1")
	otherIPv6  = netip.MustParseAddr("2001:db8::2")
	errNoRoute = errors.New("network is unreachable")
)

// A zone is what DNS says of our address.
type zone struct {
	mu      sync.Mutex // guards ptrErr
	local   error
	names   []string
	ptrErr  error
	forward map[string][]netip.Addr
	fwdErr  error
}

func (z *zone) source() *Source {
	return NewSource(SourceOptions{
		Local: func() (netip.Addr, error) { return ourIPv6, z.local },
		PTR: func(context.Context, netip.Addr) ([]string, error) {
			z.mu.Lock()
			defer z.mu.Unlock()
			return z.names, z.ptrErr
		},
		IP: func(_ context.Context, host, _ string) (dns.Answer[netip.Addr], error) {
			if len(z.forward[host]) == 0 && z.fwdErr == nil {
				return dns.Answer[netip.Addr]{}, &dns.Error{Name: host, Kind: dns.NoData}
			}
			return dns.Answer[netip.Addr]{Records: z.forward[host]}, z.fwdErr
		},
		Log: slog.New(slog.DiscardHandler),
	})
}

func TestWhetherIPv6ComesFirst(t *testing.T) {
	const none = "used only where IPv4 fails: 2001:db8::1 has no reverse DNS: its PTR record must give a name whose AAAA record leads back to it"
	for name, c := range map[string]struct {
		zone *zone
		want string
	}{
		"confirmed":         {&zone{names: []string{"mx.example.org"}, forward: map[string][]netip.Addr{"mx.example.org": {otherIPv6, ourIPv6}}}, "used first: 2001:db8::1 is mx.example.org"},
		"by a second name":  {&zone{names: []string{"a.test", "b.test"}, forward: map[string][]netip.Addr{"b.test": {ourIPv6}}}, "used first: 2001:db8::1 is b.test"},
		"no IPv6":           {&zone{local: errNoRoute}, "used only where IPv4 fails: this machine has no IPv6 address of the world's"},
		"no PTR":            {&zone{ptrErr: &dns.Error{Kind: dns.NotExist}}, none},
		"PTR without names": {&zone{}, none},
		"leads elsewhere":   {&zone{names: []string{"mx.example.org"}, forward: map[string][]netip.Addr{"mx.example.org": {otherIPv6}}}, none},
		"leads nowhere":     {&zone{names: []string{"mx.example.org"}}, none},
		"DNS is down":       {&zone{ptrErr: &dns.Error{Kind: dns.Temporary}}, "used only where IPv4 fails: not looked at yet"},
		"forward is down":   {&zone{names: []string{"mx.example.org"}, fwdErr: &dns.Error{Kind: dns.Temporary}}, "used only where IPv4 fails: not looked at yet"},
	} {
		s := c.zone.source()
		err := s.look(t.Context())
		want := c.want
		if err == nil {
			want += " (checked just now)"
		}
		if got := s.String(); got != want || s.isGood() != (got[:10] == "used first") || (err != nil) != (name == "DNS is down" || name == "forward is down") {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	if (*Source)(nil).isGood() {
		t.Error("IPv6 comes first though nobody looks")
	}
}

// It is looked at every day; while DNS is down what was found stands, and it is asked again soon.
func TestSourceIsLookedAtDaily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := &zone{names: []string{"mx.example.org"}, forward: map[string][]netip.Addr{"mx.example.org": {ourIPv6}}}
		s := z.source()
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); s.Run(ctx) }()
		synctest.Wait()
		for _, step := range []struct {
			ptrErr error
			after  time.Duration
			good   bool
			told   string
		}{
			{nil, 0, true, "just now"},
			{&dns.Error{Kind: dns.Temporary}, 25 * time.Hour, true, "25 hours ago"},
			{&dns.Error{Kind: dns.NotExist}, 11 * time.Minute, false, "just now"},
			{nil, 23 * time.Hour, false, "23 hours ago"},
			{nil, 2 * time.Hour, true, "61 minutes ago"},
		} {
			z.mu.Lock()
			z.ptrErr = step.ptrErr
			z.mu.Unlock()
			time.Sleep(step.after)
			synctest.Wait()
			if s.isGood() != step.good || !strings.HasSuffix(s.String(), "(checked "+step.told+")") {
				t.Errorf("%v after %v: %s", step.ptrErr, step.after, s)
			}
		}
		stop()
		<-ended
	})
}

func TestLocalIPv6IsOfTheWorld(t *testing.T) {
	if ip, err := localIPv6(); err == nil && (!ip.Is6() || !ip.IsGlobalUnicast() || ip.IsPrivate()) {
		t.Errorf("%s", ip)
	}
}
