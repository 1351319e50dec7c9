package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"relayd/config"
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
		cfg, missing := t.settings()
		opt := moving.ChasquidOptions{BcryptCost: config.Default().Auth.BcryptCost}
		switch {
		case missing == nil:
			opt = moving.ChasquidOptions{BcryptCost: cfg.Auth.BcryptCost, AllowPipe: cfg.Aliases.AllowPipe}
		case !errors.Is(missing, errNoSettings):
			return missing
		}
		plan, err := moving.Chasquid(args[0], opt)
		if err != nil {
			return err
		}
		if missing != nil && plan.Hostname == "" {
			return missing
		}
		return t.moveIn(plan, cfg, *dry)
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
		cfg, err := t.settings()
		if err != nil {
			return err
		}
		plan, err := moving.PostfixVirtual(args[0])
		if err != nil {
			return err
		}
		return t.moveIn(plan, cfg, *dry)
	})
}

// moveIn takes over a plan and says what was done, or would be.
func (t *tool) moveIn(plan *moving.Plan, cfg *config.Config, dry bool) error {
	o, err := moving.MoveIn(plan, moving.Options{File: t.configFile, Config: cfg, Dry: dry, Warn: t.warn})
	if err != nil {
		return err
	}
	if !dry {
		t.nudge(place{Config: o.Config}, o.Config.Dir())
	}
	if t.json {
		return t.printMoveInJSON(o, dry)
	}
	t.printMoveIn(o, dry)
	return nil
}

func (t *tool) printMoveInJSON(o *moving.Outcome, dry bool) error {
	certs := []string{}
	for _, c := range o.Certs {
		certs = append(certs, c.Name)
	}
	return t.printJSON(struct {
		DryRun       bool           `json:"dry_run"`
		Domains      []moving.Moved `json:"domains"`
		Certificates []string       `json:"certificates"`
		Settings     bool           `json:"settings"`
		Left         problem.List   `json:"left"`
		Warnings     problem.List   `json:"warnings"`
	}{dry, o.Domains, certs, o.Made, append(problem.List{}, o.Left...), append(problem.List{}, o.Warnings...)})
}

func (t *tool) printMoveIn(o *moving.Outcome, dry bool) {
	verb := "imported"
	if dry {
		verb = "would import"
	}
	for _, d := range o.Domains {
		t.say("%s %s: %s, %s, %s", verb, d.Domain, count(d.Users, "user"), number(d.Aliases, "alias", "aliases"), count(d.Keys, "DKIM key"))
		if d.Old > 0 {
			t.say("  %s with a hash by scrypt, which the next login replaces by one of bcrypt; until then other programs cannot read it", count(d.Old, "user"))
		}
		if d.MadeKey {
			t.say("  a DKIM key is made, for it has none; publish it: relay-util dkim-dns %s", d.Domain)
		}
	}
	for _, c := range o.Certs {
		t.say("%s the certificate %s, as a copy: have whatever renews it write to %s", verb, c.Name, o.Config.CertsDir())
	}
	if o.Made {
		t.say("%s the settings into %s", verb, t.configFile)
	}
	if len(o.Domains)+len(o.Certs) == 0 && !o.Made {
		t.say("there is nothing to import")
	}
	if len(o.Left) > 0 {
		t.say("\nleft out:\n%v", o.Left)
	}
	if len(o.Warnings) > 0 {
		t.say("\nto look at:\n%v", o.Warnings)
	}
}

func number(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
