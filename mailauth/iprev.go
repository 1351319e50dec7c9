package mailauth

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"relayd/address"
)

const (
	// iprevTime is how long reverse DNS is waited for: it only marks.
	iprevTime = 3 * time.Second
	// maxNames bounds the names of one address that are followed, as RFC 7208 section 4.6.4 does.
	maxNames = 10
)

// An IPRev is what reverse DNS says of the client (RFC 8601 section 3).
type IPRev struct {
	// Result is Pass, Fail where no name leads back to the address, PermError where it has none,
	// TempError, or None for an address that the world's DNS knows nothing of.
	Result Result
	Name   string // with Pass: a name of the client that leads back to it
}

// checkIPRev finds a name of the client by reverse DNS that leads back to it.
func checkIPRev(ctx context.Context, r Resolver, ip netip.Addr) IPRev {
	if !ip.IsGlobalUnicast() || ip.IsPrivate() {
		return IPRev{Result: None}
	}
	ctx, cancel := context.WithTimeout(ctx, iprevTime)
	defer cancel()
	names, err := r.PTR(ctx, ip)
	switch {
	case err != nil && !absent(err):
		return IPRev{Result: TempError}
	case len(names) == 0:
		return IPRev{Result: PermError}
	}
	network := "ip4"
	if ip.Is6() {
		network = "ip6"
	}
	result := Fail
	for _, name := range names[:min(len(names), maxNames)] {
		name, err := address.Domain(name)
		if err != nil || strings.HasPrefix(name, "[") {
			continue
		}
		addresses, err := r.IP(ctx, name, network)
		if slices.Contains(addresses.Records, ip) {
			return IPRev{Pass, name}
		}
		if err != nil && !absent(err) {
			result = TempError
		}
	}
	return IPRev{Result: result}
}

// iprevResult is the words of the result (RFC 8601 section 2.7.3).
func (v *Verdict) iprevResult() []string {
	return []string{"iprev=" + string(v.IPRev.Result), "policy.iprev=" + value(v.client.WithZone("").String())}
}
