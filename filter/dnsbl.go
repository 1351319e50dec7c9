package filter

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"relayd/dns"
	"relayd/tasks"
)

const (
	// listTime is how long all lists together have for one client.
	listTime = 5 * time.Second
	// silentTime is how long a list that took all that time is left alone.
	silentTime = time.Minute
	// maxReason is how much of a list's reason is passed on, in octets.
	maxReason = 150
)

// A Listing is the entry of a client in a list.
type Listing struct {
	List   string // its name
	Reason string // what the list gives for it, printable ASCII of 150 octets at most; "" if nothing
}

// lists remember which lists gave no answer.
type lists struct {
	mu     sync.Mutex
	silent map[string]time.Time // until when each is left alone, by zone
}

// Listed asks all lists about a client at once, for 5 seconds at most, and returns the first entry
// that turns up; nil where there is none or DNS does not say so. A private address is in no list.
func (f *Filter) Listed(ctx context.Context, ip netip.Addr) *Listing {
	ip = ip.Unmap().WithZone("")
	if len(f.opt.DNSBL) == 0 || !ip.IsGlobalUnicast() || ip.IsPrivate() {
		return nil
	}
	asking, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	found := make(chan *Listing, len(f.opt.DNSBL))
	var asked tasks.Group
	for _, zone := range f.opt.DNSBL {
		asked.Go(func() {
			if l := f.look(asking, zone, ip); l != nil {
				found <- l
				cancel()
			}
		})
	}
	asked.Wait()
	select {
	case l := <-found:
		f.counts.dnsbl.Add(1)
		return l
	default:
		return nil
	}
}

// look asks one list.
func (f *Filter) look(ctx context.Context, zone string, ip netip.Addr) *Listing {
	if !f.lists.speaks(zone, f.opt.Now()) {
		return nil
	}
	listed, err := f.entry(ctx, zone, ip)
	switch {
	case errors.Is(context.Cause(ctx), context.Canceled): // another list has answered, or relayd goes down
		return nil
	case err != nil:
		if ctx.Err() != nil {
			f.lists.silence(zone, f.opt.Now().Add(silentTime))
		}
		f.troubles.note(shown(zone), "nobody is refused because of it: "+clean(err.Error(), maxCause), f.opt.Now())
		return nil
	}
	f.troubles.clear(shown(zone))
	if !listed {
		return nil
	}
	l := &Listing{List: shown(zone)}
	// A reason is nice to have, so what goes wrong with it is no trouble.
	if texts, _ := f.opt.Resolver.TXT(ctx, reversed(ip)+"."+zone); len(texts) > 0 {
		l.Reason = clean(texts[0], maxReason)
	}
	return l
}

// localhost is in no list (RFC 5782 section 5): one that has it is dead and lists the whole world.
var localhost = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// entry reports whether a list has an entry for ip. An error says why it is not known.
func (f *Filter) entry(ctx context.Context, zone string, ip netip.Addr) (bool, error) {
	listed, err := f.ask(ctx, zone, ip)
	if !listed || err != nil {
		return false, err
	}
	if everybody, _ := f.ask(ctx, zone, localhost); everybody {
		return false, errors.New("it lists 127.0.0.1, as lists do that have been given up: take it out of dnsbl")
	}
	return true, nil
}

func (f *Filter) ask(ctx context.Context, zone string, ip netip.Addr) (bool, error) {
	answer, err := f.opt.Resolver.IP(ctx, reversed(ip)+"."+zone, "ip4")
	switch {
	case errors.Is(err, dns.ErrNotExist), errors.Is(err, dns.ErrNoData):
		return false, nil
	case err != nil:
		// What it says has the name that was asked for in it, and that may have a key.
		return false, errors.New("DNS gives no answer")
	}
	for _, a := range answer.Records {
		if why := refusedUse(a); why != "" {
			return false, fmt.Errorf("it answers %s, which is no listing: %s", a, why)
		}
	}
	for _, a := range answer.Records {
		if a.IsLoopback() { // 127.0.0.0/8; any other address is a provider's idea of a missing name
			return true, nil
		}
	}
	return false, nil
}

// refusedUse is what an answer means by which a list refuses to be asked, "" for any other.
func refusedUse(a netip.Addr) string {
	b := a.As4()
	if [3]byte(b[:3]) != [3]byte{127, 255, 255} {
		return ""
	}
	switch b[3] {
	case 252:
		return "the name of the list is wrong, correct it in dnsbl"
	case 254:
		return "it is not for public or open resolvers, so set [dns] servers to one of your own, or use a key of theirs"
	case 255:
		return "we ask more than it allows, so ask them for a paid access or take it out of dnsbl"
	}
	return "it does not want to be asked like this, see its documentation"
}

// reversed is ip as it stands in front of a list's zone (RFC 5782 sections 2.1 and 2.4).
func reversed(ip netip.Addr) string {
	var parts []string
	for _, b := range ip.AsSlice() {
		if ip.Is4() {
			parts = append([]string{fmt.Sprint(b)}, parts...)
			continue
		}
		parts = append([]string{fmt.Sprintf("%x.%x", b&15, b>>4)}, parts...)
	}
	return strings.Join(parts, ".")
}

// shown is the name of a list for others to see: at Spamhaus a customer's key is its first label.
func shown(zone string) string {
	if _, rest, ok := strings.Cut(zone, "."); ok && strings.HasSuffix(rest, ".dq.spamhaus.net") {
		return rest
	}
	return zone
}

func (l *lists) speaks(zone string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := l.silent[zone].Sub(now)
	return left <= 0 || left > silentTime // else the clock was set back
}

func (l *lists) silence(zone string, until time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.silent[zone] = until
}
