package aliases

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"relayd/address"
	"relayd/problem"
)

// maxPerFile bounds what Check says about one file. One cycle can run through every rule.
const maxPerFile = 100

// Check finds what only all files together show: cycles, and chains of more than 10 rules. The
// tables are those that h answers with. Every file with a rule on a cycle or on a chain that is
// too long has at least one problem in the list.
//
// Rules that keep the local part ("*: *@other") are tried with every name that a table within
// their reach has, and with one that none has: all names of no rule go the same way, and a
// mailbox can only end a way. Where domains differ in separators and drop characters, names that
// two of them cut apart in different places are tried in part only; Resolve fails for what
// remains.
func Check(h Hosted, tables []*Table) problem.List {
	c := &checker{
		h:       h,
		seen:    make(map[node]*vertex),
		onCycle: make(map[*Rule]bool),
		onChain: make(map[*Rule]bool),
		count:   make(map[string]int),
	}
	for _, t := range tables {
		for i := range t.rules {
			r := &t.rules[i]
			if r != t.catchAll || !c.tracks(r) {
				c.visit(c.node(r, r.Left))
			}
		}
	}
	for _, t := range tables {
		for name := range c.names(t) {
			c.try(t, name)
		}
	}
	slices.SortStableFunc(c.problems, func(a, b problem.Problem) int {
		return cmp.Or(strings.Compare(a.File, b.File), a.Line-b.Line)
	})
	return c.problems
}

// Dangling warns of targets in hosted domains that nothing takes mail for. Mail to them is
// dropped, and refused where the rule has no other target. It also warns of expiry comments whose
// rule is not there, perhaps because it has got another name.
func Dangling(h Hosted, tables []*Table) problem.List {
	var warnings problem.List
	for _, t := range tables {
		for i := range t.rules {
			r := &t.rules[i]
			if r.Expired(t.now()) {
				continue
			}
			for _, target := range r.Targets {
				if target.KeepLocal && r == t.catchAll {
					continue // which names will come is not known
				}
				to, ok := follow(h, r, target, r.Left)
				switch {
				case !ok && to.rule != nil:
					warnings = append(warnings, problem.At(r.File, r.Line, "%s leads nowhere: %v", target, &ExpiredError{to.rule}))
				case !ok:
					warnings = append(warnings, problem.At(r.File, r.Line,
						"%s leads nowhere: %s is hosted here and has neither that alias nor a mailbox of that name",
						target, target.Address.Domain))
				}
			}
		}
		for _, m := range t.astray {
			warnings = append(warnings, problem.At(t.file, m.line, "%s is to expire, and has no rule in this file: name the right one, or take the comment out", quoteLeft(m.name)))
		}
	}
	return warnings
}

// A checker searches the graph of rules. Its edges are the targets that lead to other rules.
// Strongly connected components (Tarjan's algorithm) are the cycles, and as they come out in
// reverse topological order, the longest chain below each rule is known when its turn comes.
// The stack is explicit because a file of a million rules can be one chain.
type checker struct {
	h        Hosted
	seen     map[node]*vertex
	pending  []*vertex // met, and not yet in a finished component
	problems problem.List
	onCycle  map[*Rule]bool // named in a problem about a cycle
	onChain  map[*Rule]bool // named in a problem about a chain
	count    map[string]int // problems by file
}

type vertex struct {
	node
	next     []node // where the targets lead
	followed int    // how many of next have been visited
	index    int    // position in pending
	low      int    // the lowest index known to be reachable
	finished bool
	height   int     // rules on the longest chain from here; 0 on a cycle
	below    *vertex // the next one of that chain
}

// tracks reports whether r passes the local part on to a hosted domain, so that each name makes
// a way of its own.
func (c *checker) tracks(r *Rule) bool {
	return r.keeps && slices.ContainsFunc(r.Targets, func(t Target) bool {
		return t.KeepLocal && t.Via == nil && c.h.Table(t.Address.Domain) != nil
	})
}

func (c *checker) node(r *Rule, local string) node {
	if !c.tracks(r) {
		local = ""
	}
	return node{rule: r, local: local}
}

// try follows mail to name in t's domain if a rule there keeps the name, and forgets the ways of
// that name again: kept for all names at once they would not fit in memory.
func (c *checker) try(t *Table, name string) {
	m, ok := lookup(c.h, t, address.Address{Local: name, Domain: t.opt.Domain})
	if !ok || m.rule == nil || !c.tracks(m.rule) {
		return
	}
	for _, v := range c.visit(c.node(m.rule, name)) {
		if v.local == name {
			delete(c.seen, v.node)
		}
	}
}

// visit searches everything below start and returns the vertices that are new.
func (c *checker) visit(start node) []*vertex {
	if c.seen[start] != nil {
		return nil
	}
	path := []*vertex{c.enter(start)}
	met := slices.Clone(path)
	for len(path) > 0 {
		v := path[len(path)-1]
		if v.followed < len(v.next) {
			n := v.next[v.followed]
			v.followed++
			switch w := c.seen[n]; {
			case w == nil:
				w = c.enter(n)
				path, met = append(path, w), append(met, w)
			case !w.finished:
				v.low = min(v.low, w.index)
			}
			continue
		}
		path = path[:len(path)-1]
		if len(path) > 0 {
			parent := path[len(path)-1]
			parent.low = min(parent.low, v.low)
		}
		if v.low == v.index {
			c.finish(c.pending[v.index:])
			c.pending = c.pending[:v.index]
		}
	}
	return met
}

func (c *checker) enter(n node) *vertex {
	v := &vertex{node: n, index: len(c.pending), low: len(c.pending)}
	for _, target := range n.rule.Targets {
		if to, ok := follow(c.h, n.rule, target, n.local); ok && to.rule != nil {
			v.next = append(v.next, c.node(to.rule, strings.ToLower(to.address.Local)))
		}
	}
	c.seen[n] = v
	c.pending = append(c.pending, v)
	return v
}

// finish judges one component: a cycle, or a single rule whose longest chain is now known.
func (c *checker) finish(component []*vertex) {
	for _, v := range component {
		v.finished = true
	}
	v := component[0]
	if len(component) > 1 || slices.Contains(v.next, v.node) {
		c.cycle(component)
		return
	}
	v.height = 1
	for _, n := range v.next {
		if w := c.seen[n]; w.height >= v.height {
			v.height, v.below = w.height+1, w
		}
	}
	if v.height == maxChain+1 { // a longer one ends in a chain of just this length
		c.chain(v)
	}
	v.next = nil
}

// cycle complains about every rule of a component that no cycle has named yet; in a component
// too large for anybody to read, about one rule of each file.
func (c *checker) cycle(component []*vertex) {
	within := make(map[node]*vertex, len(component))
	for _, v := range component {
		within[v.node] = v
	}
	large := len(component) > 1000
	named := make(map[string]bool)
	var way string
	for _, v := range component {
		r := v.rule
		if c.onCycle[r] || c.count[r.File] == maxPerFile || large && named[r.File] {
			continue
		}
		c.onCycle[r], named[r.File] = true, true
		if way == "" || !large {
			way = ways(shortestCycle(v, within))
		}
		c.complain(r, "mail would go in a circle: %s", way)
	}
}

// shortestCycle finds a way from v back to v inside its component.
func shortestCycle(v *vertex, within map[node]*vertex) []*Rule {
	from := make(map[*vertex]*vertex)
	queue := []*vertex{v}
	for len(queue) > 0 && from[v] == nil {
		at := queue[0]
		queue = queue[1:]
		for _, n := range at.next {
			if w := within[n]; w != nil && from[w] == nil {
				from[w] = at
				queue = append(queue, w)
			}
		}
	}
	rules := []*Rule{v.rule}
	for at := from[v]; at != nil && at != v; at = from[at] {
		rules = append(rules, at.rule)
	}
	rules = append(rules, v.rule)
	slices.Reverse(rules)
	return rules
}

// chain complains about a chain that is too long, at its head and once in each other file.
func (c *checker) chain(head *vertex) {
	var rules []*Rule
	known := true
	for v := head; v != nil; v = v.below {
		rules = append(rules, v.rule)
		known = known && c.onChain[v.rule]
		c.onChain[v.rule] = true
	}
	if known {
		return
	}
	text := ways(rules)
	named := make(map[string]bool)
	for _, r := range rules {
		if !named[r.File] && c.count[r.File] < maxPerFile {
			named[r.File] = true
			c.complain(r, "a chain of more than %d rules: %s", maxChain, text)
		}
	}
}

func (c *checker) complain(r *Rule, format string, args ...any) {
	c.count[r.File]++
	c.problems = append(c.problems, problem.At(r.File, r.Line, format, args...))
}

// ways writes the rules of a cycle or chain in order, the middle of a very long one left out.
func ways(rules []*Rule) string {
	const shown = maxChain + 2
	var parts []string
	for i, r := range rules {
		switch {
		case len(rules) <= shown || i < shown-1 || i == len(rules)-1:
			parts = append(parts, fmt.Sprintf("%s (%s:%d)", quoteLeft(r.Left), r.File, r.Line))
		case i == shown-1:
			parts = append(parts, fmt.Sprintf("%d more", len(rules)-shown))
		}
	}
	return strings.Join(parts, " → ")
}
