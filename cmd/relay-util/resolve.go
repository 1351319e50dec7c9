package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"relayd/address"
	"relayd/aliases"
	"relayd/relay"
	"relayd/srs"
)

// A step is one rule on the way of `aliases-resolve`.
type step struct {
	Address string `json:"address"`
	Rule    string `json:"rule,omitempty"`
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Via     string `json:"via"` // how the rule was found
}

// A resolution is what `aliases-resolve --json` prints.
type resolution struct {
	Targets []string `json:"targets"`
	Steps   []step   `json:"steps"`

	Explanation *explanation `json:"explanation,omitempty"`

	leaves bool // some target is on another server
}

// String is the step as people read it.
func (s step) String() string {
	switch {
	case s.Rule == "":
		return fmt.Sprintf("%s has a mailbox here", s.Address)
	case s.File == "":
		return fmt.Sprintf("%s (%s): %s", s.Address, s.Via, s.Rule)
	case s.Line == 0:
		return fmt.Sprintf("%s (%s) by %s: %s", s.Address, s.Via, s.File, s.Rule)
	}
	return fmt.Sprintf("%s (%s) by %s:%d: %s", s.Address, s.Via, s.File, s.Line, s.Rule)
}

func (t *tool) aliasesResolve() *cobra.Command {
	c := &cobra.Command{
		Use:     "aliases-resolve ADDR",
		Short:   "Print where mail for an address ends up, and then, indented, the rules that say so.",
		Example: "relay-util aliases-resolve shop@example.org --explain",
	}
	explain := c.Flags().Bool("explain", false, "say also how the mail leaves: reverse-path, SPF, DKIM and DMARC")
	return t.verb(c, between(1, 1), func(_ context.Context, args []string) error {
		a, err := address.Parse(args[0])
		if err != nil {
			return err
		}
		w, err := t.world()
		if err != nil {
			return err
		}
		if srs.IsSRS(a.Local) && relay.RewritesWith(w.Config, w.Set, a.Domain) {
			return t.resolveSRS(w, a)
		}
		if _, err := w.hosted(a.Domain); err != nil {
			return t.noTarget(newResolution(aliases.Resolution{}), err)
		}
		if d := w.Get(a.Domain); d.Broken != nil {
			return d.Broken
		}
		res, err := w.resolve(a, t.configFile)
		if expired, ok := errors.AsType[*aliases.ExpiredError](err); ok {
			r := expired.Rule
			return t.noTarget(res, fmt.Errorf("nothing takes mail for %s: its alias %s:%d %s; renew it with `relay-util alias-add '%s' TARGET --expires 30d`",
				a, r.File, r.Line, t.expiry(*r), wholeLeft(r.Left, a.Domain)))
		}
		if errors.Is(err, aliases.ErrNoSuchAddress) {
			return t.noTarget(res, fmt.Errorf("no alias takes mail for %s; add one with `relay-util alias-add %[1]s TARGET`", a))
		}
		if err != nil {
			return err
		}
		if *explain {
			res.Explanation = w.explain(a, res)
		}
		return t.printResolution(res)
	})
}

// resolveSRS says to whom a bounce goes back that comes to a rewritten sender. No alias and no
// catch-all ever gets it.
func (t *tool) resolveSRS(w world, a address.Address) error {
	none := newResolution(aliases.Resolution{})
	rewriter, err := w.rewriter()
	if err != nil {
		return t.noTarget(none, fmt.Errorf("%s is an SRS address, and whether it is one of ours cannot be told: %w", a, err))
	}
	back, err := rewriter.Reverse(a, t.now())
	switch {
	case errors.Is(err, srs.ErrExpired) && strings.Contains(a.Local, "=="):
		return t.noTarget(none, fmt.Errorf("%s stands for a sender whose name was too long: relayd alone knows it, and a bounce goes back to it; any other mail is refused with 550 5.1.1", a))
	case err != nil:
		return t.noTarget(none, fmt.Errorf("mail to %s is refused with 550 5.1.1, and no catch-all takes it: it is an %w", a, err))
	}
	return t.printResolution(resolution{Targets: []string{back.String()}, Steps: []step{{
		Address: a.String(), Via: "SRS", Rule: "a bounce, with MAIL FROM:<>, goes back to whom the message came from; any other mail is refused with 550 5.1.1",
	}}})
}

// rewriter undoes what the daemon has rewritten. It makes no file of secrets.
func (w world) rewriter() (*srs.Rewriter, error) {
	file := filepath.Join(w.StateDir, "srs-secrets")
	if _, err := os.Stat(file); err != nil {
		return nil, err
	}
	secrets, err := srs.LoadSecrets(file)
	if err != nil {
		return nil, err
	}
	return srs.New(srs.Options{Secrets: secrets})
}

// noTarget gives a program the lists that it reads, empty, before why they are.
func (t *tool) noTarget(r resolution, why error) error {
	if t.json {
		return errors.Join(t.printJSON(r), why)
	}
	return why
}

// resolve finds the final targets as the daemon does.
func (w world) resolve(a address.Address, settings string) (resolution, error) {
	res, admin, err := relay.Resolve(w.Config, w.Set, a)
	r := newResolution(res)
	if admin {
		first := step{Address: a.String(), Rule: "postmaster = " + w.Postmaster, File: settings, Via: "no alias"}
		r.Steps = append([]step{first}, r.Steps...)
	}
	return r, err
}

func newResolution(res aliases.Resolution) resolution {
	r := resolution{Targets: []string{}, Steps: []step{}} // not nil, which is null in JSON
	for _, target := range res.Targets {
		r.Targets = append(r.Targets, target.String())
		r.leaves = r.leaves || !target.Mailbox && target.Pipe == nil
	}
	for _, s := range res.Steps {
		next := step{Address: s.Address.String(), Via: string(s.Via)}
		if s.Rule != nil {
			next.Rule, next.File, next.Line = s.Rule.String(), s.Rule.File, s.Rule.Line
		}
		r.Steps = append(r.Steps, next)
	}
	return r
}

func (t *tool) printResolution(r resolution) error {
	if t.json {
		return t.printJSON(r)
	}
	for _, target := range r.Targets {
		t.say("%s", target)
	}
	for _, s := range r.Steps {
		t.say("  %s", s)
	}
	if r.Explanation != nil {
		t.printExplanation(r.Explanation)
	}
	return nil
}
