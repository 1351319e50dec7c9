package relay

import (
	"slices"
	"strings"

	"relayd/address"
	"relayd/aliases"
	"relayd/config"
	"relayd/domains"
	"relayd/reply"
	"relayd/srs"
)

// mayUse returns the refusal if user may not send as an address; where says in which place.
func mayUse(world *domains.Set, user, as address.Address, where string) error {
	d := world.Get(user.Domain)
	switch {
	case d == nil || d.Broken != nil:
		return errUnavailable
	case srs.IsSRS(as.Local) && world.Get(as.Domain) != nil: // a bounce to it would go to a stranger
	case isOwn(d, user, as), isGranted(d, user, as):
		return nil
	case d.Settings.SenderPolicy == config.SenderDomain && as.Domain == user.Domain:
		return nil
	case d.Settings.SenderPolicy == config.SenderSameTarget && sharesTargets(world, d, user, as):
		return nil
	}
	return reply.New(550, "5.7.1", "<%s> may not send as <%s> (%s): use your own address or one that is forwarded to you, or have it granted by send_as in domain.toml", user, as, where)
}

// isOwn: the user's address itself, with any suffix.
func isOwn(d *domains.Domain, user, as address.Address) bool {
	return as.Domain == user.Domain && withoutSuffix(d, as.Local) == strings.ToLower(user.Local) || as.Key() == user.Key()
}

func withoutSuffix(d *domains.Domain, local string) string {
	local = strings.ToLower(local)
	if i := strings.IndexAny(local, d.Settings.SuffixSeparators); i > 0 {
		return local[:i]
	}
	return local
}

// isGranted: what send_as in domain.toml names.
func isGranted(d *domains.Domain, user, as address.Address) bool {
	grants := d.Settings.SendAs[strings.ToLower(user.Local)]
	return slices.Contains(grants, as.Key()) || slices.Contains(grants, "*@"+as.Domain)
}

// sharesTargets: whoever gets the mail for an address may answer in its name, unless it is the
// address of somebody else who can log in.
func sharesTargets(world *domains.Set, d *domains.Domain, user, as address.Address) bool {
	if as.Domain != user.Domain || isOtherUser(d, user, as) {
		return false
	}
	mine, err := aliases.Resolve(world, user)
	if err != nil {
		return false
	}
	theirs, err := aliases.Resolve(world, as)
	return err == nil && slices.Equal(targetNames(mine), targetNames(theirs))
}

func isOtherUser(d *domains.Domain, user, as address.Address) bool {
	drop := strings.NewReplacer(pairs(d.Settings.DropCharacters)...)
	for _, name := range []string{strings.ToLower(as.Local), withoutSuffix(d, as.Local)} {
		for _, u := range d.Users.Names() {
			if !strings.EqualFold(u, user.Local) && (u == name || drop.Replace(u) == drop.Replace(name)) {
				return true
			}
		}
	}
	return false
}

// pairs makes the arguments of a Replacer that drops characters.
func pairs(characters string) []string {
	var list []string
	for _, c := range characters {
		list = append(list, string(c), "")
	}
	return list
}

func targetNames(r aliases.Resolution) []string {
	names := make([]string, len(r.Targets))
	for i, t := range r.Targets {
		names[i] = strings.ToLower(t.String())
	}
	slices.Sort(names)
	return slices.Compact(names)
}
