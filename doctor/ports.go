package doctor

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
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
	Port      int    // 0: 25
	Hostname  string // for EHLO
	Recipient string // who is asked about; "" for nobody
	// Spare says that mail leaves by another way, so that a closed port is no failure.
	Spare bool
	// Network is the address family that mail leaves by, "ip4" or "ip6"; "" for both.
	Network string
}

// CheckPort25 rehearses a delivery over each address family that mail leaves by.
func (d *Doctor) CheckPort25(ctx context.Context, p Probe) []Finding {
	p.Port = cmp.Or(p.Port, 25)
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
	ans, err := d.opt.Resolver.IP(ctx, p.Target, network)
	if err != nil {
		return finding(bad, subject, "not checked, the address of %s is not known: %v", p.Target, brief(err)).do("mend the resolver, or name another server with --target")
	}
	address := net.JoinHostPort(ans.Records[0].String(), strconv.Itoa(p.Port))
	conn, err := d.opt.Dial(ctx, "tcp", address)
	if err != nil {
		f := finding(bad, subject, "%s cannot be reached (%v): the port seems to be closed", p.Target, plainError(ctx, err))
		return f.do("have your provider open port 25 outwards, or send through a smarthost ([outbound] smarthost)")
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	r := &rehearsal{conn: conn, r: bufio.NewReader(io.LimitReader(conn, maxSession)), host: p.Target}
	return r.judge(ctx, finding(OK, subject, "%s takes mail from here", p.Target), bad, p)
}

// plainError is err for people, or that time ran out.
func plainError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.New("no answer")
	}
	return brief(err)
}

// judge goes through the rehearsal and says how it went.
func (r *rehearsal) judge(ctx context.Context, good Finding, bad Status, p Probe) Finding {
	stage, err := r.play(ctx, p)
	if r.tls == "" && err == nil {
		good.Status, good.Text = Warn, fmt.Sprintf("%s takes mail from here, but offers no TLS", p.Target)
		return good.do("something between may strip it: ask your provider")
	}
	if err == nil {
		good.Text += ", by " + r.tls
		return good
	}
	answer, refused := errors.AsType[*reply.Reply](err)
	if !refused {
		return finding(bad, good.Subject, "%s went silent or away: %v", p.Target, plainError(ctx, err)).do("look again; a firewall of the provider's may redirect port 25")
	}
	verdict := delivery.Classify(answer, stage, providerOf(p.Target))
	if stage == delivery.AtRcpt && verdict.Class > delivery.ClassLogin { // which are about us
		return finding(Warn, good.Subject, "%s takes our mail, but not for the recipient: %s", p.Target, answer).do("look at the alias that leads there")
	}
	f := finding(bad, good.Subject, "%s refuses mail from here: %s", p.Target, answer)
	return f.do("%s", cmp.Or(verdict.Advice, "do what the answer says"))
}

// providerOf is the domain of a host as Classify wants it. Those that it knows have two labels.
func providerOf(host string) string {
	labels := strings.Split(bare(host), ".")
	return strings.Join(labels[max(0, len(labels)-2):], ".")
}
