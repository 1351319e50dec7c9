package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"relayd/config"
	"relayd/domains"
	"relayd/moving"
	"relayd/problem"
)

func (t *tool) movingVerbs() []*cobra.Command {
	return []*cobra.Command{t.backup(), t.restore(), t.importChasquid(), t.importPostfixVirtual()}
}

const dryRun = "say what would be done, and do nothing"

func (t *tool) importChasquid() *cobra.Command {
	c := &cobra.Command{
		Use:   "import-chasquid DIR [--dry-run]",
		Short: "Take over the domains, users, aliases, keys and certificates of a chasquid.",
		Long: "Take over the domains, users, aliases, DKIM keys and certificates of a chasquid from its folder of settings.\n" +
			"Nothing that is here already is changed: where something is in the way, nothing is taken over at all. Users keep their\n" +
			"passwords: a hash by scrypt is good for one more login, which puts one of bcrypt in its place. Without a relayd.toml, one is made.",
		Example: "relay-util import-chasquid /etc/chasquid --dry-run",
	}
	dry := c.Flags().Bool("dry-run", false, dryRun)
	return t.verb(c, between(1, 1), func(_ context.Context, args []string) error {
		w, err := t.world()
		bare := errors.Is(err, errNoSettings)
		if bare {
			w.Config, err = config.Default(), nil
		}
		if err != nil {
			return err
		}
		plan, err := moving.Chasquid(args[0], moving.ChasquidOptions{BcryptCost: w.Auth.BcryptCost, AllowPipe: w.Aliases.AllowPipe})
		if err != nil {
			return err
		}
		m := &moveIn{t: t, world: w, plan: plan, dry: *dry}
		if bare {
			err = m.firstSettings()
		} else {
			m.compareSettings()
		}
		if err != nil {
			return err
		}
		return m.run()
	})
}

func (t *tool) importPostfixVirtual() *cobra.Command {
	c := &cobra.Command{
		Use:   "import-postfix-virtual FILE [--dry-run]",
		Short: "Take over a table of virtual aliases of Postfix, from the text that postmap reads.",
		Long: "Take over a table of virtual aliases of Postfix, from the text that postmap reads. Domains that are not hosted yet are\n" +
			"made. No alias that is here already is changed: where one leads elsewhere, nothing is taken over at all.",
		Example: "relay-util import-postfix-virtual /etc/postfix/virtual --dry-run",
	}
	dry := c.Flags().Bool("dry-run", false, dryRun)
	return t.verb(c, between(1, 1), func(_ context.Context, args []string) error {
		w, err := t.world()
		if err != nil {
			return err
		}
		plan, err := moving.PostfixVirtual(args[0])
		if err != nil {
			return err
		}
		return (&moveIn{t: t, world: w, plan: plan, dry: *dry}).run()
	})
}

// firstSettings makes the text of a relayd.toml where there is none.
func (m *moveIn) firstSettings() error {
	if m.plan.Hostname == "" {
		_, err := m.t.settings()
		return err
	}
	m.settings = fmt.Appendf(nil, "hostname = %q\n", m.plan.Hostname)
	if m.plan.MessageSizeMB > 0 {
		m.settings = fmt.Appendf(m.settings, "\n[limits]\nmessage_size = \"%dMB\"\n", m.plan.MessageSizeMB)
	}
	cfg, err := config.Parse(m.t.configFile, m.settings)
	if err != nil {
		return err
	}
	folders, err := domains.Folders(cfg.DomainsDir())
	m.place, m.Set = place{cfg, folders}, new(domains.Set)
	return err
}

// compareSettings leaves the settings that are here as they are.
func (m *moveIn) compareSettings() {
	if here, there := m.Hostname, m.plan.Hostname; there != "" && here != there {
		m.leave(m.t.configFile, "hostname stays %s, and there it is %s", here, there)
	}
	size := config.Size(m.plan.MessageSizeMB) * config.MB
	if size != 0 && m.Limits.MessageSize != size {
		m.leave(m.t.configFile, "limits.message_size stays %v, and there it is %v", m.Limits.MessageSize, size)
	}
}

func (m *moveIn) leave(file, format string, args ...any) {
	m.plan.Left = append(m.plan.Left, problem.At(file, 0, format, args...))
}

// A movedDomain is a domain as `import-… --json` shows one.
type movedDomain struct {
	Domain  string `json:"domain"`
	New     bool   `json:"new"`
	Users   int    `json:"users"`
	Aliases int    `json:"aliases"`
	Keys    int    `json:"keys"`
	old     int    // users whose hash is by scrypt
	made    bool   // its key was made here
}

// print says what was done, or what would be.
func (m *moveIn) print() error {
	slices.SortStableFunc(m.plan.Left, func(a, b problem.Problem) int { return cmp.Or(strings.Compare(a.File, b.File), a.Line-b.Line) })
	if m.t.json {
		certs := []string{}
		for _, c := range m.plan.Certs {
			certs = append(certs, c.Name)
		}
		return m.t.printJSON(struct {
			DryRun       bool          `json:"dry_run"`
			Domains      []movedDomain `json:"domains"`
			Certificates []string      `json:"certificates"`
			Settings     bool          `json:"settings"`
			Left         problem.List  `json:"left"`
			Warnings     problem.List  `json:"warnings"`
		}{m.dry, m.moved, certs, m.settings != nil, append(problem.List{}, m.plan.Left...), append(problem.List{}, m.warnings...)})
	}
	verb := "imported"
	if m.dry {
		verb = "would import"
	}
	for _, d := range m.moved {
		m.t.say("%s %s: %s, %s, %s", verb, d.Domain, count(d.Users, "user"), number(d.Aliases, "alias", "aliases"), count(d.Keys, "DKIM key"))
		if d.old > 0 {
			m.t.say("  %s with a hash by scrypt, which the next login replaces by one of bcrypt; until then other programs cannot read it", count(d.old, "user"))
		}
		if d.made {
			m.t.say("  a DKIM key is made, for it has none; publish it: relay-util dkim-dns %s", d.Domain)
		}
	}
	for _, c := range m.plan.Certs {
		m.t.say("%s the certificate %s, as a copy: have whatever renews it write to %s", verb, c.Name, m.CertsDir())
	}
	if m.settings != nil {
		m.t.say("%s the settings into %s", verb, m.t.configFile)
	}
	if len(m.moved)+len(m.plan.Certs) == 0 && m.settings == nil {
		m.t.say("there is nothing to import")
	}
	if len(m.plan.Left) > 0 {
		m.t.say("\nleft out:\n%v", m.plan.Left)
	}
	if len(m.warnings) > 0 {
		m.t.say("\nto look at:\n%v", m.warnings)
	}
	return nil
}

func number(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
