package relay

import (
	"maps"
	"slices"
	"strings"

	"relayd/config"
	"relayd/delivery"
	"relayd/domains"
	"relayd/queue"
)

// A way is how mail for one recipient goes on.
type way struct {
	kind  wayKind
	group string // name of the queue's group; "" is that of the mail exchangers
	route delivery.Route
}

type wayKind int

const (
	byServer  wayKind = iota // along route
	byProgram                // Recipient.Pipe
	byAlias                  // it must be looked up here first
)

// way finds how mail for r goes on. The first that fits decides:
//
//  1. a program that an alias names;
//  2. the hosts that an alias names with "via";
//  3. the mailbox server, for a user's mailbox;
//  4. the aliases, for any other address of a hosted domain or of this host: none leaves by its MX;
//  5. the smarthost of [outbound.to] for the recipient's domain;
//  6. that of [outbound.from] for the domain of the reverse-path under which this copy leaves;
//  7. the smarthost of [outbound];
//  8. the mail exchangers of the recipient's domain, as where 5 or 6 name no smarthost.
//
// Where the mailbox server was taken out of the settings since the message came, 4 tells what is to
// become of it.
func (opt *Options) way(world *domains.Set, r *queue.Recipient) way {
	conf, domain := opt.Config, r.Address.Domain
	switch {
	case len(r.Pipe) > 0:
		return way{kind: byProgram, group: "program " + r.Pipe[0]}
	case len(r.Via) > 0:
		return way{group: "via " + strings.Join(r.Via, "/"), route: delivery.Route{Domain: domain, Hosts: r.Via}}
	case r.Mailbox && conf.Mailbox.LMTP != "":
		return toMailbox(conf, domain)
	case world.Get(domain) != nil || domain == conf.Hostname:
		return way{kind: byAlias, group: "local"}
	}
	return through(smarthostFor(conf, r), domain)
}

// smarthostFor is the smarthost for mail that leaves; the zero one is none.
func smarthostFor(conf *config.Config, r *queue.Recipient) config.Smarthost {
	if w, ok := conf.Outbound.To[r.Address.Domain]; ok {
		return w.Smarthost
	}
	if w, ok := conf.Outbound.From[r.ReturnPath.Domain]; ok {
		return w.Smarthost
	}
	return conf.Outbound.Smarthost
}

// through is the way by a smarthost, if there is one. Each is a group of its own.
func through(smart config.Smarthost, domain string) way {
	route := delivery.Route{Domain: domain}
	if smart.IsZero() {
		return way{route: route}
	}
	route.Hosts, route.User, route.Password = []string{smart.Addr()}, smart.User, smart.Password
	switch smart.Scheme {
	case config.SchemeSubmission:
		route.TLS = delivery.StartTLS
	case config.SchemeSubmissions:
		route.TLS = delivery.Implicit
	}
	return way{group: "smarthost " + smart.Addr(), route: route}
}

func toMailbox(conf *config.Config, domain string) way {
	return way{
		group: "lmtp " + conf.Mailbox.LMTP,
		route: delivery.Route{Domain: domain, Hosts: []string{conf.Mailbox.LMTP}, LMTP: true},
	}
}

// A Fixed is a way that the settings name, for a check that it can be gone.
type Fixed struct {
	Key   string // where it stands in relayd.toml, such as "outbound.smarthost"
	Route delivery.Route
}

// FixedWays lists the smarthosts and the mailbox server of the settings. A route's Domain is that of
// its table, if it has one.
func FixedWays(conf *config.Config) []Fixed {
	var list []Fixed
	if smart := conf.Outbound.Smarthost; !smart.IsZero() {
		list = append(list, Fixed{"outbound.smarthost", through(smart, "").route})
	}
	for _, name := range []string{"to", "from"} {
		table := map[string]map[string]config.Way{"to": conf.Outbound.To, "from": conf.Outbound.From}[name]
		for _, domain := range slices.Sorted(maps.Keys(table)) {
			if smart := table[domain].Smarthost; !smart.IsZero() {
				list = append(list, Fixed{"outbound." + name + `."` + domain + `".smarthost`, through(smart, domain).route})
			}
		}
	}
	if conf.Mailbox.LMTP != "" {
		list = append(list, Fixed{"mailbox.lmtp", toMailbox(conf, "").route})
	}
	return list
}
