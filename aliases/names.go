package aliases

import (
	"crypto/sha256"
	"encoding/hex"
	"iter"
	"slices"
	"strconv"
)

// names yields the local parts that can make a difference for the rules of t that keep the local
// part, and in the end one that no table has. It yields none when t has no such rule. Some may
// come twice.
func (c *checker) names(t *Table) iter.Seq[string] {
	return func(yield func(string) bool) {
		if len(c.keptTo(t)) == 0 {
			return
		}
		reach := c.reach(t)
		odd := slices.ContainsFunc(reach, func(other *Table) bool { return !sameCuts(other, t) })
		for _, other := range reach {
			for i := range other.rules {
				left := other.rules[i].Left
				if left == catchAllName {
					continue
				}
				if !yield(left) {
					return
				}
				if bare := other.withoutDrops(left); bare != left && bare != "" && !yield(bare) {
					return
				}
				if !odd {
					continue
				}
				for _, name := range variants(left, reach) {
					if !yield(name) {
						return
					}
				}
			}
		}
		yield(freshName(reach))
	}
}

// keptTo are the hosted domains that rules of t send the kept local part to.
func (c *checker) keptTo(t *Table) []*Table {
	var to []*Table
	for i := range t.rules {
		if !t.rules[i].keeps {
			continue
		}
		for _, target := range t.rules[i].Targets {
			if !target.KeepLocal || target.Via != nil {
				continue
			}
			if other := c.h.Table(target.Address.Domain); other != nil && !slices.Contains(to, other) {
				to = append(to, other)
			}
		}
	}
	return to
}

// reach is t and every table that a local part kept by its rules can come to.
func (c *checker) reach(t *Table) []*Table {
	met := map[*Table]bool{t: true}
	all := []*Table{t}
	for i := 0; i < len(all); i++ {
		for _, other := range c.keptTo(all[i]) {
			if !met[other] {
				met[other] = true
				all = append(all, other)
			}
		}
	}
	return all
}

func sameCuts(a, b *Table) bool {
	return a.opt.SuffixSeparators == b.opt.SuffixSeparators && a.opt.DropCharacters == b.opt.DropCharacters
}

// variants are the names that some of the tables take for name and others do not: with each
// separator and an unknown suffix, with each drop character, and without either.
func variants(name string, tables []*Table) []string {
	var seps, drops string
	var names []string
	for _, t := range tables {
		names = append(names, t.withoutDrops(t.withoutSuffix(name)))
		seps += t.opt.SuffixSeparators
		drops += t.opt.DropCharacters
	}
	for _, sep := range seps {
		names = append(names, name+string(sep)+"x-no-rule-has-this")
	}
	for _, drop := range drops {
		names = append(names, name+string(drop))
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(s string) bool { return s == "" || s == name })
}

// freshName makes a local part that no rule of the tables is for. It is sought among the hashes
// of small numbers, which nobody has as aliases, and the search ends for those who do.
func freshName(tables []*Table) string {
	var name string
	for i := range 10_000 {
		sum := sha256.Sum256([]byte(strconv.Itoa(i)))
		name = hex.EncodeToString(sum[:16])
		taken := slices.ContainsFunc(tables, func(t *Table) bool {
			bare := t.withoutDrops(t.withoutSuffix(name))
			return t.exact[name] != nil || t.loose[bare] != nil
		})
		if !taken {
			break
		}
	}
	return name
}
