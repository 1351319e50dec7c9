// Package checkup is one look at everything that mail of a relay depends on: its settings and files, the
// daemon, ports, certificates, DNS, and the way out. It knows which of the doctor's questions follow
// from the settings. Nothing is changed, and no mail is sent.
package checkup

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"relayd/config"
	"relayd/control"
	"relayd/delivery"
	"relayd/dns"
	"relayd/doctor"
	"relayd/domains"
	"relayd/problem"
	"relayd/relay"
	"relayd/rights"
)

// GmailMX is where mail for most people goes.
const GmailMX = "gmail-smtp-in.l.google.com"

// Time is what a checkup may take.
const Time = 55 * time.Second

// beginTime is what New may take of it.
const beginTime = 12 * time.Second

// Options are what a Checkup looks at.
type Options struct {
	Config   *config.Config
	Domains  *domains.Set  // as their files stand
	Resolver *dns.Resolver // that of the settings
	Target   string        // the mail server that a delivery is rehearsed with, such as GmailMX
}

// A Checkup is one look at a relay. It is to be closed.
type Checkup struct {
	conf     *config.Config
	domains  *domains.Set
	resolver *dns.Resolver
	target   string

	doctor *doctor.Doctor
	client *delivery.Client // makes no delivery
	web    *http.Client
	ours   []netip.Addr
	status *control.Status // nil where no daemon answers
	down   error           // why it does not
}

// New begins a checkup, in 12 seconds at most: it finds out which addresses the server has, and whether
// relayd runs.
func New(ctx context.Context, opt Options) *Checkup {
	conf := opt.Config
	c := &Checkup{conf: conf, domains: opt.Domains, resolver: opt.Resolver, target: opt.Target}
	c.web = &http.Client{Transport: &http.Transport{DialContext: c.dial, DisableKeepAlives: true}}
	c.client = delivery.New(delivery.Options{
		Hostname: conf.Hostname, Port: conf.Outbound.Port, Family: conf.Outbound.IP, Resolver: opt.Resolver, Times: delivery.DefaultTimes(),
		SourceIPv4: conf.Outbound.SourceIPv4, SourceIPv6: conf.Outbound.SourceIPv6,
	})
	c.doctor = doctor.New(doctor.Options{
		Resolver: opt.Resolver, Addresses: doctor.Leaving(conf.Outbound.SourceIPv4, conf.Outbound.SourceIPv6), Rehearse: c.client.RehearseMX,
	})
	ctx, cancel := context.WithTimeout(ctx, beginTime)
	defer cancel()
	c.ours = c.doctor.Addresses(ctx, conf.Hostname)
	if s, err := control.NewClient(conf.ControlSocket()).Status(ctx); err != nil {
		c.down = err
	} else {
		c.status = &s
	}
	return c
}

// Close ends what a checkup holds open.
func (c *Checkup) Close() { c.client.Close() }

// Addresses are those that the server has, as the world sees it.
func (c *Checkup) Addresses() []netip.Addr { return c.ours }

// Runs reports whether relayd answers.
func (c *Checkup) Runs() bool { return c.status != nil }

// CheckRecords looks at the records of one domain and tells of each.
func (c *Checkup) CheckRecords(ctx context.Context, site doctor.Site) []doctor.Finding {
	return c.doctor.CheckRecords(ctx, site)
}

// dial connects as the rest does, by the resolver of the settings.
func (c *Checkup) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	ans, err := c.resolver.IP(ctx, host, "ip")
	if err != nil {
		return nil, err
	}
	var conn net.Conn
	for _, ip := range slices.Backward(ans.Records) { // IPv4, which more machines have, stands last
		if conn, err = new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(ip.String(), port)); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

// Checks are all that there is to look at: each finds out about one thing, and none changes anything.
func (c *Checkup) Checks() []doctor.Check {
	type found = []doctor.Finding
	list := []doctor.Check{
		{Name: "settings", Run: func(context.Context) found { return c.settings() }},
		{Name: "rights of files", Run: func(context.Context) found { return doctor.CheckFiles(c.conf.StateDir, rights.Places(c.conf)) }},
		{Name: "disk", Run: func(context.Context) found { return doctor.CheckDisk(c.conf.StateDir) }},
		{Name: "relayd", Run: func(context.Context) found { return c.daemon() }},
		{Name: "ports", Run: c.ports},
		{Name: "certificates", Run: c.certificates},
		{Name: "resolver", Run: func(ctx context.Context) found { return c.doctor.CheckResolver(ctx, c.trusted()) }},
		{Name: "clock", Run: func(ctx context.Context) found {
			return found{c.doctor.CheckClock(ctx, c.web, c.conf.ACME.Directory)}
		}},
		{Name: "reverse DNS", Run: func(ctx context.Context) found { return c.doctor.CheckReverse(ctx, c.conf.Hostname, c.ours) }},
		{Name: "port 25 outwards", Run: func(ctx context.Context) found { return c.doctor.CheckPort25(ctx, c.probe()) }},
	}
	for _, b := range doctor.BlockLists() {
		list = append(list, doctor.Check{Name: "block list " + b.Zone, Run: func(ctx context.Context) found {
			return found{c.doctor.CheckBlockList(ctx, b, c.ours)}
		}})
	}
	for _, fixed := range relay.FixedWays(c.conf) {
		list = append(list, doctor.Check{Name: fixed.Key, Run: func(ctx context.Context) found { return found{c.way(ctx, fixed)} }})
	}
	for _, d := range c.domains.All() {
		list = append(list, doctor.Check{Name: "records of " + d.Name, Run: func(ctx context.Context) found { return c.records(ctx, d) }})
	}
	return list
}

// settings says what is wrong with the files of the domains, unless a daemon does, which knows which
// of them are in force.
func (c *Checkup) settings() []doctor.Finding {
	if len(c.domains.All()) == 0 {
		return []doctor.Finding{{Status: doctor.Fail, Subject: "settings", Text: "no domain is hosted", Do: "relay-util domain-add DOMAIN"}}
	}
	var found []doctor.Finding
	if list := broken(c.domains); len(list) > 0 && c.status == nil {
		found = Complaints(list, "mend it: mail for the domain is put off until then, unless an older version is in force")
	} else {
		found = append(found, doctor.Finding{
			Status: doctor.OK, Subject: "settings", Text: c.conf.File() + " and the files of " + count(len(c.domains.All())),
		})
	}
	if smart := c.conf.Outbound.Smarthost; !smart.IsZero() {
		found = append(found, doctor.Finding{
			Status: doctor.Info, Subject: "smarthost", Text: "mail leaves through " + smart.Addr() + ", whose servers the SPF record of each domain must name too",
			Do: "add the include: that its provider tells",
		})
	}
	return found
}

func (c *Checkup) daemon() []doctor.Finding {
	if c.status == nil {
		return []doctor.Finding{doctor.NoDaemon(c.down)}
	}
	s := *c.status
	told := rights.Check(c.conf) // which stands in a line of its own already
	s.Warnings = slices.DeleteFunc(slices.Clone(s.Warnings), func(p problem.Problem) bool { return slices.Contains(told, p) })
	return c.doctor.CheckDaemon(s)
}

func (c *Checkup) ports(ctx context.Context) []doctor.Finding {
	var running []string
	if c.status == nil && !errors.Is(c.down, control.ErrNotRunning) {
		return nil // it may be relayd that has them
	}
	if c.status != nil {
		running = []string{}
		for _, l := range c.status.Listeners {
			running = append(running, l.Service)
		}
	}
	listen := c.conf.Listen
	return c.doctor.CheckListeners(ctx, map[string][]string{
		"smtp": listen.SMTP, "submission": listen.Submission, "submissions": listen.Submissions, "http": listen.HTTP,
	}, running)
}

func (c *Checkup) trusted() bool {
	switch c.conf.DNS.Trusted {
	case config.TrustYes:
		return true
	case config.TrustNo:
		return false
	}
	return !slices.ContainsFunc(c.resolver.Servers(), func(server string) bool {
		ap, err := netip.ParseAddrPort(server)
		return err != nil || !ap.Addr().Unmap().IsLoopback()
	})
}

// probe is the rehearsal with the target. Where that is Gmail's, it is asked about a mailbox there to
// which mail is forwarded.
func (c *Checkup) probe() doctor.Probe {
	p := doctor.Probe{Target: c.target, Port: c.conf.Outbound.Port, Spare: !c.conf.Outbound.Smarthost.IsZero()}
	p.Network = map[string]string{config.IPv4: "ip4", config.IPv6: "ip6"}[c.conf.Outbound.IP]
	if c.target != GmailMX {
		return p
	}
	for _, d := range c.domains.All() {
		if d.Aliases == nil {
			continue
		}
		for _, rule := range d.Aliases.Rules() {
			for _, target := range rule.Targets {
				if target.Address.Domain == "gmail.com" && p.Recipient == "" && target.Address.ASCII() {
					p.Recipient = target.Address.String()
				}
			}
		}
	}
	return p
}

// way rehearses one of the ways that the settings name.
func (c *Checkup) way(ctx context.Context, fixed relay.Fixed) doctor.Finding {
	subject := fixed.Key + " " + strings.Join(fixed.Route.Hosts, ", ")
	return doctor.CheckWay(ctx, subject, func(ctx context.Context) error {
		_, err := c.client.Rehearse(ctx, fixed.Route)
		return err
	})
}

// records looks at those of a domain, and says nothing of what is right in many words.
func (c *Checkup) records(ctx context.Context, d *domains.Domain) []doctor.Finding {
	if d.Broken != nil {
		return nil // it is told of already
	}
	site := Site(c.conf, d)
	site.Addresses = c.ours
	list := c.doctor.CheckRecords(ctx, site)
	found := slices.DeleteFunc(slices.Clone(list), func(f doctor.Finding) bool {
		return f.Status == doctor.OK || f.Type == "PTR" // which is the same for all domains
	})
	if len(found) == 0 {
		found = append(found, doctor.Finding{Status: doctor.OK, Subject: "records of " + d.Name, Text: "all are right"})
		found = append(found, doctor.DMARCAdvice(d.Name, list)...)
		found = append(found, c.doctor.CheckSTS(ctx, c.web, d.Name)...)
	}
	return found
}

// Complaints are findings about files that cannot be used as they stand, with what to do.
func Complaints(list problem.List, do string) []doctor.Finding {
	var found []doctor.Finding
	for _, p := range list {
		found = append(found, doctor.Finding{Status: doctor.Fail, Subject: "settings", Text: p.String(), Do: do})
	}
	return found
}

// broken is everything that keeps the files of some domains from being used.
func broken(set *domains.Set) (problems problem.List) {
	for _, d := range set.All() {
		problems = append(problems, d.Broken...)
	}
	return problems
}

func count(domains int) string {
	if domains == 1 {
		return "1 domain"
	}
	return fmt.Sprintf("%d domains", domains)
}
