package doctor

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/smtp"
	"strings"
	"time"

	mdns "github.com/miekg/dns"

	"relayd/dane"
	"relayd/dns"
)

// What is left of a certificate's life when somebody should look why it was not renewed: certbot and
// others do so 30 days before the end, or after two thirds of a shorter life.
const (
	daysWarn = 10
	daysFail = 2
)

// A Service is where our own server shows its certificate.
type Service struct {
	Name     string // for people
	Address  string // "host:port"
	Implicit bool   // TLS from the first byte
}

// CheckService looks at the certificate that a client like Gmail is shown. Roots are those of the
// system when nil.
func (d *Doctor) CheckService(ctx context.Context, s Service, hostname string, roots *x509.CertPool) Finding {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	subject := "certificate at " + s.Name
	chain, err := d.shown(ctx, s, hostname)
	if err != nil {
		return finding(Fail, subject, "%s shows none: %v", s.Address, plainError(ctx, err)).do("look at the log of relayd: journalctl -u relayd")
	}
	return d.JudgeChain(subject, chain, hostname, roots)
}

// shown is the chain that a server presents, its own certificate first.
func (d *Doctor) shown(ctx context.Context, s Service, hostname string) ([]*x509.Certificate, error) {
	conn, err := d.opt.Dial(ctx, "tcp", s.Address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	conf := &tls.Config{ServerName: hostname, InsecureSkipVerify: true} // it is judged behind
	if s.Implicit {
		secure := tls.Client(conn, conf)
		err := secure.HandshakeContext(ctx)
		return secure.ConnectionState().PeerCertificates, err
	}
	client, err := smtp.NewClient(conn, hostname)
	if err != nil {
		return nil, err
	}
	if err := client.StartTLS(conf); err != nil {
		return nil, err
	}
	if err := client.Noop(); err != nil { // until something is read there may have been no handshake
		return nil, err
	}
	state, _ := client.TLSConnectionState()
	return state.PeerCertificates, nil
}

// JudgeChain judges a chain as a client that knows public authorities does.
func (d *Doctor) JudgeChain(subject string, chain []*x509.Certificate, hostname string, roots *x509.CertPool) Finding {
	if len(chain) == 0 {
		return finding(Fail, subject, "there is none").do("put fullchain.pem and privkey.pem for %s into a folder below certs/", hostname)
	}
	leaf, now := chain[0], d.opt.Now()
	left := int(leaf.NotAfter.Sub(now).Hours() / 24)
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: now}
	for _, cert := range chain[1:] {
		opts.Intermediates.AddCert(cert)
	}
	_, err := leaf.Verify(opts)
	_, unknown := errors.AsType[x509.UnknownAuthorityError](err)
	expired := now.After(leaf.NotAfter)
	switch {
	case expired:
		return finding(Fail, subject, "it expired %d days ago", -left).do("renew it; relayd takes the new files up by itself")
	case leaf.VerifyHostname(hostname) != nil:
		return finding(Fail, subject, "it is for %s, and not for %s", strings.Join(leaf.DNSNames, ", "), hostname).
			do("get one for the name that clients type in, %s", hostname)
	case unknown && leaf.Issuer.String() == leaf.Subject.String():
		return finding(Fail, subject, "it is self-signed, so Gmail and mail programs refuse it").
			do("where relayd orders one, relay-util status says what is in the way; else get one from a public authority, for instance with certbot")
	case unknown && len(chain) == 1:
		return finding(Fail, subject, "its chain is not complete: the certificate of %s is missing", leaf.Issuer.CommonName).
			do("put the whole chain into fullchain.pem, as certbot's fullchain.pem has it")
	case unknown:
		return finding(Fail, subject, "no public authority stands behind it: %s", leaf.Issuer.CommonName).do("get one from a public authority, for instance with certbot")
	case err != nil:
		return finding(Fail, subject, "%v", err).do("get a new one")
	}
	f := finding(OK, subject, "%s, good for %s by %s", hostname, days(left), leaf.Issuer.CommonName)
	switch {
	case left < daysFail:
		f.Status = Fail
	case left < daysWarn:
		f.Status = Warn
	}
	return f.do("renew it now, and find out why that did not happen by itself")
}

func days(n int) string {
	if n == 1 {
		return "1 day"
	}
	return fmt.Sprintf("%d days", n)
}

// CheckTLSA compares the TLSA records of the server, if there are any, with the certificates that it
// shows, its own first: senders that know DANE deliver nothing where they differ (RFC 7672).
func (d *Doctor) CheckTLSA(ctx context.Context, hostname string, chain []*x509.Certificate) []Finding {
	name := "_25._tcp." + hostname
	a, err := d.one(ctx, name, mdns.TypeTLSA)
	if err != nil || len(a.records) == 0 || len(chain) == 0 {
		return nil
	}
	var records []dns.TLSA
	for _, rr := range a.records {
		tlsa, ok := rr.(*mdns.TLSA)
		if !ok {
			continue
		}
		data, err := hex.DecodeString(tlsa.Certificate)
		if err == nil {
			records = append(records, dns.TLSA{Usage: tlsa.Usage, Selector: tlsa.Selector, Matching: tlsa.MatchingType, Data: data})
		}
	}
	sum := sha256.Sum256(chain[0].RawSubjectPublicKeyInfo)
	f := finding(OK, "TLSA "+name, "it stands for the certificate in force")
	if err := dane.Verify(records, chain, []string{hostname}, d.opt.Now()); err != nil {
		f = finding(Fail, "TLSA "+name, "%v: senders with DANE deliver nothing", err)
	}
	f.Name, f.Type, f.Value, f.Found = name, "TLSA", "3 1 1 "+hex.EncodeToString(sum[:]), a.values()
	return []Finding{f.do("change it to %s TLSA %s, or remove it", name, f.Value)}
}
