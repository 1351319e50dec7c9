package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"relayd/delivery"
	"relayd/reply"
)

// CheckListeners looks whether the addresses of the settings can be listened on while the daemon is
// down, or are listened on while it runs. Listening is by service, the names of relayd.toml.
func (d *Doctor) CheckListeners(ctx context.Context, wanted map[string][]string, running []string) []Finding {
	var list []Finding
	for _, service := range []string{"smtp", "submission", "submissions", "http"} {
		for _, address := range wanted[service] {
			switch subject := "port of " + service + ", " + address; {
			case strings.HasPrefix(address, "systemd:"):
			case running == nil:
				list = append(list, tryListen(ctx, subject, address))
			case slices.Contains(running, service):
				list = append(list, finding(OK, subject, "relayd listens"))
			case service != "http":
				list = append(list, finding(Fail, subject, "relayd does not listen on it: the settings changed since it was started").do("systemctl restart relayd"))
			}
		}
	}
	return list
}

// tryListen finds out whether another program has an address, by taking it for a moment.
func tryListen(ctx context.Context, subject, address string) Finding {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	switch {
	case err == nil:
		_ = l.Close() // nothing was ever accepted
		return finding(OK, subject, "it is free for relayd")
	case errors.Is(err, syscall.EADDRINUSE):
		return finding(Fail, subject, "another program has it").do("find it with: ss -ltnp 'sport = :%s'; stop it, and keep it from being started", portOf(address))
	case errors.Is(err, syscall.EACCES):
		return finding(Info, subject, "not checked, because only root may listen there").do("run relay-util check with sudo")
	}
	return finding(Fail, subject, "%v", err).do("give an address of this machine in [listen]")
}

func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// probeTime bounds the rehearsal with one server.
const probeTime = 15 * time.Second

// A Probe is a rehearsal of a delivery, which ends before a message.
type Probe struct {
	Target    string // name of a mail exchanger
	Port      int    // of it, that the rehearsals go to
	Recipient string // who is asked about; "" for nobody
	// Spare says that mail leaves by another way, so that a closed port is no failure.
	Spare bool
	// Network is the address family that mail leaves by, "ip4" or "ip6"; "" for both.
	Network string
}

// CheckPort25 rehearses a delivery over each address family that mail leaves by.
func (d *Doctor) CheckPort25(ctx context.Context, p Probe) []Finding {
	networks := []string{"ip4", "ip6"}
	if p.Network != "" {
		networks = []string{p.Network}
	}
	list := make([]Finding, len(networks))
	each(len(networks), func(i int) { list[i] = d.probe(ctx, p, networks[i]) })
	return list
}

func (d *Doctor) probe(ctx context.Context, p Probe, network string) Finding {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	subject := fmt.Sprintf("port %d outwards, %s", p.Port, map[string]string{"ip4": "IPv4", "ip6": "IPv6"}[network])
	bad := Fail
	if network == "ip6" && p.Network == "" || p.Spare {
		bad = Warn
	}
	if here, err := d.opt.Addresses(); network == "ip6" && err == nil && !slices.ContainsFunc(here, netip.Addr.Is6) {
		return finding(Info, subject, "this machine has no IPv6 address of the world's; IPv4 alone is fine")
	}
	r, err := d.opt.Rehearse(ctx, delivery.Trial{Host: p.Target, Network: network, Recipient: p.Recipient})
	if err == nil {
		return taken(r, subject, p.Target)
	}
	return judgeRehearsal(ctx, finding(bad, subject, ""), r, p.Target, err)
}

// taken is the finding about a rehearsal in which the target took everything.
func taken(r delivery.Rehearsal, subject, target string) Finding {
	switch {
	case r.TLS != "":
		return finding(OK, subject, "%s takes mail from here, by %s", target, strings.Replace(r.TLS, "TLS", "TLS ", 1))
	case r.Flaw != "":
		return finding(Warn, subject, "%s takes mail from here, but not by TLS: %s", target, r.Flaw).do("something between may break it: ask your provider")
	}
	return finding(Warn, subject, "%s takes mail from here, but offers no TLS", target).do("something between may strip it: ask your provider")
}

// judgeRehearsal says in f how a rehearsal failed.
func judgeRehearsal(ctx context.Context, f Finding, r delivery.Rehearsal, target string, err error) Finding {
	say := func(format string, args ...any) Finding { return finding(f.Status, f.Subject, format, args...) }
	switch {
	case r.Stage == "DNS":
		return say("not checked, the address of %s is not known: %v", target, plainError(ctx, err)).do("mend the resolver, or name another server with --target")
	case r.Verdict.Class == delivery.ClassSetup && r.Refused == nil: // the source address is not ours
		return say("not checked: %s", reply.From(err).Text).do("mend it in relayd.toml")
	case r.Stage == "connect":
		return say("%s cannot be reached (%v): the port seems to be closed", target, plainError(ctx, err)).
			do("have your provider open port 25 outwards, or send through a smarthost ([outbound] smarthost)")
	case r.Refused == nil:
		return say("%s went silent or away: %v", target, plainError(ctx, err)).do("look again; a firewall of the provider's may redirect port 25")
	case r.Stage == "RCPT" && r.Verdict.Class > delivery.ClassLogin: // which are about us
		return finding(Warn, f.Subject, "%s takes our mail, but not for the recipient: %s", target, r.Refused).do("look at the alias that leads there")
	}
	return say("%s refuses mail from here: %s", target, r.Refused).do("%s", cmp.Or(r.Verdict.Advice, "do what the answer says"))
}

// plainError is err for people, or that time ran out.
func plainError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.New("no answer")
	}
	return brief(err)
}
