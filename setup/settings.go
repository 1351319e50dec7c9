package setup

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"relayd/address"
	"relayd/config"
)

// A value is what a key of relayd.toml is set to: a string, a number, a bool or a list of strings.
type value struct {
	key string // with its table, like "limits.recipients"
	to  any
}

// settingsText is the example with some keys set. Its comments stay, and a key that it does not
// explain is an error.
func settingsText(example string, values []value) (string, error) {
	lines := strings.Split(example, "\n")
	table := ""
	for i, line := range lines {
		if strings.HasPrefix(line, "[") {
			table = strings.Trim(line, "[] ") + "."
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(line, "#"), " = ")
		for j, v := range values {
			if table+name == v.key {
				lines[i] = name + " = " + literal(v.to)
				values = slices.Delete(slices.Clone(values), j, j+1)
				break
			}
		}
	}
	if len(values) > 0 {
		return "", fmt.Errorf("this relayd has no setting %s", values[0].key)
	}
	return strings.Join(lines, "\n"), nil
}

// literal writes a value as TOML has it.
func literal(v any) string {
	switch v := v.(type) {
	case string:
		return strconv.Quote(v)
	case []string:
		quoted := make([]string, len(v))
		for i, s := range v {
			quoted[i] = strconv.Quote(s)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	}
	return fmt.Sprint(v)
}

// hostname is the name of the server: given, or from the reverse DNS of its address, or asked for.
func (p *Plan) hostname(ctx context.Context) (string, error) {
	if p.opt.Hostname != "" {
		return checkHostname(p.opt.Hostname, "--hostname: ")
	}
	ips, err := p.opt.World.Addresses()
	if err != nil {
		ips = nil // then it is asked for
	}
	seen := "this machine has no public address of its own"
	for _, ip := range ips {
		names, _ := p.opt.World.PTR(ctx, ip)
		seen = fmt.Sprintf("%s has no reverse DNS", ip)
		for _, name := range names {
			host, err := checkHostname(name, "")
			if err == nil && !providers(host, ip) {
				p.found("hostname: %s, the reverse DNS of %s", host, ip)
				return host, nil
			}
			seen = fmt.Sprintf("the reverse DNS of %s is %s, the provider's", ip, cmp.Or(host, strconv.Quote(name)))
		}
		if len(names) > 0 {
			break
		}
	}
	answer, err := p.opt.Ask(Question{Text: "The name of this server (" + seen + ")", Default: "mx." + p.Domain, Flag: "hostname"})
	if err != nil {
		return "", err
	}
	return checkHostname(strings.TrimSpace(answer), "")
}

func checkHostname(name, prefix string) (string, error) {
	host, err := address.Domain(strings.TrimSuffix(name, "."))
	if err == nil && (host[0] == '[' || !strings.Contains(host, ".")) {
		err = fmt.Errorf("%s is not the full name of a server, like mx.example.com", host)
	}
	if err != nil {
		return "", fmt.Errorf("%s%w", prefix, err)
	}
	return host, nil
}

var numbers = regexp.MustCompile(`[0-9]+`)

// providers reports whether a name was made from an address, as providers do before the customer says
// another, like 192-0-2-1.dynamic.example.net: mail from such names is taken for spam. That it has the
// last two numbers of an IPv4 address shows it; of an IPv6 address, the last group.
func providers(host string, ip netip.Addr) bool {
	if !ip.Is4() {
		groups := strings.Split(ip.StringExpanded(), ":")
		return strings.Contains(host, groups[len(groups)-1]) && strings.Contains(host, groups[0])
	}
	var in []string
	for _, n := range numbers.FindAllString(host, -1) {
		in = append(in, cmp.Or(strings.TrimLeft(n, "0"), "0"))
	}
	b := ip.As4()
	has := func(octet byte) bool { return slices.Contains(in, strconv.Itoa(int(octet))) }
	return has(b[2]) && has(b[3])
}

// portsFree looks for other mail servers before anything is made.
func (p *Plan) portsFree() error {
	if !p.here() {
		return nil
	}
	for _, port := range []int{25, 587, 465} {
		if !p.opt.World.Free(port) {
			return fmt.Errorf("another program has port %d; `ss -ltnp 'sport = :%[1]d'` shows which, often exim4 or postfix: "+
				"stop it for good (systemctl disable --now NAME), then run this again", port)
		}
	}
	return nil
}

// A proof is how the name is proved to the certificate authority.
type proof struct {
	values  []value
	webroot string
	why     string
}

// proof chooses: http-01 where port 80 is free, else tls-alpn-01 where port 443 is, else the web
// server that has both must serve a file. Of an image nothing is known, and its ports are taken for
// free.
func (p *Plan) proof() (proof, error) {
	free := func(port int) bool { return !p.here() || p.opt.World.Free(port) }
	switch {
	case p.opt.Webroot != "":
	case free(80):
		return proof{values: []value{{"listen.http", []string{":80"}}}, why: "http-01, since port 80 is free"}, nil
	case free(443):
		return proof{
			values: []value{{"listen.https", []string{":443"}}, {"acme.challenge", config.ChallengeALPN}},
			why:    "tls-alpn-01, since a web server has port 80, and port 443 is free",
		}, nil
	default:
		answer, err := p.opt.Ask(Question{
			Text: "A web server has the ports 80 and 443. The folder whose files it serves for all names", Default: "/var/www/html", Flag: "webroot",
		})
		if err != nil {
			return proof{}, err
		}
		p.opt.Webroot = strings.TrimSpace(answer)
	}
	if !strings.HasPrefix(p.opt.Webroot, "/") {
		return proof{}, fmt.Errorf("--webroot: %q is no absolute path", p.opt.Webroot)
	}
	if info, err := os.Stat(p.at(p.opt.Webroot)); p.here() && (err != nil || !info.IsDir()) {
		return proof{}, fmt.Errorf("--webroot: there is no folder %s: name the one that the web server serves", p.opt.Webroot)
	}
	return proof{
		values:  []value{{"acme.webroot", p.opt.Webroot}},
		webroot: p.opt.Webroot,
		why:     "http-01 through the files of the web server in " + p.opt.Webroot,
	}, nil
}
