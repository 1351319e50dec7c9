package domains

import (
	"bytes"
	"maps"
	"path/filepath"
	"slices"

	"relayd/aliases"
	"relayd/problem"
)

// working is a Set whose broken domains are not hosted, so that nothing is said of what leads to
// them.
type working struct{ *Set }

// Table makes working an aliases.Hosted.
func (w working) Table(domain string) *aliases.Table {
	if d := w.domains[domain]; d != nil && d.Broken == nil {
		return d.Aliases
	}
	return nil
}

func (w working) tables() []*aliases.Table {
	var list []*aliases.Table
	for _, d := range w.All() {
		if d.Broken == nil {
			list = append(list, d.Aliases)
		}
	}
	return list
}

// checkTogether finds cycles of aliases, which may go through several files. The files on one
// that are new are taken back. Where that does not help, because a new file has no older version
// or the older ones make a cycle too, the domains on it become unavailable.
func (l *loader) checkTogether(set *Set, folders map[string]string, next map[string]texts) {
	w := working{set}
	for _, mend := range []func(*Domain, problem.List, texts) bool{l.takeBack, l.giveUpNew, l.giveUp} {
		found := aliases.Check(w, w.tables())
		byFile := map[string]problem.List{}
		for _, p := range found {
			byFile[p.File] = append(byFile[p.File], p)
		}
		for _, name := range slices.Sorted(maps.Keys(folders)) {
			mine := byFile[filepath.Join(folders[name], fileAliases)]
			if d := set.domains[name]; len(mine) > 0 && d.Broken == nil && mend(d, mine, next[name]) {
				l.problems = append(l.problems, mine...)
			}
		}
	}
	l.warnings = append(l.warnings, aliases.Dangling(w, w.tables())...)
}

// takeBack puts the older version of a new alias file in force.
func (l *loader) takeBack(d *Domain, found problem.List, next texts) bool {
	good, had := l.good[d.Name][fileAliases]
	if !had || bytes.Equal(good, next[fileAliases]) {
		return false
	}
	file := found[0].File
	table, err := l.parseAliases(d, file, good)
	if err != nil {
		return false
	}
	d.Aliases, d.Stale, next[fileAliases] = table, true, good
	l.changed = slices.DeleteFunc(l.changed, func(name string) bool { return name == file })
	return true
}

// giveUpNew makes a domain unavailable whose alias file was never good.
func (l *loader) giveUpNew(d *Domain, found problem.List, next texts) bool {
	_, had := l.good[d.Name][fileAliases]
	return !had && l.giveUp(d, found, next)
}

// giveUp makes a domain unavailable. Its last good text stays the last good one: it may be in
// force again when another file is mended.
func (l *loader) giveUp(d *Domain, found problem.List, next texts) bool {
	if good, had := l.good[d.Name][fileAliases]; had {
		next[fileAliases] = good
	} else {
		delete(next, fileAliases)
	}
	d.Broken, d.Stale = found, true
	return true
}
