package mailauth

import (
	"cmp"
	"context"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// A walker finds DMARC records, and by them which domains belong to one organisation (RFC 9989
// section 4.10). It remembers what it has found, so it lasts for one message and one goroutine at
// a time.
type walker struct {
	resolver Resolver
	answers  map[string]answer
	orgs     map[string]organization
}

func newWalker(r Resolver) *walker {
	return &walker{r, map[string]answer{}, map[string]organization{}}
}

// An answer is what DNS says about the record of one domain.
type answer struct {
	record record
	found  bool
	err    error // DNS does not answer
}

// An organization is the organisational domain of a domain.
type organization struct {
	domain string
	psd    string // the public suffix domain above it that has a record with psd=y; "" for none
	err    error  // DNS does not answer, and domain is a guess
}

// record is the record of a domain. Where there are several, there is none.
func (w *walker) record(ctx context.Context, domain string) answer {
	if a, ok := w.answers[domain]; ok {
		return a
	}
	a := answer{}
	txts, err := w.resolver.TXT(ctx, "_dmarc."+domain)
	if err != nil && !absent(err) {
		a.err = &unanswered{err}
	}
	records := 0
	for _, txt := range txts {
		if r, ok := parseRecord(txt); ok {
			a.record, a.found = r, true
			records++
		}
	}
	if records > 1 {
		a = answer{}
	}
	w.answers[domain] = a
	return a
}

// steps are the domains whose records are asked for when the walk starts at domain: itself and
// what is above it, eight at most (RFC 9989 section 4.10).
func steps(domain string) []string {
	const most = 8
	labels := strings.Split(domain, ".")
	list := []string{domain}
	for n := min(len(labels), most) - 1; n >= 1; n-- {
		list = append(list, strings.Join(labels[len(labels)-n:], "."))
	}
	return list
}

// organization walks up from a domain (RFC 9989 section 4.10.2). Where the walk finds nothing, the
// domain itself would be the answer; the public suffix list gives a better one for domains that do
// without DMARC. The same guess is made where DNS does not answer.
func (w *walker) organization(ctx context.Context, domain string) organization {
	if o, ok := w.orgs[domain]; ok {
		return o
	}
	o := w.walk(ctx, domain)
	if o.domain == "" {
		o.domain = guess(domain)
	}
	w.orgs[domain] = o
	return o
}

func (w *walker) walk(ctx context.Context, domain string) organization {
	highest := ""
	for _, name := range steps(domain) {
		a := w.record(ctx, name)
		switch {
		case a.err != nil:
			return organization{err: a.err}
		case a.found && a.record.psd == "n":
			return organization{domain: name}
		case a.found && a.record.psd == "y" && name != domain:
			return organization{domain: oneBelow(name, domain), psd: name}
		case a.found && a.record.psd == "y":
			return organization{domain: domain}
		case a.found:
			highest = name
		}
	}
	return organization{domain: highest}
}

// oneBelow is the domain between parent and domain that has one label more than parent.
func oneBelow(parent, domain string) string {
	labels := strings.Split(strings.TrimSuffix(domain, "."+parent), ".")
	return labels[len(labels)-1] + "." + parent
}

// guess is the organisational domain as the public suffix list has it.
func guess(domain string) string {
	if org, err := publicsuffix.EffectiveTLDPlusOne(domain); err == nil {
		return org
	}
	return domain
}

// sameOrganization is relaxed alignment (RFC 9989 section 4.4). With an error the answer is only
// a guess. Domains with nothing in common need no DNS.
func (w *walker) sameOrganization(ctx context.Context, a, b string) (bool, error) {
	switch {
	case a == b:
		return true, nil
	case a == "" || b == "" || topLevel(a) != topLevel(b):
		return false, nil
	}
	orgA, orgB := w.organization(ctx, a), w.organization(ctx, b)
	if err := cmp.Or(orgA.err, orgB.err); err != nil {
		return guess(a) == guess(b), err
	}
	return orgA.domain == orgB.domain, nil
}

func topLevel(domain string) string { return domain[strings.LastIndexByte(domain, '.')+1:] }
