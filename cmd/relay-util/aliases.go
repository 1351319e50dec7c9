package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"relayd/address"
	"relayd/aliases"
	"relayd/domains"
)

func (t *tool) aliasVerbs() []*cobra.Command {
	return []*cobra.Command{t.aliasAdd(), t.aliasRemove(), t.aliasList(), t.aliasesResolve()}
}

// split takes a left side apart into the name and the hosted domain it is in. A bare name is in
// the only domain.
func (w world) split(lhs string) (left string, d *domains.Domain, err error) {
	left, domain, ok := lhs, "", false
	if at := strings.LastIndexByte(lhs, '@'); at >= 0 {
		left, domain, ok = lhs[:at], lhs[at+1:], true
	}
	if ok {
		domain, err = w.hosted(domain)
	} else {
		domain, err = w.only()
	}
	if err != nil {
		return "", nil, err
	}
	return left, w.Get(domain), nil
}

// options are those under which the alias file of d is read.
func (w world) options(d *domains.Domain) aliases.Options {
	return d.AliasOptions(w.Aliases.AllowPipe)
}

func (t *tool) aliasAdd() *cobra.Command {
	c := &cobra.Command{
		Use:   "alias-add LHS TARGET...",
		Short: "Send the mail for LHS, NAME@DOMAIN or *@DOMAIN for every other name, to the targets.",
		Example: "relay-util alias-add shop@example.org me@gmail.com partner@example.net\n" +
			"  relay-util alias-add shop7@example.org me@gmail.com --expires 30d --note 'the shop on 7th street'",
	}
	life := t.lifespanFlags(c)
	parts := func(_ *cobra.Command, args []string) error {
		_, err := joinVia(args[1:])
		return err
	}
	return t.verb(c, cobra.MatchAll(between(2, math.MaxInt), parts), func(_ context.Context, args []string) error {
		list, err := joinVia(args[1:])
		if err != nil {
			return err
		}
		w, err := t.world()
		if err != nil {
			return err
		}
		left, d, err := w.split(args[0])
		if err != nil {
			return err
		}
		rule, err := aliases.NewRule(left, list, w.options(d))
		if err == nil {
			rule, err = life.apply(rule)
		}
		if err != nil {
			return err
		}
		return t.addRule(w, d, rule)
	})
}

// joinVia makes one target of three words like me@example.net via mx.example.net, which are three
// arguments unless somebody has put quotes around them.
func joinVia(words []string) ([]string, error) {
	var list []string
	whole := true // there is no target, or the last one has its host
	for i := 0; i < len(words); i++ {
		switch {
		case !strings.EqualFold(words[i], "via"):
			list, whole = append(list, words[i]), false
		case whole:
			return nil, errors.New("before via stands a target")
		case i+1 == len(words) || strings.EqualFold(words[i+1], "via"):
			return nil, errors.New("after via stands one host or host/host2")
		default:
			list[len(list)-1] += " via " + words[i+1]
			whole = true
			i++
		}
	}
	return list, nil
}

func (t *tool) addRule(w world, d *domains.Domain, rule aliases.Rule) error {
	file := w.file(d.Name, "aliases")
	err := t.edit(w.place, d.Name, "aliases", func(old []byte) ([]byte, error) {
		data, err := t.renewed(w, d, old, rule)
		if err != nil {
			return nil, err
		}
		data, err = aliases.Add(data, rule)
		if errors.Is(err, aliases.ErrExists) {
			err = fmt.Errorf("%w of %s; take it out first with `relay-util alias-remove '%s'`", err, file, wholeLeft(rule.Left, d.Name))
		}
		if err != nil {
			return nil, err
		}
		table, warnings, err := w.judge(w.options(d), file, data)
		if err != nil {
			return nil, err
		}
		for _, p := range warnings {
			if p.Line == table.Rules()[len(table.Rules())-1].Line {
				t.warn("%v", p)
			}
		}
		return data, nil
	})
	if err == nil {
		end := t.expiry(rule)
		if end != "" {
			end = ", " + end
		}
		name := wholeLeft(rule.Left, d.Name)
		err = t.did("alias", name, "added "+name+": "+strings.Join(targets(rule), ", ")+end)
	}
	return err
}

func (t *tool) aliasRemove() *cobra.Command {
	c := &cobra.Command{
		Use:     "alias-remove LHS",
		Short:   "Take an alias, NAME@DOMAIN or *@DOMAIN, out of its file.",
		Example: "relay-util alias-remove shop@example.org",
	}
	return t.verb(c, between(1, 1), func(_ context.Context, args []string) error {
		w, err := t.world()
		if err != nil {
			return err
		}
		left, d, err := w.split(args[0])
		if err != nil {
			return err
		}
		file := w.file(d.Name, "aliases")
		err = t.edit(w.place, d.Name, "aliases", func(old []byte) ([]byte, error) {
			data, err := aliases.Remove(old, left)
			if errors.Is(err, aliases.ErrNoRule) {
				err = fmt.Errorf("%w in %s; `relay-util alias-list %s` shows those that are there", err, file, d.Name)
			}
			if err == nil {
				_, _, err = w.judge(w.options(d), file, data)
			}
			return data, err
		})
		if err == nil {
			err = t.did("alias", left+"@"+d.Name, "removed "+left+"@"+d.Name)
		}
		return err
	})
}

// A listedAlias is a rule as `alias-list --json` shows one.
type listedAlias struct {
	Alias   string    `json:"alias"`
	Targets []string  `json:"targets"`
	File    string    `json:"file"`
	Line    int       `json:"line"`
	Expires time.Time `json:"expires,omitzero"`
	Expired bool      `json:"expired,omitempty"`
	Note    string    `json:"note,omitempty"`

	words string // when it expires
}

func (t *tool) listed(r aliases.Rule, domain string) listedAlias {
	return listedAlias{
		Alias: wholeLeft(r.Left, domain), Targets: targets(r), File: r.File, Line: r.Line,
		Expires: r.Expires, Expired: r.Expired(t.now()), Note: r.Note, words: t.expiry(r),
	}
}

func (t *tool) aliasList() *cobra.Command {
	c := &cobra.Command{
		Use:     "alias-list [DOMAIN]",
		Short:   "List the aliases with their targets, one a line, and when the temporary ones expire.",
		Example: "relay-util alias-list example.org",
	}
	return t.verb(c, between(0, 1), func(_ context.Context, args []string) error {
		w, err := t.world()
		if err != nil {
			return err
		}
		chosen, err := w.chosen(args)
		if err != nil {
			return err
		}
		list := []listedAlias{}
		for _, d := range chosen {
			if d.Aliases == nil {
				continue
			}
			for _, r := range d.Aliases.Rules() {
				list = append(list, t.listed(r, d.Name))
			}
		}
		if err := t.printAliases(list); err != nil {
			return err
		}
		return broken(chosen)
	})
}

func (t *tool) printAliases(list []listedAlias) error {
	if t.json {
		return t.printJSON(list)
	}
	tw := t.table()
	for _, a := range list {
		fmt.Fprintf(tw, "%s\t%s", a.Alias, strings.Join(a.Targets, ", "))
		if a.words != "" {
			fmt.Fprintf(tw, "\t%s", a.words)
		}
		if a.Note != "" {
			fmt.Fprintf(tw, " (%s)", oneLine(a.Note))
		}
		fmt.Fprintln(tw)
	}
	return tw.Flush()
}

// wholeLeft is a left side with its domain.
func wholeLeft(left, domain string) string {
	return address.Address{Local: left, Domain: domain}.String()
}

func targets(r aliases.Rule) []string {
	list := make([]string, len(r.Targets))
	for i, target := range r.Targets {
		list[i] = target.String()
	}
	return list
}
