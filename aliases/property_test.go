package aliases

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"relayd/address"
)

// drawWorld makes three domains with few names, so that rules meet often.
func drawWorld(t *rapid.T, options func(domain string) Options) world {
	w := world{make(map[string]*Table), make(map[string]bool)}
	domains := []string{"a.org", "b.org", "c.org"}
	names := []string{"p", "q", "r.s", "rs", "p+t", "q+u"}
	target := rapid.Custom(func(t *rapid.T) string {
		local := rapid.SampledFrom(append([]string{"*", "Q", "r.s+x"}, names...)).Draw(t, "local")
		domain := rapid.SampledFrom(append([]string{"x.org"}, domains...)).Draw(t, "domain")
		via := rapid.SampledFrom([]string{"", "", "", "", " via h.example"}).Draw(t, "via")
		return local + "@" + domain + via
	})
	for _, domain := range domains {
		lefts := rapid.SliceOfDistinct(rapid.SampledFrom(append([]string{"*"}, names...)), rapid.ID).Draw(t, domain)
		var text strings.Builder
		for _, left := range lefts {
			targets := rapid.SliceOfN(target, 1, 2).Draw(t, "targets")
			fmt.Fprintf(&text, "%s: %s\n", left, strings.Join(targets, ", "))
		}
		table, err := Parse(domain, strings.NewReader(text.String()), options(domain))
		if err != nil {
			t.Fatal(err)
		}
		w.tables[domain] = table
		for _, box := range rapid.SliceOfN(rapid.SampledFrom(names), 0, 2).Draw(t, "mailboxes") {
			w.mailboxes[box+"@"+domain] = true
		}
	}
	return w
}

func uniform(domain string) Options {
	return Options{Domain: domain, SuffixSeparators: "+", DropCharacters: "."}
}

// someNames is more than the names of drawWorld: with suffixes, dots, and in upper case.
var someNames = []string{"p", "P", "q", "r.s", "rs", "p+t", "q+u", "p+new", "q.", ".r.s+new", "new", "+t", "N.ew+x", "*"}

// longestChain counts rules naively along every way from addr; above limit it may be endless.
func longestChain(w world, a address.Address, limit int) int {
	t := w.Table(a.Domain)
	m, ok := lookup(w, t, a)
	if !ok || m.rule == nil {
		return 0
	}
	return chainBelow(w, m.rule, a.Local, limit)
}

func chainBelow(w world, r *Rule, local string, limit int) int {
	if limit == 0 {
		return 1
	}
	longest := 0
	for _, target := range r.Targets {
		if to, ok := follow(w, r, target, local); ok && to.rule != nil {
			longest = max(longest, chainBelow(w, to.rule, to.address.Local, limit-1))
		}
	}
	return 1 + longest
}

// Check finds exactly the files in which some address goes in a circle or too far.
func TestCheckIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t, uniform)
		deep := ""
		for domain := range w.tables {
			for _, name := range someNames {
				if a := (address.Address{Local: name, Domain: domain}); longestChain(w, a, maxChain) > maxChain {
					deep = a.String()
				}
			}
		}
		list := Check(w, w.all())
		if (deep != "") != (len(list) > 0) {
			t.Fatalf("%q goes too far, Check says %v", deep, list)
		}
	})
}

// Whatever the files say, Resolve ends, and its answer needs no further look-up.
func TestResolveAnswersAreFinal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t, func(domain string) Options {
			return Options{
				Domain:           domain,
				SuffixSeparators: rapid.SampledFrom([]string{"", "+", "+-"}).Draw(t, "separators"),
			}
		})
		checked := len(Check(w, w.all())) == 0
		for domain := range w.tables {
			for _, name := range someNames {
				res, err := Resolve(w, address.Address{Local: name, Domain: domain})
				if err != nil {
					if checked && !errors.Is(err, ErrNoSuchAddress) {
						t.Fatalf("%s@%s: %v after a clean Check", name, domain, err)
					}
					continue
				}
				if len(res.Targets) == 0 {
					t.Fatalf("%s@%s: no targets and no error", name, domain)
				}
				for i, f := range res.Targets {
					hosted := w.Table(f.Address.Domain) != nil
					if f.KeepLocal || hosted && f.Via == nil && !(f.Mailbox && w.HasMailbox(f.Address)) || f.Mailbox && !hosted {
						t.Fatalf("%s@%s: %s is not final", name, domain, f)
					}
					if slices.ContainsFunc(res.Targets[:i], func(g Final) bool { return g.Mailbox == f.Mailbox && g.Address == f.Address }) {
						t.Fatalf("%s@%s: %s stands twice", name, domain, f)
					}
				}
			}
		}
	})
}
