package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// A tally is what an SPF record costs a receiver, at worst.
type tally struct {
	d       *Doctor
	lookups int
	voids   []string // names that were looked up in vain
	faults  []string
}

// countLookups says what is wrong with the number of lookups that a record needs.
func (d *Doctor) countLookups(ctx context.Context, r Record, policy string) []Finding {
	t := &tally{d: d}
	t.count(ctx, []string{r.Name}, policy)
	subject := "SPF lookups of " + r.Name
	var list []Finding
	if t.lookups > maxLookups {
		list = append(list, finding(Fail, subject, "it needs more than %d lookups in DNS, so receivers take it for an error (RFC 7208 section 4.6.4)", maxLookups).
			do("take out what sends no mail for you any more, or write ip4: and ip6: in the place of include:"))
	}
	if len(t.voids) > maxVoids {
		list = append(list, finding(Fail, subject, "more than %d of the names in it do not exist: %s", maxVoids, strings.Join(t.voids, ", ")).do("take them out"))
	}
	for _, fault := range t.faults {
		list = append(list, finding(Fail, subject, "%s", fault).do("take it out or mend it"))
	}
	for i := range list {
		list[i].Name, list[i].Type, list[i].Found = r.Name, r.Type, []string{plain(policy)}
	}
	return list
}

// count adds what a policy costs at the end of a path of includes. It ends soon after there is too
// much.
func (t *tally) count(ctx context.Context, path []string, policy string) {
	terms := strings.Fields(policy)[1:]
	all := slices.ContainsFunc(terms, func(term string) bool { return strings.EqualFold(strings.TrimLeft(term, "+-~?"), "all") })
	for _, term := range terms {
		if t.lookups > maxLookups || ctx.Err() != nil {
			return
		}
		term = strings.TrimLeft(term, "+-~?")
		name, argument := splitTerm(term)
		switch name {
		case "all":
			return
		case "include":
			t.follow(ctx, path, argument)
		case "redirect":
			if !all {
				t.follow(ctx, path, argument)
			}
		case "a", "mx", "ptr", "exists":
			t.lookups++
			t.look(ctx, name, argument, path[len(path)-1])
		}
	}
}

// splitTerm takes a term apart: its name in lower case, and a domain without a prefix length.
func splitTerm(term string) (name, domain string) {
	i := strings.IndexAny(term, ":=/")
	if i < 0 {
		return strings.ToLower(term), ""
	}
	name = strings.ToLower(term[:i])
	if term[i] != '/' {
		domain, _, _ = strings.Cut(term[i+1:], "/")
	}
	return name, bare(domain)
}

// look finds out whether a name is there. One with macros is another for each mail.
func (t *tally) look(ctx context.Context, name, domain, current string) {
	if domain == "" {
		domain = current
	}
	if strings.Contains(domain, "%") {
		return
	}
	var err error
	switch name {
	case "a", "exists":
		_, err = t.d.opt.Resolver.IP(ctx, domain, "ip")
	case "mx":
		_, err = t.d.opt.Resolver.MX(ctx, domain)
	}
	// The domain itself has its findings of its own.
	if err != nil && isAbsent(err) && domain != current {
		t.void(domain)
	}
}

func (t *tally) void(domain string) {
	if !slices.Contains(t.voids, domain) {
		t.voids = append(t.voids, domain)
	}
}

// follow counts the policy of another domain.
func (t *tally) follow(ctx context.Context, path []string, domain string) {
	t.lookups++
	switch {
	case strings.Contains(domain, "%"):
		return
	case slices.Contains(path, domain):
		t.faults = append(t.faults, fmt.Sprintf("it goes round in a circle: %s", strings.Join(append(slices.Clone(path), domain), " → ")))
		return
	}
	texts, err := t.d.opt.Resolver.TXT(ctx, domain)
	policies := slices.DeleteFunc(texts, func(text string) bool { return !isSPF(text) })
	switch {
	case err != nil && !isAbsent(err):
		return // nothing is known of it
	case len(policies) != 1:
		if err != nil {
			t.void(domain)
		}
		t.faults = append(t.faults, fmt.Sprintf("it includes %s, which has %d SPF records: receivers take that for an error", domain, len(policies)))
		return
	}
	t.count(ctx, append(slices.Clone(path), domain), policies[0])
}
