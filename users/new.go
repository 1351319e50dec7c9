package users

import (
	"fmt"
	"strings"
)

// Ways are how a domain writes one name in several ways.
type Ways struct {
	SuffixSeparators string // each begins a suffix that is dropped
	DropCharacters   string // each is ignored
}

// CheckNew says why a user should not be added to a table under a name though it could stand in the
// file: mail and From addresses would take it for somebody else's. A user who is there by hand stays.
func CheckNew(local string, table *Table, w Ways) error {
	name := strings.ToLower(local)
	if strings.ContainsRune(name, '*') {
		return fmt.Errorf("%q is no name for a user: * stands for all other names, and only in aliases (`relay-util alias-add`); "+
			"a user who gets them may send as each of them", local)
	}
	if i := strings.IndexAny(name, w.SuffixSeparators); i > 0 {
		return fmt.Errorf("%q has a %q, which begins a suffix: it is an address of the user %s, who may send as it and gets its mail; add a user without it",
			local, name[i], name[:i])
	}
	for _, other := range table.Names() {
		if bare := w.bare(name); bare == w.bare(other) {
			return fmt.Errorf("%q is the same name as that of the user %s, for %q is ignored in names: take another", local, other, w.DropCharacters)
		}
	}
	return nil
}

func (w Ways) bare(name string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(w.DropCharacters, r) {
			return -1
		}
		return r
	}, name)
}
