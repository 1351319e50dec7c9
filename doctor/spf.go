package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	mdns "github.com/miekg/dns"

	"relayd/address"
	"relayd/dns"
	"relayd/mailauth"
	"relayd/message"
)

// Limits of RFC 7208 section 4.6.4.
const (
	maxLookups = 10
	maxVoids   = 2
)

func isSPF(text string) bool {
	version, _, _ := strings.Cut(text, " ")
	return strings.EqualFold(version, "v=spf1")
}

// checkSPF looks at the SPF record of a name in which mail leaves, and at whether it lets the server.
func (d *Doctor) checkSPF(ctx context.Context, s Site, r Record) []Finding {
	list, err := d.lookup(ctx, r.Name, mdns.TypeTXT)
	if err != nil {
		return []Finding{r.unknown(err)}
	}
	f := agreed(list, func(a answer) Finding { return d.judgeSPF(ctx, s, r, a) })
	policies := slices.DeleteFunc(list[0].texts(), func(text string) bool { return !isSPF(text) })
	if len(policies) != 1 {
		return []Finding{f}
	}
	return append([]Finding{f}, d.countLookups(ctx, r, policies[0])...)
}

func (d *Doctor) judgeSPF(ctx context.Context, s Site, r Record, a answer) Finding {
	policies := slices.DeleteFunc(a.texts(), func(text string) bool { return !isSPF(text) })
	switch {
	case len(policies) == 0:
		return r.missing(a)
	case len(policies) > 1:
		return r.about(Fail, a, "there are %d SPF records, so none of them counts", len(policies)).
			do("put one in their place: %s TXT %s", r.Name, mergeSPF(r.Value, policies...))
	}
	policy := policies[0]
	f := r.about(OK, a, "%s", policy)
	f.Found = []string{plain(policy)}
	change := func(format string, args ...any) Finding {
		f.Status, f.Text = Fail, plain(fmt.Sprintf(format, args...))
		f.Value = mergeSPF(r.Value, policy)
		return f.do("change it to %s TXT %s", r.Name, f.Value)
	}
	for term := range strings.FieldsSeq(strings.ToLower(policy)) {
		if term == "all" || term == "+all" {
			return change("%q lets everybody send for %s", term, r.Name)
		}
	}
	for _, ip := range s.Addresses {
		switch result := d.evaluate(ctx, s, r, ip, policy); result.Result {
		case mailauth.Pass:
		case mailauth.TempError:
			f.Status, f.Text = Warn, plain(fmt.Sprintf("whether it lets %s is not known: %v", ip, result.Err))
			return f.do("look again later")
		case mailauth.PermError:
			// Without the merged record: what is wrong may be in it.
			f.Status, f.Text = Fail, plain(fmt.Sprintf("%q cannot be evaluated: %v", policy, result.Err))
			return f.do("mend it; what this server needs is %s", r.Value)
		default:
			return change("%q does not let this server (%s) send for %s: %s", policy, ip, r.Name, result.Result)
		}
	}
	return f
}

// evaluate asks what a receiver makes of mail from one of our addresses. Of the names of the site
// the authoritative servers tell; this policy is what the name has.
func (d *Doctor) evaluate(ctx context.Context, s Site, r Record, ip netip.Addr, policy string) mailauth.SPF {
	checker := mailauth.New(mailauth.Options{
		Resolver: fresh{d.opt.Resolver, d, map[string]string{r.Name: policy}, []string{s.Domain, s.Hostname, s.SRSDomain}},
		Hostname: s.Hostname, Now: d.opt.Now,
	})
	sender := address.Address{Local: "postmaster", Domain: r.Name}
	verdict, err := checker.Check(ctx, mailauth.Message{IP: ip, Helo: s.Hostname, Sender: sender, Header: message.Header{}, Text: strings.NewReader("\r\n")})
	if err != nil {
		return mailauth.SPF{Domain: r.Name, Result: mailauth.TempError, Err: err}
	}
	return verdict.SPF
}

// fresh is a Resolver to which the authoritative servers tell about some names.
type fresh struct {
	Resolver
	d        *Doctor
	policies map[string]string // SPF records by name
	names    []string
}

func (f fresh) TXT(ctx context.Context, name string) ([]string, error) {
	if policy, ok := f.policies[bare(name)]; ok {
		return []string{policy}, nil
	}
	return f.Resolver.TXT(ctx, name)
}

func (f fresh) MX(ctx context.Context, name string) (dns.Answer[dns.MX], error) {
	if !slices.Contains(f.names, bare(name)) {
		return f.Resolver.MX(ctx, name)
	}
	a, err := f.d.one(ctx, name, mdns.TypeMX)
	if err := absence(a, err, name, "MX"); err != nil {
		return dns.Answer[dns.MX]{}, err
	}
	ans := dns.Answer[dns.MX]{Name: bare(name)}
	for _, mx := range a.mx() {
		ans.Records = append(ans.Records, dns.MX{Host: bare(mx.Mx), Preference: mx.Preference})
	}
	return ans, nil
}

func (f fresh) IP(ctx context.Context, host, network string) (dns.Answer[netip.Addr], error) {
	if network == "ip" || !slices.Contains(f.names, bare(host)) {
		return f.Resolver.IP(ctx, host, network)
	}
	typ := map[string]uint16{"ip4": mdns.TypeA, "ip6": mdns.TypeAAAA}[network]
	a, err := f.d.one(ctx, host, typ)
	if err := absence(a, err, host, mdns.TypeToString[typ]); err != nil {
		return dns.Answer[netip.Addr]{}, err
	}
	return dns.Answer[netip.Addr]{Records: addresses(a), Name: bare(host)}, nil
}

// absence is the error of an answer that has nothing.
func absence(a answer, err error, name, typ string) error {
	switch {
	case err != nil:
		return &dns.Error{Name: bare(name), Type: typ, Kind: dns.Temporary, Cause: err}
	case !a.exists:
		return &dns.Error{Name: bare(name), Type: typ, Kind: dns.NotExist}
	case len(a.records) == 0:
		return &dns.Error{Name: bare(name), Type: typ, Kind: dns.NoData}
	}
	return nil
}

// mergeSPF puts what is wanted into the SPF records that there are already: all their terms, each once,
// ours in front, and at the end the mildest of their "all".
func mergeSPF(want string, policies ...string) string {
	var terms []string
	redirect, all := "", ""
	for i, policy := range append([]string{want}, policies...) {
		for _, term := range strings.Fields(policy)[1:] {
			term = strings.TrimLeft(term, "+") // which says what is meant without it, or is a slip
			lower := strings.ToLower(term)
			switch {
			case term == "":
			case strings.TrimLeft(lower, "+-~?") == "all":
				// Ours counts only where they have none, and nobody keeps one that lets everybody.
				if i > 0 && (all == "" || milder(lower, all)) && lower != "all" {
					all = lower
				}
			case strings.HasPrefix(lower, "redirect="):
				redirect = term
			case !slices.ContainsFunc(terms, func(t string) bool { return strings.EqualFold(t, term) }):
				terms = append(terms, term)
			}
		}
	}
	switch {
	case all == "" && redirect != "":
		terms = append(terms, redirect)
	case all == "":
		fields := strings.Fields(want)
		terms = append(terms, fields[len(fields)-1])
	default:
		terms = append(terms, all)
	}
	return "v=spf1 " + strings.Join(terms, " ")
}

func milder(a, b string) bool { return strings.IndexByte("-~?", a[0]) > strings.IndexByte("-~?", b[0]) }
