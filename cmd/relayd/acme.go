package main

import (
	"fmt"
	"log/slog"
	"os"

	"relayd/acme"
	"relayd/certs"
	"relayd/config"
	"relayd/control"
	"relayd/metrics"
	"relayd/problem"
)

// acmeNames are the names that certificates are ordered for.
func acmeNames(conf *config.Config) []string {
	return append([]string{conf.Hostname}, conf.ACME.Names...)
}

// acmeFolder is where certificates by ACME lie: none are shown when it is switched off.
func acmeFolder(conf *config.Config) string {
	if !conf.ACME.Enabled {
		return ""
	}
	return conf.ACMEDir()
}

// newACME makes what orders certificates; nil if none are to be ordered.
func (d *daemon) newACME() (*acme.Keeper, error) {
	conf := d.conf
	if !conf.ACME.Enabled {
		return nil, nil
	}
	client, err := acme.NewClient(acme.ClientOptions{
		Directory: conf.ACME.Directory, Dir: conf.ACMEDir(), Email: conf.ACME.Email, Challenge: conf.ACME.Challenge, Answers: d.answers,
		Provider: conf.ACME.Provider, Settings: conf.ACME.DNS, Servers: conf.DNS.Servers, Write: writeState, Log: d.log,
	})
	if err != nil {
		return nil, fmt.Errorf("ACME (see [acme] in %s): %w", conf.File(), err)
	}
	return acme.New(acme.Options{
		Dir: conf.ACMEDir(), Names: acmeNames(conf), Directory: conf.ACME.Directory, CA: client, Write: writeState,
		Changed: func() { d.certs.Reload() }, Notify: func(subject, text string) error { return d.inbound.Notify(subject, text) }, Log: d.log,
	}), nil
}

// acmeStatus is how every name fares.
func (d *daemon) acmeStatus() []control.ACME {
	if d.acme == nil {
		return nil
	}
	var list []control.ACME
	for _, s := range d.acme.Status() {
		list = append(list, control.ACME{Name: s.Name, Expires: s.Expires, Next: s.Next, Error: s.Error, Since: s.Since, Urgent: s.Urgent, Text: s.String()})
	}
	return list
}

// expiries are those of the certificates in force.
func (d *daemon) expiries() []metrics.Certificate {
	var list []metrics.Certificate
	for _, c := range d.certs.List() {
		one := metrics.Certificate{File: c.File, Expires: c.NotAfter}
		if len(c.Names) > 0 {
			one.Name = c.Names[0]
		}
		list = append(list, one)
	}
	return list
}

// checkACME judges what lies outside of relayd.toml, and the settings of the DNS provider as the
// daemon would.
func checkACME(conf *config.Config) problem.List {
	if !conf.ACME.Enabled {
		return nil
	}
	if root := conf.ACME.Webroot; root != "" {
		if info, err := os.Stat(root); err != nil || !info.IsDir() {
			return problem.List{problem.At(conf.File(), 0, "acme.webroot: there is no folder %s", root)}
		}
	}
	if conf.ACME.Challenge != config.ChallengeDNS {
		return nil
	}
	if err := acme.CheckProvider(conf.ACME.Provider, conf.ACME.DNS); err != nil {
		return problem.List{problem.At(conf.File(), 0, "acme.dns: %v", err)}
	}
	return nil
}

// newCerts opens the certificates of the admin's, and after them those by ACME.
func newCerts(conf *config.Config, log *slog.Logger) (*certs.Store, problem.List) {
	return certs.New(certs.Options{Dir: conf.CertsDir(), Second: acmeFolder(conf), Hostname: conf.Hostname, Log: log})
}
