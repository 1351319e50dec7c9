package doctor

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	mdns "github.com/miekg/dns"

	"relayd/mtasts"
)

// CheckResolver looks whether the resolver answers, and whether it vouches for what DNSSEC protects,
// without which there is no DANE. Trusted says whether its word counts.
func (d *Doctor) CheckResolver(ctx context.Context, trusted bool) []Finding {
	q := query{name: ".", typ: mdns.TypeSOA, validate: true}
	resp, server, err := d.recursive(ctx, q)
	if err != nil {
		return []Finding{finding(Fail, "resolver", "it does not answer: %v", err).
			do("mend /etc/resolv.conf or [dns] servers; best is a resolver of your own on this machine, such as unbound")}
	}
	list := []Finding{finding(OK, "resolver", "%s answers", server)}
	switch {
	case !resp.AuthenticatedData:
		list = append(list, finding(Info, "DANE", "not in use: the resolver does not validate DNSSEC").
			do("install unbound on this machine, and write servers = [\"127.0.0.1\"] under [dns]"))
	case !trusted:
		list = append(list, finding(Info, "DANE", "not in use: the resolver validates DNSSEC, but is not on this machine").
			do("install unbound here; or write trusted = true under [dns] if nobody can be in between"))
	default:
		list = append(list, finding(OK, "DANE", "in use: the resolver validates DNSSEC"))
	}
	return list
}

// How far the clock may be wrong: signatures and certificates have times.
const (
	clockWarn = time.Minute
	clockFail = 10 * time.Minute
	clockTime = 10 * time.Second // for the answer
)

// CheckClock compares the clock with that of a web server, whose answer has the date to the second.
func (d *Doctor) CheckClock(ctx context.Context, client *http.Client, url string) Finding {
	ctx, cancel := context.WithTimeout(ctx, clockTime)
	defer cancel()
	server, err := dateOf(ctx, client, url)
	if err != nil {
		return finding(Info, "clock", "not checked: %v", plainError(ctx, err))
	}
	off := d.opt.Now().Sub(server).Round(time.Second)
	f := finding(OK, "clock", "%v from that of %s", off.Abs(), url)
	switch {
	case off.Abs() > clockFail:
		f.Status = Fail
	case off.Abs() > clockWarn:
		f.Status = Warn
	}
	return f.do("let the system set it: timedatectl set-ntp true")
}

func dateOf(ctx context.Context, client *http.Client, url string) (time.Time, error) {
	req, err := http.NewRequestWithContext(ctx, "HEAD", url, nil)
	if err != nil {
		return time.Time{}, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return time.Time{}, err
	}
	resp.Body.Close()
	if resp.Header.Get("Date") == "" {
		return time.Time{}, errors.New("the web server does not say what time it is")
	}
	return http.ParseTime(resp.Header.Get("Date"))
}

// CheckWay rehearses the login at a smarthost or the way to another fixed server.
func CheckWay(ctx context.Context, key string, probe func(context.Context) error) Finding {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	if err := probe(ctx); err != nil {
		return finding(Fail, key, "%v", err).do("mend %s in relayd.toml, or that server", key)
	}
	return finding(OK, key, "it lets us in")
}

// CheckSTS looks at how far a domain has come with MTA-STS, which never fails: it is good to have.
func (d *Doctor) CheckSTS(ctx context.Context, client *http.Client, domain string) []Finding {
	subject := "MTA-STS " + domain
	_, err := d.opt.Resolver.TXT(ctx, "_mta-sts."+domain)
	switch {
	case isAbsent(err):
		return []Finding{finding(Info, subject, "there is none, so TLS on the way to here can be stripped by who is in between").
			do("relay-util dns %s --all prints what it takes", domain)}
	case err != nil:
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, clockTime)
	defer cancel()
	url := "https://mta-sts." + domain + "/.well-known/mta-sts.txt"
	policy, err := fetchPolicy(ctx, client, url)
	switch {
	case err != nil:
		return []Finding{finding(Warn, subject, "there is a record, but no policy at %s: %v", url, plainError(ctx, err)).do("serve the policy, or remove the record")}
	case policy.Mode == mtasts.Enforce:
		return []Finding{finding(OK, subject, "enforce")}
	}
	return []Finding{finding(Info, subject, "the policy is in the mode %s", policy.Mode).
		do("when reports on TLS have been good for two weeks, change it to enforce, and the id in _mta-sts.%s", domain)}
}

const maxPolicy = 64 << 10 // bytes (RFC 8461 section 3.2)

func fetchPolicy(ctx context.Context, client *http.Client, url string) (mtasts.Policy, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return mtasts.Policy{}, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return mtasts.Policy{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return mtasts.Policy{}, errors.New("the answer is " + resp.Status)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxPolicy))
	if err != nil {
		return mtasts.Policy{}, err
	}
	return mtasts.Parse(text)
}
