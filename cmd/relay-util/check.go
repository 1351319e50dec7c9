package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

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

// gmailMX is where mail for most people goes.
const gmailMX = "gmail-smtp-in.l.google.com"

// What a checkup may take, and what it begins with: which addresses the server has, and whether
// relayd runs.
const (
	checkupTime = 55 * time.Second
	beginTime   = 12 * time.Second
)

func (t *tool) checkup() *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "Look at everything that mail depends on, and say what to do.",
		Long: "Look at everything that mail depends on, and say what to do: settings, files, disk, ports, certificates, DNS,\n" +
			"reverse DNS, port 25 outwards, block lists, smarthosts, clock, queue, and the records of each domain.\n" +
			"Nothing is changed, and no mail is sent. Takes up to a minute. Exits with 1 if there is a FAIL.",
		Example: "relay-util check",
	}
	target := c.Flags().String("target", gmailMX, "rehearse a delivery with the mail server `HOST`")
	return t.verb(c, between(0, 0), func(ctx context.Context, _ []string) error {
		w, err := t.world()
		if list, ok := errors.AsType[problem.List](err); ok {
			return t.printFindings(complaints(list, "mend it: nothing else can be checked before"))
		}
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, checkupTime)
		defer cancel()
		p := t.progress(false) // the answer comes behind it
		e := newExamination(ctx, w, *target)
		defer e.client.Close()
		found := doctor.Run(ctx, e.checks(), func(done, total int) {
			if p.due() {
				p.show(fmt.Sprintf("%d of %d checks are done", done, total))
			}
		})
		p.clear()
		return t.printFindings(found)
	})
}

// complaints are findings about files that cannot be used as they stand.
func complaints(list problem.List, do string) []doctor.Finding {
	var found []doctor.Finding
	for _, p := range list {
		found = append(found, doctor.Finding{Status: doctor.Fail, Subject: "settings", Text: p.String(), Do: do})
	}
	return found
}

// An examination is one run of the verb check.
type examination struct {
	world
	doctor   *doctor.Doctor
	resolver *dns.Resolver
	client   *delivery.Client // makes no delivery
	web      *http.Client
	target   string
	ours     []netip.Addr
	status   *control.Status // nil where no daemon answers
	down     error           // why it does not
}

func newExamination(ctx context.Context, w world, target string) *examination {
	e := &examination{world: w, resolver: w.resolver(), target: target}
	e.web = &http.Client{Transport: &http.Transport{DialContext: e.dial, DisableKeepAlives: true}}
	e.client = delivery.New(delivery.Options{
		Hostname: e.Hostname, Port: e.Outbound.Port, Family: e.Outbound.IP, Resolver: e.resolver, Times: delivery.DefaultTimes(),
		SourceIPv4: e.Outbound.SourceIPv4, SourceIPv6: e.Outbound.SourceIPv6,
	})
	e.doctor = doctor.New(doctor.Options{
		Resolver: e.resolver, Addresses: doctor.Leaving(e.Outbound.SourceIPv4, e.Outbound.SourceIPv6), Rehearse: e.client.RehearseMX,
	})
	ctx, cancel := context.WithTimeout(ctx, beginTime)
	defer cancel()
	e.ours = e.doctor.Addresses(ctx, w.Hostname)
	if s, err := control.NewClient(w.ControlSocket()).Status(ctx); err != nil {
		e.down = err
	} else {
		e.status = &s
	}
	return e
}

// dial connects as the rest does, by the resolver of the settings.
func (e *examination) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	ans, err := e.resolver.IP(ctx, host, "ip")
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

func (e *examination) checks() []doctor.Check {
	type found = []doctor.Finding
	list := []doctor.Check{
		{Name: "settings", Run: func(context.Context) found { return e.settings() }},
		{Name: "rights of files", Run: func(context.Context) found { return doctor.CheckFiles(e.StateDir, rights.Places(e.Config)) }},
		{Name: "disk", Run: func(context.Context) found { return doctor.CheckDisk(e.StateDir) }},
		{Name: "relayd", Run: func(context.Context) found { return e.daemon() }},
		{Name: "ports", Run: e.ports},
		{Name: "certificates", Run: e.certificates},
		{Name: "resolver", Run: func(ctx context.Context) found { return e.doctor.CheckResolver(ctx, e.trusted()) }},
		{Name: "clock", Run: func(ctx context.Context) found {
			return found{e.doctor.CheckClock(ctx, e.web, e.ACME.Directory)}
		}},
		{Name: "reverse DNS", Run: func(ctx context.Context) found { return e.doctor.CheckReverse(ctx, e.Hostname, e.ours) }},
		{Name: "port 25 outwards", Run: func(ctx context.Context) found { return e.doctor.CheckPort25(ctx, e.probe()) }},
	}
	for _, b := range doctor.BlockLists() {
		list = append(list, doctor.Check{Name: "block list " + b.Zone, Run: func(ctx context.Context) found {
			return found{e.doctor.CheckBlockList(ctx, b, e.ours)}
		}})
	}
	for _, fixed := range relay.FixedWays(e.Config) {
		list = append(list, doctor.Check{Name: fixed.Key, Run: func(ctx context.Context) found { return found{e.way(ctx, fixed)} }})
	}
	for _, d := range e.All() {
		list = append(list, doctor.Check{Name: "records of " + d.Name, Run: func(ctx context.Context) found { return e.records(ctx, d) }})
	}
	return list
}

// settings says what is wrong with the files of the domains, unless a daemon does, which knows which
// of them are in force.
func (e *examination) settings() []doctor.Finding {
	if len(e.All()) == 0 {
		return []doctor.Finding{{Status: doctor.Fail, Subject: "settings", Text: "no domain is hosted", Do: "relay-util domain-add DOMAIN"}}
	}
	var found []doctor.Finding
	if list, ok := errors.AsType[problem.List](broken(e.All())); ok && e.status == nil {
		found = complaints(list, "mend it: mail for the domain is put off until then, unless an older version is in force")
	} else {
		found = append(found, doctor.Finding{
			Status: doctor.OK, Subject: "settings", Text: e.File() + " and the files of " + count(len(e.All()), "domain"),
		})
	}
	if smart := e.Outbound.Smarthost; !smart.IsZero() {
		found = append(found, doctor.Finding{
			Status: doctor.Info, Subject: "smarthost", Text: "mail leaves through " + smart.Addr() + ", whose servers the SPF record of each domain must name too",
			Do: "add the include: that its provider tells",
		})
	}
	return found
}

func (e *examination) daemon() []doctor.Finding {
	if e.status == nil {
		return []doctor.Finding{doctor.NoDaemon(e.down)}
	}
	s := *e.status
	told := rights.Check(e.Config) // which stands in a line of its own already
	s.Warnings = slices.DeleteFunc(slices.Clone(s.Warnings), func(p problem.Problem) bool { return slices.Contains(told, p) })
	return e.doctor.CheckDaemon(s)
}

func (e *examination) ports(ctx context.Context) []doctor.Finding {
	var running []string
	if e.status == nil && !errors.Is(e.down, control.ErrNotRunning) {
		return nil // it may be relayd that has them
	}
	if e.status != nil {
		running = []string{}
		for _, l := range e.status.Listeners {
			running = append(running, l.Service)
		}
	}
	return e.doctor.CheckListeners(ctx, map[string][]string{
		"smtp": e.Listen.SMTP, "submission": e.Listen.Submission, "submissions": e.Listen.Submissions, "http": e.Listen.HTTP,
	}, running)
}

// certificates looks at what clients are shown; where the daemon is down, at the files.
func (e *examination) certificates(ctx context.Context) []doctor.Finding {
	chain := e.chain()
	list := e.doctor.CheckTLSA(ctx, e.Hostname, chain)
	if e.status == nil && len(chain) == 0 && e.ACME.Enabled {
		return append(list, doctor.Finding{Status: doctor.Warn, Subject: "certificate for " + e.Hostname, Text: "there is none yet", Do: "start relayd, which orders one"})
	}
	if e.status == nil {
		return append(list, e.doctor.JudgeChain("certificate in "+e.CertsDir(), chain, e.Hostname, nil))
	}
	for _, l := range e.status.Listeners {
		if l.Service == "submission" || l.Service == "submissions" {
			s := doctor.Service{Name: l.Service + ", " + l.Address, Address: dialable(l.Address), Implicit: l.Service == "submissions"}
			list = append(list, e.doctor.CheckService(ctx, s, e.Hostname, nil))
		}
	}
	return list
}

// chain is what the files have for the server's name.
func (e *examination) chain() []*x509.Certificate {
	for _, info := range e.certificatesThere() {
		chain := readChain(info.File)
		if len(chain) > 0 && chain[0].VerifyHostname(e.Hostname) == nil {
			return chain
		}
	}
	return nil
}

// readChain reads the certificates of a file, as far as they can be read.
func readChain(file string) []*x509.Certificate {
	rest, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	var chain []*x509.Certificate
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return chain
		}
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
			chain = append(chain, cert)
		}
	}
}

// dialable is where to connect to for a listener that may be on all addresses.
func dialable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if ip, bad := netip.ParseAddr(host); err == nil && (bad != nil || ip.IsUnspecified()) {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return address
}

func (e *examination) trusted() bool {
	switch e.DNS.Trusted {
	case config.TrustYes:
		return true
	case config.TrustNo:
		return false
	}
	return !slices.ContainsFunc(e.resolver.Servers(), func(server string) bool {
		ap, err := netip.ParseAddrPort(server)
		return err != nil || !ap.Addr().Unmap().IsLoopback()
	})
}

// probe is the rehearsal with the target. Where that is Gmail's, it is asked about a mailbox there to
// which mail is forwarded.
func (e *examination) probe() doctor.Probe {
	p := doctor.Probe{Target: e.target, Port: e.Outbound.Port, Spare: !e.Outbound.Smarthost.IsZero()}
	p.Network = map[string]string{config.IPv4: "ip4", config.IPv6: "ip6"}[e.Outbound.IP]
	if e.target != gmailMX {
		return p
	}
	for _, d := range e.All() {
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
func (e *examination) way(ctx context.Context, fixed relay.Fixed) doctor.Finding {
	subject := fixed.Key + " " + strings.Join(fixed.Route.Hosts, ", ")
	return doctor.CheckWay(ctx, subject, func(ctx context.Context) error {
		_, err := e.client.Rehearse(ctx, fixed.Route)
		return err
	})
}

// records looks at those of a domain, and says nothing of what is right in many words.
func (e *examination) records(ctx context.Context, d *domains.Domain) []doctor.Finding {
	if d.Broken != nil {
		return nil // it is told of already
	}
	site := e.site(d)
	site.Addresses = e.ours
	list := e.doctor.CheckRecords(ctx, site)
	found := slices.DeleteFunc(slices.Clone(list), func(f doctor.Finding) bool {
		return f.Status == doctor.OK || f.Type == "PTR" // which is the same for all domains
	})
	if len(found) == 0 {
		found = append(found, doctor.Finding{Status: doctor.OK, Subject: "records of " + d.Name, Text: "all are right"})
		found = append(found, doctor.DMARCAdvice(d.Name, list)...)
		found = append(found, e.doctor.CheckSTS(ctx, e.web, d.Name)...)
	}
	return found
}
