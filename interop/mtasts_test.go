//go:build interop

package interop

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"relayd/internal/testnet"
)

// A policyHost serves MTA-STS policies over HTTPS to whoever asks for "mta-sts." and a domain.
type policyHost struct {
	*http.Server
	policies map[string]string
}

func (p *policyHost) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	policy, ok := p.policies[strings.TrimPrefix(r.Host, "mta-sts.")]
	if !ok || r.URL.Path != "/.well-known/mta-sts.txt" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	fmt.Fprint(w, policy)
}

// startPolicyHost starts one in a namespace.
func startPolicyHost(n *namespace, ip string, cert testnet.Certificate, policies map[string]string) *policyHost {
	n.t.Helper()
	p := &policyHost{policies: policies}
	p.Server = &http.Server{Handler: p, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert.TLS}}, ReadTimeout: patience}
	l, done := n.listen(ip+":443"), make(chan struct{})
	go func() {
		defer close(done)
		_ = p.ServeTLS(l, "", "") // ends when it is closed
	}()
	n.t.Cleanup(func() {
		p.Close()
		<-done
	})
	return p
}

func policyText(mode, mx string) string {
	return "version: STSv1\r\nmode: " + mode + "\r\nmx: " + mx + "\r\nmax_age: 86400\r\n"
}

// TestMTASTS: what a domain's policy asks for is done, with DNS, HTTPS and SMTP over a network.
func TestMTASTS(t *testing.T) {
	t.Parallel()
	const here, there = "10.98.0.1", "10.98.0.2"
	relay, world := newNamespace(t, "relay", there), newNamespace(t, "world", there)
	link(t, relay, world, here+"/24", there+"/24")

	policies, names := map[string]string{}, []string{}
	zone := fmt.Sprintf("listen-address=%s\nbind-interfaces\nhost-record=%s,%s\n", there, hostname, here)
	txt := map[string]string{}
	domain := func(name, mode, named string, hosts ...string) {
		policies[name], txt["_mta-sts."+name], names = policyText(mode, named), "v=STSv1; id=1;", append(names, "mta-sts."+name)
		zone += fmt.Sprintf("host-record=mta-sts.%s,%s\n", name, there)
		for i, host := range hosts {
			zone += fmt.Sprintf("mx-host=%s,%s,%d\n", name, host, 10*(i+1))
		}
	}
	domain("right.test", "enforce", "mx.right.test", "mx.right.test")
	domain("second.test", "enforce", "*.right.test", "mx.odd.test", "mx.right.test")
	domain("odd.test", "enforce", "mx.right.test", "mx.odd.test")
	domain("wrong.test", "enforce", "mx.wrong.test", "mx.wrong.test")
	domain("stripped.test", "enforce", "mx.stripped.test", "mx.stripped.test")
	domain("trial.test", "testing", "mx.right.test", "mx.wrong.test")
	domain("cached.test", "enforce", "mx.cached.test", "mx.cached.test")
	rightCert, wrongCert := testnet.Cert(t, "mx.right.test", "mx.odd.test"), testnet.Cert(t, "whoever.test")
	cachedCert, policyCert := testnet.Cert(t, "mx.cached.test"), testnet.Cert(t, names...)
	for i, host := range []string{"right", "odd", "wrong", "stripped", "cached"} {
		ip(t, "-n", world.name, "address", "add", fmt.Sprintf("10.98.0.%d/24", 11+i), "dev", "eth0")
		zone += fmt.Sprintf("host-record=mx.%s.test,10.98.0.%d\n", host, 11+i)
	}
	world.dnsmasq(zone, txt)
	right, odd := world.exchanger("10.98.0.11", &rightCert), world.exchanger("10.98.0.12", &rightCert)
	wrong, stripped := world.exchanger("10.98.0.13", &wrongCert), world.exchanger("10.98.0.14", nil)
	cached := world.exchanger("10.98.0.15", &cachedCert)
	host := startPolicyHost(world, there, policyCert, policies)

	s := newSite(t, "")
	s.ns = relay
	s.addDomain("example.test", "*: box@right.test\n", "app")
	d := s.trusting(rightCert, wrongCert, cachedCert, policyCert)
	verified := fate{tls: "TLS1.3 mta-sts"}
	s.send(d, "box@right.test", verified)
	s.send(d, "box@second.test", verified)
	s.send(d, "box@odd.test", fate{reason: "mx.odd.test is not among the mail servers that the MTA-STS policy of odd.test names"})
	s.send(d, "box@wrong.test", fate{reason: "(which its domain demands by MTA-STS): it is for other names"})
	s.send(d, "box@stripped.test", fate{reason: "does not offer STARTTLS (which its domain demands by MTA-STS)"})
	if n := odd.Connections() + wrong.Count() + stripped.Count(); n > 0 || right.Count() != 2 {
		t.Errorf("%d came where nothing may come, %d where it may", n, right.Count())
	}
	s.send(d, "box@trial.test", fate{tls: "TLS1.3 opportunistic"})
	s.send(d, "box@cached.test", verified)

	// The policy is on disk now, its host is gone, and somebody stands in for the mail exchanger.
	began := time.Now()
	d.stop()
	host.Close()
	cached.start(&wrongCert)
	d = s.trusting(rightCert, wrongCert, cachedCert, policyCert)
	s.send(d, "box@cached.test", fate{reason: "(which its domain demands by MTA-STS): it is for other names"})
	cached.start(nil)
	s.again(d, "box@cached.test", fate{reason: "does not offer STARTTLS (which its domain demands by MTA-STS)"})
	if cached.Count() > 0 {
		t.Error("it was delivered to somebody else")
	}
	cached.start(&cachedCert)
	s.again(d, "box@cached.test", verified)
	t.Logf("a restart without the policy host, and three attempts: %s", time.Since(began).Round(time.Millisecond))
	for _, e := range []*exchanger{wrong, stripped} {
		for _, m := range e.Messages() {
			if m.TLS == nil {
				t.Errorf("%q came in the clear", m.Rcpts)
			}
		}
	}
}
