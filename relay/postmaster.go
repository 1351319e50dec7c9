package relay

import (
	"path/filepath"

	"relayd/address"
	"relayd/aliases"
	"relayd/config"
	"relayd/domains"
	"relayd/problem"
)

// CheckPostmaster warns of hosted domains whose postmaster mail nobody gets: it is then held in
// the queue, for it must be taken (RFC 5321 section 4.5.1).
func CheckPostmaster(conf *config.Config, world *domains.Set) problem.List {
	if conf.Postmaster != "" {
		return nil
	}
	var warnings problem.List
	for _, d := range world.All() {
		if d.Broken != nil {
			continue
		}
		if _, err := aliases.Resolve(world, address.Address{Local: "postmaster", Domain: d.Name}); err != nil {
			warnings = append(warnings, problem.At(filepath.Join(conf.DomainsDir(), d.Name), 0,
				"nobody gets the mail for postmaster@%s: give `postmaster` in relayd.toml an address, or the domain an alias", d.Name))
		}
	}
	return warnings
}
