package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"

	mdns "github.com/miekg/dns"
)

// maxServers bounds the name servers of a zone that are asked.
const maxServers = 8

// A zone is a part of the tree with its servers.
type zone struct {
	name    string
	good    []nameserver // that answer with authority
	closed  bool         // none of them can be reached from here: the resolver is asked instead
	err     error        // why the zone is not known
	trouble []Finding
	ready   chan struct{} // closed when the fields above are set
}

// A nameserver is a server of a zone at one of its addresses.
type nameserver struct {
	name string
	ip   netip.Addr
}

func (s nameserver) String() string { return fmt.Sprintf("%s (%s)", s.name, s.ip) }

// zoneOf finds the zone that a name is in by walking up to where NS records stand. Where there are none,
// as inside of a network that has names of its own, the resolver's word counts.
func (d *Doctor) zoneOf(ctx context.Context, name string) *zone {
	top := bare(name)
	for n := top; strings.Contains(n, "."); {
		if z := d.zoneAt(ctx, n); z != nil {
			return z
		}
		top = n
		_, n, _ = strings.Cut(n, ".")
	}
	f := finding(Warn, "name servers of "+top, "no NS records were found: the resolver was asked, which may know more than the world does")
	return &zone{name: top, closed: true, trouble: []Finding{f.do("see that the domain is registered, and delegated to name servers")}}
}

// zoneAt is the zone that begins at a name, nil if none does there. It is looked for once.
func (d *Doctor) zoneAt(ctx context.Context, name string) *zone {
	d.mu.Lock()
	z, known := d.zones[name]
	if !known {
		z = &zone{ready: make(chan struct{})}
		d.zones[name] = z
	}
	d.mu.Unlock()
	if !known {
		d.findZone(ctx, z, name)
		close(z.ready)
	}
	<-z.ready // whoever looks for it ends with a context of the same look around
	if z.name == "" {
		return nil
	}
	return z
}

func (d *Doctor) findZone(ctx context.Context, z *zone, name string) {
	q := query{name: name, typ: mdns.TypeNS}
	resp, server, err := d.recursive(ctx, q)
	if err != nil {
		z.name, z.err = name, fmt.Errorf("no resolver knows its name servers: %w", err)
		return
	}
	ns := newAnswer(resp, server, q)
	if ns.alias != "" || len(ns.records) == 0 {
		return
	}
	z.name = name
	servers := make([]string, 0, len(ns.records))
	for _, rr := range ns.records {
		servers = append(servers, bare(rr.(*mdns.NS).Ns))
	}
	d.meet(ctx, z, servers[:min(len(servers), maxServers)])
}

// meet asks each server of a zone whether it is one.
func (d *Doctor) meet(ctx context.Context, z *zone, servers []string) {
	outcomes := make([]outcome, len(servers))
	var tasks sync.WaitGroup
	for i, name := range servers {
		tasks.Go(func() { outcomes[i] = d.greet(ctx, z.name, name) })
	}
	tasks.Wait()
	spoke := slices.ContainsFunc(outcomes, func(o outcome) bool { return o.spoke })
	z.closed = !spoke && slices.ContainsFunc(outcomes, func(o outcome) bool { return o.silent })
	for _, o := range outcomes {
		switch {
		case o.lame == "" && o.spoke:
			z.good = append(z.good, o.server)
		case o.unreachable, z.closed && o.silent:
		default:
			f := finding(Fail, "name servers of "+z.name, "%s is lame: %s", o.server.label(), o.lame)
			z.trouble = append(z.trouble, f.do("mend that server, or take it out of the NS records of %s and of its registration", z.name))
		}
	}
	if z.closed {
		f := finding(Warn, "name servers of "+z.name, "none of them answers: port 53 outwards seems to be closed, so the resolver was asked, which may remember what was before")
		z.trouble = append(z.trouble, f.do("look once more when the TTL of the records is over, or open port 53 outwards"))
	} else if len(z.good) == 0 && z.err == nil {
		z.err = errors.New("none of its name servers answers for it")
	}
}

// label is a server by its name where it has no address.
func (s nameserver) label() string {
	if !s.ip.IsValid() {
		return s.name
	}
	return s.String()
}

// An outcome is how a server took the question whether it is one of a zone.
type outcome struct {
	server      nameserver
	spoke       bool   // it answered something
	silent      bool   // it did not
	unreachable bool   // there is no way to it from here, as to IPv6 from a machine without
	lame        string // why it is no good; "" if it is
}

// greet asks a server of a zone by IPv4, or by IPv6 where there is no way by IPv4.
func (d *Doctor) greet(ctx context.Context, zone, name string) outcome {
	o := outcome{server: nameserver{name: name}, unreachable: true}
	var absent error
	for _, network := range []string{"ip4", "ip6"} {
		ans, err := d.opt.Resolver.IP(ctx, name, network)
		if err != nil {
			absent = err
			continue
		}
		o.server.ip = ans.Records[0]
		if d.meetAt(ctx, zone, &o); !o.unreachable {
			return o
		}
	}
	if !o.server.ip.IsValid() {
		o.unreachable, o.lame = false, "it has no address: "+absent.Error()
	}
	return o
}

// meetAt asks a server at its address.
func (d *Doctor) meetAt(ctx context.Context, zone string, o *outcome) {
	resp, err := d.ask(ctx, d.opt.Authority(o.server.ip), query{name: zone, typ: mdns.TypeSOA})
	o.unreachable = errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.EADDRNOTAVAIL)
	o.silent, o.spoke = err != nil, err == nil
	switch {
	case err != nil:
		o.lame = "it does not answer: " + brief(err).Error()
	case resp.Rcode != mdns.RcodeSuccess:
		o.lame = "it answers " + mdns.RcodeToString[resp.Rcode]
	case !resp.Authoritative:
		o.lame = "it is not authoritative for the zone"
	}
}

// lookup asks all servers of the zone that a name is in. It returns one answer, or several where they
// disagree; none without an error.
func (d *Doctor) lookup(ctx context.Context, name string, typ uint16) ([]answer, error) {
	q := query{name: bare(name), typ: typ}
	z := d.zoneOf(ctx, q.name)
	switch {
	case z.err != nil:
		return nil, z.err
	case z.closed:
		resp, server, err := d.recursive(ctx, q)
		if err != nil {
			return nil, err
		}
		return []answer{newAnswer(resp, "the resolver "+server, q)}, nil
	}
	answers := make([]*answer, len(z.good))
	errs := make([]error, len(z.good))
	var tasks sync.WaitGroup
	for i, server := range z.good {
		tasks.Go(func() { answers[i], errs[i] = d.question(ctx, server, q) })
	}
	tasks.Wait()
	var groups []answer
	for _, a := range answers {
		if a == nil {
			continue
		}
		if i := slices.IndexFunc(groups, a.same); i >= 0 {
			groups[i].servers = append(groups[i].servers, a.servers...)
		} else {
			groups = append(groups, *a)
		}
	}
	if len(groups) == 0 {
		return nil, errs[0]
	}
	return groups, nil
}

// question asks one server, and the resolver for what lies behind a CNAME that leads out of the zone.
func (d *Doctor) question(ctx context.Context, server nameserver, q query) (*answer, error) {
	resp, err := d.ask(ctx, d.opt.Authority(server.ip), q)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", server, brief(err))
	}
	if resp.Rcode != mdns.RcodeSuccess && resp.Rcode != mdns.RcodeNameError {
		return nil, fmt.Errorf("%s answers %s", server, mdns.RcodeToString[resp.Rcode])
	}
	a := newAnswer(resp, server.String(), q)
	if a.alias == "" || len(a.records) > 0 {
		return &a, nil
	}
	beyond := query{name: a.alias, typ: q.typ}
	resp, from, err := d.recursive(ctx, beyond)
	if err != nil {
		return nil, err
	}
	a.records = newAnswer(resp, from, beyond).records
	return &a, nil
}

// one asks as lookup does and passes over that servers may disagree.
func (d *Doctor) one(ctx context.Context, name string, typ uint16) (answer, error) {
	list, err := d.lookup(ctx, name, typ)
	if err != nil {
		return answer{}, err
	}
	return list[0], nil
}
