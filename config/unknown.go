package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// A place is where a key or a table of a schema stands.
type place struct {
	table string // "" at the top of the file
	name  string
}

// places lists all keys and tables of settings, each once, in their order.
func places(settings []setting) []place {
	var all []place
	for _, s := range settings {
		table := ""
		for part := range strings.SplitSeq(s.name, ".") {
			if p := (place{table, part}); !slices.Contains(all, p) {
				all = append(all, p)
			}
			table = strings.TrimPrefix(table+"."+part, ".")
		}
	}
	return all
}

// where says on which side of the first [table] a place is.
func (p place) where() string {
	if p.table == "" {
		return "at the top of the file, above the first [table]"
	}
	return "under [" + p.table + "]"
}

// unknown complains about a key, or a whole table, that the schema does not have. It offers, in
// this order: the same name at another place, the same name in the other file, the name here that
// looks most alike, the one elsewhere that does, all names here.
func (d *document) unknown(key toml.Key, isTable bool) {
	table, name := key[:len(key)-1].String(), key[len(key)-1]
	what := "unknown key " + key.String()
	if isTable {
		what = "unknown table [" + key.String() + "]"
	}
	d.complain(key, "%s: %s", what, d.advice(table, name))
}

func (d *document) advice(table, name string) string {
	var here, elsewhere []place
	for _, p := range places(d.settings) {
		if p.table == table {
			here = append(here, p)
		} else {
			elsewhere = append(elsewhere, p)
		}
	}
	same := func(p place) bool { return p.name == name }
	if i := slices.IndexFunc(elsewhere, same); i >= 0 {
		if shown := d.show(elsewhere[i]); shown != name {
			return fmt.Sprintf("%s is a table of its own", shown)
		}
		return fmt.Sprintf("%s belongs %s", name, elsewhere[i].where())
	}
	if slices.ContainsFunc(places(d.other), same) {
		return fmt.Sprintf("%s belongs in %s", name, d.otherFile)
	}
	if p, ok := nearest(name, here); ok {
		return fmt.Sprintf("did you mean %s?", d.show(p))
	}
	if p, ok := nearest(name, elsewhere); ok {
		if d.show(p) != p.name {
			return fmt.Sprintf("did you mean %s?", d.show(p))
		}
		return fmt.Sprintf("did you mean %s %s?", p.name, p.where())
	}
	var names []string
	for _, p := range here {
		names = append(names, d.show(p))
	}
	return "there are only " + strings.Join(names, ", ")
}

// show writes the name of a key as it is and that of a table in brackets.
func (d *document) show(p place) string {
	full := strings.TrimPrefix(p.table+"."+p.name, ".")
	if d.knownTable(full) {
		return "[" + full + "]"
	}
	return p.name
}

// nearest finds the place whose name is most like name. Up to one edit and one more for every
// four characters still count as alike.
func nearest(name string, among []place) (place, bool) {
	best, found := 2+len(name)/4, -1
	for i, p := range among {
		if n := distance(plain(name), plain(p.name)); n < best {
			best, found = n, i
		}
	}
	if found < 0 {
		return place{}, false
	}
	return among[found], true
}

// plain takes away the differences that people see last.
func plain(name string) string {
	return strings.ReplaceAll(strings.ToLower(name), "-", "_")
}

// distance is the Levenshtein distance in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
