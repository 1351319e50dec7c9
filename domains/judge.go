package domains

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"relayd/aliases"
	"relayd/problem"
)

// edited is a Set with another alias file for one domain, which need not be in it.
type edited struct {
	*Set
	table *aliases.Table
}

// Table makes edited an aliases.Hosted.
func (e edited) Table(domain string) *aliases.Table {
	if domain == e.table.Domain() {
		return e.table
	}
	return e.Set.Table(domain)
}

// JudgeAliases parses the text that an alias file is to have, or says why it must not: it is wrong in
// itself, or together with the files of the other domains. The error is a problem.List. The warnings
// are of targets that lead nowhere.
func (s *Set) JudgeAliases(opt aliases.Options, file string, text []byte) (table *aliases.Table, warnings problem.List, err error) {
	if table, err = aliases.Parse(file, bytes.NewReader(text), opt); err != nil {
		return nil, nil, err
	}
	after := edited{s, table}
	tables := []*aliases.Table{table}
	for _, d := range s.All() {
		if d.Name != opt.Domain && d.Aliases != nil {
			tables = append(tables, d.Aliases)
		}
	}
	// What is wrong in other files alone was so before.
	found := slices.DeleteFunc(aliases.Check(after, tables), func(p problem.Problem) bool { return p.File != file })
	if err := found.Err(); err != nil {
		return nil, nil, err
	}
	return table, aliases.Dangling(after, tables[:1]), nil
}

// Vanished is the error of an edit of a file that is gone while its last version is in force from
// goodDir: the new file would hold that edit alone, and with it everything else would be out of force.
func Vanished(goodDir, domain, file string) error {
	good := filepath.Join(goodDir, domain, filepath.Base(file))
	info, err := os.Stat(good)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && info.Size() == 0:
		return nil
	case err != nil:
		return err
	}
	// cp -p: the copy is the daemon's alone, and it must be able to read the file.
	return fmt.Errorf("%s: the file is gone; its last version is still in force from %s: put it back (cp -p %[2]s %[1]s), or make an empty file to begin anew",
		file, good)
}
