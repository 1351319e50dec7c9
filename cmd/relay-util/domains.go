package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"relayd/address"
	"relayd/aliases"
	"relayd/config"
	"relayd/control"
	"relayd/dkim"
	"relayd/doctor"
	"relayd/domains"
)

func (t *tool) domainVerbs() []*cobra.Command {
	return []*cobra.Command{t.domainAdd(), t.domainList(), t.domainRemove()}
}

func (t *tool) domainAdd() *cobra.Command {
	c := &cobra.Command{
		Use:     "domain-add DOMAIN [--forward ADDR]",
		Short:   "Host a domain: make its folder with a DKIM key, and say what to publish in DNS.",
		Example: "relay-util domain-add example.org --forward me@gmail.com",
	}
	forward := c.Flags().String("forward", "", "send the mail for all its names to `ADDR`")
	return t.verb(c, between(1, 1), func(_ context.Context, args []string) error {
		w, err := t.world()
		if err != nil {
			return err
		}
		name, err := w.free(args[0])
		if err != nil {
			return err
		}
		text, err := w.catchAll(name, *forward)
		if err != nil {
			return err
		}
		key, err := domains.Make(w.DomainsDir(), name, text)
		if err != nil {
			return err
		}
		t.nudge(w.place, filepath.Join(w.DomainsDir(), name))
		return t.printToPublish(w, name, key)
	})
}

// free checks that a domain can be made.
func (w world) free(domain string) (string, error) {
	name, err := address.Domain(domain)
	switch {
	case err != nil:
		return "", err
	case w.folders[name] != "":
		return "", fmt.Errorf("%s is hosted already; add users and aliases with `relay-util user-add` and `relay-util alias-add`", name)
	}
	return name, domains.CheckFree(w.DomainsDir(), name)
}

// catchAll is the first alias file of a domain: empty, or with one rule.
func (w world) catchAll(domain, forward string) ([]byte, error) {
	if forward == "" {
		return nil, nil
	}
	to, err := address.Parse(forward)
	if err != nil {
		return nil, err
	}
	opt := w.options(&domains.Domain{Name: domain, Settings: config.DefaultDomain()})
	rule, err := aliases.NewRule("*", []string{aliases.Target{Address: to}.String()}, opt)
	if err != nil {
		return nil, err
	}
	text, err := aliases.Add(nil, rule)
	if err == nil {
		_, _, err = w.judge(opt, filepath.Join(w.DomainsDir(), domain, "aliases"), text)
	}
	return text, err
}

// printToPublish says which DNS records a new domain needs. Nobody is asked: it works without a
// network.
func (t *tool) printToPublish(w world, domain string, key *dkim.Key) error {
	site := doctor.Site{Hostname: w.Hostname, Domain: domain, SRSDomain: w.Forward.SRSDomain, Keys: []*dkim.Key{key}}
	site.Addresses, _ = doctor.PublicAddresses() // without them the line of the address is for a person to fill in
	records := doctor.Needed(site)
	if t.json {
		return t.printJSON(records)
	}
	t.say("%s is hosted here now. Publish these records in its DNS:\n", domain)
	t.say("%s", doctor.ZoneFile(domain, records))
	t.say("Then: relay-util dns %s --check", domain)
	return nil
}

func (t *tool) domainList() *cobra.Command {
	c := &cobra.Command{
		Use:     "domain-list",
		Short:   "List the hosted domains, with how many users, aliases and DKIM keys each has.",
		Example: "relay-util domain-list --json",
	}
	return t.verb(c, between(0, 0), func(context.Context, []string) error {
		w, err := t.world()
		if err != nil {
			return err
		}
		list := []control.DomainStatus{}
		for _, d := range w.All() {
			s := control.DomainStatus{Name: d.Name, Users: len(d.Users.All()), Keys: len(d.Keys), Broken: d.Broken != nil, Stale: d.Stale}
			if d.Aliases != nil {
				s.Aliases = len(d.Aliases.Rules())
			}
			list = append(list, s)
		}
		if t.json {
			err = t.printJSON(list)
		} else {
			err = t.printDomains(list)
		}
		if err != nil {
			return err
		}
		return broken(w.All())
	})
}

func (t *tool) printDomains(list []control.DomainStatus) error {
	if len(list) == 0 {
		return nil
	}
	tw := t.table()
	fmt.Fprintln(tw, "DOMAIN\tUSERS\tALIASES\tDKIM KEYS\tSTATE")
	for _, d := range list {
		state := "ok"
		switch {
		case d.Broken:
			state = "broken"
		case d.Stale:
			state = "old copy"
		case d.Keys == 0:
			state = "unsigned"
		}
		fmt.Fprintf(tw, "%s\t%d\t%d\t%d\t%s\n", d.Name, d.Users, d.Aliases, d.Keys, state)
	}
	return tw.Flush()
}

func (t *tool) domainRemove() *cobra.Command {
	c := &cobra.Command{
		Use:   "domain-remove DOMAIN",
		Short: "Host a domain no longer: remove its folder with users, aliases and keys.",
		Long: `Host a domain no longer: remove its folder with users, aliases and keys. On a terminal it asks first. Where nobody
can be asked, and --yes is not given, the folder is only put aside, under a name that begins with a dot.`,
		Example: "relay-util domain-remove example.org --yes",
	}
	yes := c.Flags().Bool("yes", false, "do not ask")
	return t.verb(c, between(1, 1), func(_ context.Context, args []string) error {
		p, err := t.place()
		if err != nil {
			return err
		}
		name, err := p.hosted(args[0])
		if err != nil {
			return err
		}
		dir := p.folders[name]
		if _, ok := t.terminal(); !ok && !*yes {
			aside, err := domains.PutAside(dir)
			if err != nil {
				return err
			}
			t.nudge(p, dir)
			return t.did("domain", name, "removed "+name+"; its files are in "+aside+" until you delete them")
		}
		if !*yes {
			if err := t.confirm(fmt.Sprintf("This removes %s with all users, aliases and keys of %s.", dir, name)); err != nil {
				return err
			}
		}
		if err := domains.Remove(dir); err != nil {
			return err
		}
		t.nudge(p, dir)
		return t.did("domain", name, "removed "+name)
	})
}
