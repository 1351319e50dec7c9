package certs

import (
	"crypto/tls"
	"slices"
	"strings"
	"time"
)

// An entry is a certificate to choose from, wherever it comes from.
type entry struct {
	cert *tls.Certificate
	info Info
}

// newEntry describes a certificate whose Leaf is parsed.
func newEntry(name, file string, cert *tls.Certificate) *entry {
	leaf := cert.Leaf
	names := make([]string, 0, len(leaf.DNSNames))
	for _, n := range leaf.DNSNames {
		names = append(names, canonical(n))
	}
	return &entry{cert: cert, info: Info{
		Name: name, Names: names, File: file,
		NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, Issuer: leaf.Issuer.String(),
	}}
}

// validAt reports whether the certificate is neither too new nor expired.
func (e *entry) validAt(now time.Time) bool {
	return !now.Before(e.info.NotBefore) && !now.After(e.info.NotAfter)
}

// A table answers which certificates fit a name, the best first. It does not change.
type table struct {
	entries  []*entry // by their folders
	byName   map[string][]*entry
	wildcard map[string][]*entry // by what stands behind "*."
	other    []*entry            // for every other name, and for none
}

// newTable sorts certificates in. Of several for one name, those that are valid now come first,
// then the order of entries decides, so that the choice does not depend on chance.
func newTable(entries []*entry, hostname string, now time.Time) *table {
	t := &table{entries: entries, byName: make(map[string][]*entry), wildcard: make(map[string][]*entry)}
	best := slices.Clone(entries)
	slices.SortStableFunc(best, func(a, b *entry) int {
		switch av, bv := a.validAt(now), b.validAt(now); {
		case av == bv:
			return 0
		case av:
			return -1
		}
		return 1
	})
	for _, e := range best {
		for _, name := range e.info.Names {
			if suffix, ok := strings.CutPrefix(name, "*."); ok {
				t.wildcard[suffix] = append(t.wildcard[suffix], e)
			} else {
				t.byName[name] = append(t.byName[name], e)
			}
		}
	}
	if t.other = t.covering(hostname); len(t.other) == 0 {
		t.other = best
	}
	return t
}

// covering returns the certificates for a name: those that have it, else those that have a
// wildcard in the place of its first label.
func (t *table) covering(name string) []*entry {
	if found := t.byName[name]; len(found) > 0 {
		return found
	}
	first, suffix, ok := strings.Cut(name, ".")
	if !ok || first == "" {
		return nil
	}
	return t.wildcard[suffix]
}

// find returns the certificates for a name, or for the server itself if there are none.
func (t *table) find(serverName string) []*entry {
	if found := t.covering(canonical(serverName)); len(found) > 0 {
		return found
	}
	return t.other
}
