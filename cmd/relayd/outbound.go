package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"relayd/config"
	"relayd/delivery"
	"relayd/dns"
	"relayd/domains"
	"relayd/mtasts"
	"relayd/problem"
	"relayd/tlsrpt"
)

// An outbound is what mail leaves by.
type outbound struct {
	client   *delivery.Client
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
	client := delivery.New(delivery.Options{
		Hostname: conf.Hostname, Port: conf.Outbound.Port, Family: conf.Outbound.IP, Times: delivery.DefaultTimes(), Log: log,
		Resolver: resolver, IsSelf: delivery.ListensOn(mxAddresses(d.listeners)),
		TLS: delivery.TLSOptions{
			Demands: demands(conf.Outbound.TLS), TLSA: resolver, Policies: policies, Report: results.Add,
			Load: func() ([]byte, error) { return readState(hosts) },
			Save: func(data []byte) error { return writeState(hosts, data) },
		},
	})
	return &outbound{client, policies, results}, nil
}

// run starts what goes on in the background until the daemon is to stop.
func (o *outbound) run(d *daemon) {
	d.serving.Go(func() { o.client.Run(d.ctx) })
	d.serving.Go(func() { o.policies.Run(d.ctx) })
	d.serving.Go(func() { o.results.Run(d.ctx) })
}

// close ends what is left when nothing is delivered any more.
func (o *outbound) close() {
	o.client.Close()
	o.policies.Close()
	o.results.Close()
}

// warnings are what an administrator should know of it.
func (o *outbound) warnings(conf *config.Config) problem.List {
	var list problem.List
	for _, w := range o.client.Warnings() {
		list = append(list, problem.At(conf.File(), 0, "%s (outbound.tls can demand TLS)", w))
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
