package relay

import (
	"errors"
	"os"
	"strings"

	"relayd/address"
	"relayd/aliases"
	"relayd/config"
	"relayd/domains"
	"relayd/problem"
	"relayd/reply"
	"relayd/srs"
)

// A destination is where an accepted address leads.
type destination struct {
	remote   bool            // not ours: to the domain's mail exchangers
	back     address.Address // an SRS address: back to this sender
	targets  []aliases.Final
	held     bool // postmaster mail that nobody is named for
	catchAll bool // the address has no alias of its own
	domain   *domains.Domain
}

type accepted struct {
	Recipient
	destination
}

// locate finds where mail from sender for an address leads.
func (opt *Options) locate(world *domains.Set, sender, to address.Address) (destination, error) {
	d := world.Get(to.Domain)
	switch {
	case srs.IsSRS(to.Local) && RewritesWith(opt.Config, world, to.Domain):
		return opt.reverse(sender, to)
	case d == nil && to.Domain == opt.Config.Hostname && isPostmaster(to.Local):
		return opt.postmaster(world, to)
	case d == nil:
		return destination{remote: true}, nil
	case d.Broken != nil:
		return destination{}, errUnavailable.Because(d.Broken)
	}
	view := &viewOf{Set: world}
	res, err := aliases.Resolve(view, to)
	switch {
	case view.broken != nil:
		return destination{}, errUnavailable.Because(view.broken)
	case errors.Is(err, aliases.ErrNoSuchAddress) && isPostmaster(to.Local):
		return opt.postmaster(world, to)
	case errors.Is(err, aliases.ErrNoSuchAddress):
		return destination{}, reply.New(550, "5.1.1", errUnknown, to)
	case err != nil:
		return destination{}, reply.Internal(err)
	}
	return destination{targets: res.Targets, domain: d, catchAll: res.Steps[0].Via == aliases.CatchAll}, nil
}

// A viewOf notices when an address leads through a domain that is broken at the moment: what it
// leads to is then not known, which is no reason to refuse it nor to leave a target out.
type viewOf struct {
	*domains.Set
	broken error
}

func (v *viewOf) Table(domain string) *aliases.Table {
	if d := v.Get(domain); d != nil && d.Broken != nil {
		v.broken = d.Broken
	}
	return v.Set.Table(domain)
}

func isPostmaster(local string) bool {
	return strings.EqualFold(local, "postmaster") || strings.EqualFold(local, "abuse")
}

// postmaster takes mail that every domain must take (RFC 5321 section 4.5.1, RFC 2142) and that
// no alias takes: to the admin's address, or kept until one is named.
func (opt *Options) postmaster(world *domains.Set, to address.Address) (destination, error) {
	where := destination{domain: world.Get(to.Domain)}
	if where.targets = adminTargets(opt.Config, world); where.targets == nil {
		where.held = true
		opt.Log.Warn("mail for "+to.String()+" is held: have `postmaster` in relayd.toml name an address that gets mail, or an alias, then `relay-util queue-release`", "to", to.String())
	}
	return where, nil
}

// CheckSRSDomain warns of an srs_domain in relayd.toml that has no key.
func CheckSRSDomain(conf *config.Config, world *domains.Set) problem.List {
	name := conf.Forward.SRSDomain
	if name == "" || world.Get(name) != nil {
		return nil
	}
	text, _ := os.ReadFile(conf.File()) // else without its line
	return problem.List{problem.At(conf.File(), config.Line(text, "forward", "srs_domain"), domains.NotHosted, name)}
}

// RewritesWith reports whether SRS addresses in a domain are ours: none of them ever reaches an alias.
func RewritesWith(conf *config.Config, world *domains.Set, name string) bool {
	if world.Get(name) != nil || name == conf.Forward.SRSDomain {
		return true
	}
	for _, d := range world.All() {
		if d.Settings.SRSDomain == name {
			return true
		}
	}
	return false
}

// srsDomain is the domain in whose name copies for d leave.
func (opt *Options) srsDomain(d *domains.Domain) string {
	switch {
	case d.Settings.SRSDomain != "":
		return d.Settings.SRSDomain
	case opt.Config.Forward.SRSDomain != "":
		return opt.Config.Forward.SRSDomain
	}
	return d.Name
}

// reverse leads a bounce back to whom the forwarded mail came from. Only bounces come to such an
// address; for anybody else, and with a hash that is not ours, it does not exist.
func (opt *Options) reverse(sender, to address.Address) (destination, error) {
	unknown := reply.New(550, "5.1.1", errUnknown, to)
	if !sender.IsNull() {
		return destination{}, unknown.Because(errors.New("mail to an SRS address that is not a bounce"))
	}
	back, err := opt.SRS.Reverse(to, opt.Now())
	if err != nil {
		return destination{}, unknown.Because(err)
	}
	return destination{back: back}, nil
}
