package checkup

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"relayd/certs"
	"relayd/config"
	"relayd/doctor"
	"relayd/domains"
)

// Site is what the records of a hosted domain follow from, but for the addresses of the server.
func Site(conf *config.Config, d *domains.Domain) doctor.Site {
	s := doctor.Site{Hostname: conf.Hostname, Domain: d.Name, SRSDomain: d.Settings.SRSDomain, Keys: d.Keys}
	if s.SRSDomain == "" {
		s.SRSDomain = conf.Forward.SRSDomain
	}
	for _, chain := range chains(conf) {
		s.Certs = append(s.Certs, chain[0])
	}
	letsEncrypt := func(c *x509.Certificate) bool { return slices.Contains(c.Issuer.Organization, "Let's Encrypt") }
	if slices.ContainsFunc(s.Certs, letsEncrypt) || conf.ACME.Enabled && strings.HasSuffix(hostOf(conf.ACME.Directory), ".letsencrypt.org") {
		s.Issuer = "letsencrypt.org"
	}
	return s
}

func hostOf(url string) string {
	_, rest, _ := strings.Cut(url, "://")
	host, _, _ := strings.Cut(rest, "/")
	return host
}

// chains are those in force for the server's name, as the files have them: the admin's and those of
// ACME, in the order in which the daemon chooses among them.
func chains(conf *config.Config) (list [][]*x509.Certificate) {
	opt := certs.Options{Dir: conf.CertsDir(), Hostname: conf.Hostname}
	if conf.ACME.Enabled {
		opt.Second = conf.ACMEDir()
	}
	store, _ := certs.New(opt)
	for _, info := range store.List() {
		if chain := readChain(info.File); len(chain) > 0 && chain[0].VerifyHostname(conf.Hostname) == nil {
			list = append(list, chain)
		}
	}
	return list
}

// certificates looks at what clients are shown; where the daemon is down, at the files.
func (c *Checkup) certificates(ctx context.Context) []doctor.Finding {
	var chain []*x509.Certificate
	if all := chains(c.conf); len(all) > 0 {
		chain = all[0]
	}
	list := c.doctor.CheckTLSA(ctx, c.conf.Hostname, chain)
	if c.status == nil && len(chain) == 0 && c.conf.ACME.Enabled {
		return append(list, doctor.Finding{Status: doctor.Warn, Subject: "certificate for " + c.conf.Hostname, Text: "there is none yet", Do: "start relayd, which orders one"})
	}
	if c.status == nil {
		return append(list, c.doctor.JudgeChain("certificate in "+c.conf.CertsDir(), chain, c.conf.Hostname, nil))
	}
	for _, l := range c.status.Listeners {
		if l.Service == "submission" || l.Service == "submissions" {
			s := doctor.Service{Name: l.Service + ", " + l.Address, Address: dialable(l.Address), Implicit: l.Service == "submissions"}
			list = append(list, c.doctor.CheckService(ctx, s, c.conf.Hostname, nil))
		}
	}
	return list
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
