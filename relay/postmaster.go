package relay

import (
	"errors"
	"path/filepath"

	"relayd/address"
	"relayd/aliases"
	"relayd/config"
	"relayd/domains"
	"relayd/problem"
)

// Resolve finds the final targets of an address in a hosted domain that is not broken, as for mail of
// strangers. What every domain must take (RFC 5321 section 4.5.1, RFC 2142) and no alias takes goes to
// `postmaster` of relayd.toml; where that is set, admin tells so, and the rest is about its address.
func Resolve(conf *config.Config, world *domains.Set, a address.Address) (res aliases.Resolution, admin bool, err error) {
	res, err = aliases.Resolve(world, a)
	if !errors.Is(err, aliases.ErrNoSuchAddress) || !isPostmaster(a.Local) || conf.Postmaster == "" {
		return res, false, err
	}
	res, err = resolveAdmin(conf, world)
	return res, true, err
}

func resolveAdmin(conf *config.Config, world *domains.Set) (aliases.Resolution, error) {
	admin, err := address.Parse(conf.Postmaster)
	if err != nil {
		return aliases.Resolution{}, err
	}
	if world.Get(admin.Domain) == nil {
		return aliases.Resolution{Targets: []aliases.Final{{Target: aliases.Target{Address: admin}}}}, nil
	}
	return aliases.Resolve(world, admin)
}

// adminTargets is where the mail of `postmaster` in relayd.toml goes, nil if it goes nowhere.
func adminTargets(conf *config.Config, world *domains.Set) []aliases.Final {
	res, err := resolveAdmin(conf, world)
	if err != nil {
		return nil
	}
	return res.Targets
}

// CheckPostmaster warns of hosted domains whose postmaster mail nobody gets: it is then held in
// the queue, for it must be taken (RFC 5321 section 4.5.1).
func CheckPostmaster(conf *config.Config, world *domains.Set) problem.List {
	if adminTargets(conf, world) != nil {
		return nil
	}
	why := "give `postmaster` in relayd.toml an address, or the domain an alias"
	if conf.Postmaster != "" {
		why = "`postmaster` in relayd.toml, " + conf.Postmaster + ", leads nowhere"
	}
	var warnings problem.List
	for _, d := range world.All() {
		if d.Broken != nil {
			continue
		}
		if !leads(world, postmasterOf(d.Name)) {
			warnings = append(warnings, problem.At(filepath.Join(conf.DomainsDir(), d.Name), 0, "nobody gets the mail for postmaster@%s: %s", d.Name, why))
		}
	}
	return warnings
}

func postmasterOf(domain string) address.Address {
	return address.Address{Local: "postmaster", Domain: domain}
}

// leads reports whether anybody gets mail for a hosted address.
func leads(world *domains.Set, a address.Address) bool {
	_, err := aliases.Resolve(world, a)
	return err == nil
}
