package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"relayd/config"
	"relayd/delivery"
	"relayd/dns"
	"relayd/domains"
	"relayd/mtasts"
	"relayd/problem"
	"relayd/relay"
	"relayd/tasks"
	"relayd/tlsrpt"
)

// An outbound is what mail leaves by.
type outbound struct {
	client   *delivery.Client
	source   *delivery.Source // nil where IPv6 is not ours to choose
	relay    *relay.Outbound
	saved    []byte // what was learned of destinations
	policies *mtasts.Cache
	results  *tlsrpt.Book // of TLS, by day
}

// newOutbound makes the delivery client and what it protects connections by.
func (d *daemon) newOutbound() (*outbound, error) {
	conf, log := d.conf, d.log
	resolver := dns.New(dns.Options{Servers: conf.DNS.Servers, Trust: trust(conf.DNS.Trusted)})
	results, err := tlsrpt.Open(tlsrpt.Options{
		Organization: conf.Hostname, Contact: conf.Postmaster, Dir: filepath.Join(conf.StateDir, "tlsrpt"), Write: writeState, Log: log,
	})
	if err != nil {
		return nil, err
	}
	policies, err := mtasts.Open(mtasts.Options{
		Resolver: resolver, Dir: filepath.Join(conf.StateDir, "mta-sts"), Network: network(conf.Outbound.IP), Log: log,
	})
	if err != nil {
		return nil, err
	}
	hosts := filepath.Join(conf.StateDir, "tls-hosts")
	var source *delivery.Source
	if conf.Outbound.IP == config.IPAuto {
		source = delivery.NewSource(delivery.SourceOptions{Address: conf.Outbound.SourceIPv6, PTR: resolver.PTR, IP: resolver.IP, Log: log})
	}
	client := delivery.New(delivery.Options{
		Source: source, Hostname: conf.Hostname, Port: conf.Outbound.Port, Family: conf.Outbound.IP, Times: delivery.DefaultTimes(), Log: log,
		SourceIPv4: conf.Outbound.SourceIPv4, SourceIPv6: conf.Outbound.SourceIPv6,
		Resolver: resolver, IsSelf: delivery.ListensOn(mxAddresses(d.listeners)),
		TLS: delivery.TLSOptions{
			Demands: demands(conf.Outbound.TLS), TLSA: resolver, Policies: policies, Report: results.Add,
			Load: func() ([]byte, error) { return readState(hosts) },
			Save: func(data []byte) error { return writeState(hosts, data) },
		},
	})
	return &outbound{client: client, source: source, policies: policies, results: results}, nil
}

// run starts what goes on in the background until the daemon is to stop.
func (o *outbound) run(d *daemon) {
	d.serving.Go(func() { o.client.Run(d.ctx) })
	if o.source != nil {
		d.serving.Go(func() { o.source.Run(d.ctx) })
	}
	d.serving.Go(func() { o.policies.Run(d.ctx) })
	d.serving.Go(func() { o.keep(d) })
	d.serving.Go(func() { o.results.Run(d.ctx) })
}

// destinationsEvery is how often what was learned of destinations is saved: to lose a minute of it
// costs one refusal.
const destinationsEvery = time.Minute

func destinationsFile(conf *config.Config) string {
	return filepath.Join(conf.StateDir, "destinations")
}

// restore takes up what was learned of destinations before the restart. It may be forgotten.
func (o *outbound) restore(d *daemon) {
	data, err := readState(destinationsFile(d.conf))
	if err == nil && data != nil {
		err = o.relay.Restore(d.queue, data)
	}
	if err != nil {
		d.log.Warn("what was learned of destinations is forgotten", "error", err.Error())
	}
}

// keep saves what is learned of destinations, until the daemon is to stop.
func (o *outbound) keep(d *daemon) {
	tasks.Every(d.ctx, destinationsEvery, func() { o.save(d) })
}

// save is not called by two at once.
func (o *outbound) save(d *daemon) {
	data, err := o.relay.State(d.queue)
	if err == nil && !bytes.Equal(data, o.saved) {
		err = writeState(destinationsFile(d.conf), data)
	}
	if err != nil {
		d.log.Warn("what was learned of destinations was not saved", "error", err.Error())
		return
	}
	o.saved = data
}

// close ends what is left when nothing is delivered any more.
func (o *outbound) close(d *daemon) {
	o.save(d)
	o.client.Close()
	o.policies.Close()
	o.results.Close()
}

// ipv6 is how IPv6 is used, in a sentence.
func (o *outbound) ipv6(conf *config.Config) string {
	switch {
	case o.source != nil:
		return o.source.String()
	case conf.Outbound.IP == config.IPv6:
		return "used alone, as outbound.ip says"
	}
	return "not used, as outbound.ip says"
}

// warnings are what an administrator should know of it.
func (o *outbound) warnings(conf *config.Config) problem.List {
	var list problem.List
	for _, w := range append(o.client.Warnings(), o.relay.Warnings()...) {
		list = append(list, problem.At(conf.File(), 0, "%s", w))
	}
	return list
}

func trust(t config.Trust) dns.Trust {
	switch t {
	case config.TrustYes:
		return dns.TrustAll
	case config.TrustNo:
		return dns.TrustNone
	}
	return dns.TrustLocal
}

func network(ip string) string {
	switch ip {
	case config.IPv4:
		return "ip4"
	case config.IPv6:
		return "ip6"
	}
	return "ip"
}

func demands(table map[string]string) delivery.Demands {
	all := delivery.Demands{}
	for name, value := range table {
		all[name] = delivery.Demand(value)
	}
	return all
}

// readState reads a file of ours, which need not exist.
func readState(name string) ([]byte, error) {
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading what was saved: %w", err)
	}
	return data, nil
}

func writeState(name string, data []byte) error { return domains.WriteFile(name, data, 0o600) }
