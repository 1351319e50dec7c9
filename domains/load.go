package domains

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"relayd/address"
	"relayd/aliases"
	"relayd/config"
	"relayd/dkim"
	"relayd/problem"
	"relayd/users"
)

// The files of a domain's folder.
const (
	fileSettings = "domain.toml"
	fileUsers    = "users"
	fileAliases  = "aliases"
	dirKeys      = "dkim"
	keySuffix    = ".pem"
)

// maxFile bounds what is read of one file, in bytes.
const maxFile = 16 << 20

// A loader builds one Set. good is what was in force before, and afterwards what is.
type loader struct {
	opt      Options
	good     map[string]texts
	problems problem.List
	warnings problem.List
	changed  []string
}

// load returns the Set that the files make, or why their folder cannot be listed: then it is the
// Set of the last good copies.
func (l *loader) load() (*Set, error) {
	folders, err := l.folders()
	if err != nil {
		l.problems = append(l.problems, problem.At(l.opt.Dir, 0, "the folder of the domains cannot be read: %v", err))
		folders = map[string]string{}
		for name := range l.good {
			folders[name] = filepath.Join(l.opt.Dir, name)
		}
	}
	set := &Set{domains: map[string]*Domain{}}
	next := map[string]texts{}
	for name, dir := range folders {
		next[name] = texts{}
		set.domains[name] = l.domain(name, dir, next[name])
	}
	l.checkTogether(set, folders, next)
	l.good = next
	return set, err
}

// folders maps the name of each hosted domain to its folder.
func (l *loader) folders() (map[string]string, error) {
	entries, err := os.ReadDir(l.opt.Dir)
	if err != nil {
		return nil, err
	}
	folders := map[string]string{}
	for _, e := range entries {
		dir := filepath.Join(l.opt.Dir, e.Name())
		info, err := os.Stat(dir)
		if err != nil || !info.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		name, err := address.Domain(e.Name())
		if err != nil || strings.HasPrefix(name, "[") {
			l.problems = append(l.problems, problem.At(dir, 0, "a folder here must have the name of a domain"))
			continue
		}
		if other, twice := folders[name]; twice {
			l.problems = append(l.problems, problem.At(dir, 0, "this is the same domain as %s", other))
			continue
		}
		folders[name] = dir
	}
	return folders, nil
}

// domain loads one domain. good receives the texts that are in force.
func (l *loader) domain(name, dir string, good texts) *Domain {
	d := &Domain{Name: name}
	f := &files{loader: l, name: name, dir: dir, next: good, domain: d}
	f.use(fileSettings, func(file string, text []byte) (err error) {
		d.Settings, err = config.ParseDomain(file, text)
		return err
	})
	if d.Settings == nil {
		d.Settings = config.DefaultDomain()
	}
	f.use(fileUsers, func(file string, text []byte) (err error) {
		d.Users, err = users.Parse(file, bytes.NewReader(text))
		return err
	})
	f.use(fileAliases, func(file string, text []byte) (err error) {
		d.Aliases, err = l.parseAliases(d, file, text)
		return err
	})
	l.keys(f)
	if len(d.Keys) == 0 && d.Broken == nil {
		l.warnings = append(l.warnings, problem.At(dir, 0, "no DKIM key, so mail from %s goes out unsigned: make one with `relay-util dkim-keygen %s`", name, name))
	}
	return d
}

func (l *loader) parseAliases(d *Domain, file string, text []byte) (*aliases.Table, error) {
	return aliases.Parse(file, bytes.NewReader(text), aliases.Options{
		Domain:           d.Name,
		SuffixSeparators: d.Settings.SuffixSeparators,
		DropCharacters:   d.Settings.DropCharacters,
		AllowPipe:        l.opt.AllowPipe,
	})
}

// keys loads every dkim/SELECTOR.pem. A key file that is gone is a key that was retired, unless
// it was the last: mail that was signed yesterday does not go out unsigned by accident.
func (l *loader) keys(f *files) {
	names := map[string]bool{}
	entries, err := os.ReadDir(filepath.Join(f.dir, dirKeys))
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), keySuffix) && !strings.HasPrefix(e.Name(), ".") {
			names[filepath.Join(dirKeys, e.Name())] = true
		}
	}
	if len(names) == 0 || err != nil {
		for old := range l.good[f.name] {
			if strings.HasPrefix(old, dirKeys) {
				names[old] = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		selector := strings.TrimSuffix(filepath.Base(name), keySuffix)
		f.use(name, func(file string, text []byte) error {
			key, err := dkim.ParseKey(f.name, selector, text)
			if err == nil {
				f.domain.Keys = append(f.domain.Keys, key)
			}
			return err
		})
		l.checkSecret(filepath.Join(f.dir, name))
	}
}

// checkSecret warns of a private key that others may read.
func (l *loader) checkSecret(file string) {
	if info, err := os.Stat(file); err == nil && info.Mode().Perm()&0o007 != 0 {
		l.warnings = append(l.warnings, problem.At(file, 0, "everybody on this machine can read this private key: chmod 0600 it"))
	}
}

// files reads the files of one domain.
type files struct {
	*loader
	name, dir string
	next      texts
	domain    *Domain
}

// use parses a file, or its last good text where that cannot be done. A file that is missing and
// always was is parsed as an empty one, but for keys.
func (f *files) use(name string, parse func(file string, text []byte) error) {
	file := filepath.Join(f.dir, name)
	good, had := f.good[f.name][name]
	text, err := readFile(file)
	if errors.Is(err, fs.ErrNotExist) && !had {
		err = parse(file, nil)
		return
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.New("the file is gone; its last version stays in force (to have it empty, make it empty)")
	}
	if err == nil {
		err = parse(file, text)
	}
	if err == nil {
		if !had || !bytes.Equal(good, text) {
			f.changed = append(f.changed, file)
		}
		f.next[name] = text
		return
	}
	problems := asProblems(file, err)
	f.problems = append(f.problems, problems...)
	if had && parse(file, good) == nil {
		f.next[name] = good
		return
	}
	f.domain.Broken = append(f.domain.Broken, problems...)
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = errors.New("the file is larger than 16 MiB")
	}
	return text, err
}

func asProblems(file string, err error) problem.List {
	if list, ok := errors.AsType[problem.List](err); ok {
		return list
	}
	if p, ok := errors.AsType[problem.Problem](err); ok {
		return problem.List{p}
	}
	return problem.List{problem.At(file, 0, "%v", err)}
}

// checkTogether finds cycles of aliases, which may go through several files. The files on one
// that are new are taken back. Where that does not help, because a new file has no older version
// or the older ones make a cycle too, the domains on it become unavailable.
func (l *loader) checkTogether(set *Set, folders map[string]string, next map[string]texts) {
	for _, mend := range []func(*Domain, problem.List, texts) bool{l.takeBack, l.giveUpNew, l.giveUp} {
		found := aliases.Check(set, set.tables())
		for name, dir := range folders {
			file := filepath.Join(dir, fileAliases)
			mine := slices.DeleteFunc(slices.Clone(found), func(p problem.Problem) bool { return p.File != file })
			if d := set.domains[name]; len(mine) > 0 && d.Broken == nil && mend(d, mine, next[name]) {
				l.problems = append(l.problems, mine...)
			}
		}
	}
	l.warnings = append(l.warnings, aliases.Dangling(set, set.tables())...)
}

// takeBack puts the older version of a new alias file in force.
func (l *loader) takeBack(d *Domain, found problem.List, next texts) bool {
	good, had := l.good[d.Name][fileAliases]
	if !had || bytes.Equal(good, next[fileAliases]) {
		return false
	}
	table, err := l.parseAliases(d, found[0].File, good)
	if err != nil {
		return false
	}
	d.Aliases, next[fileAliases] = table, good
	return true
}

// giveUpNew makes a domain unavailable whose alias file was never good.
func (l *loader) giveUpNew(d *Domain, found problem.List, next texts) bool {
	_, had := l.good[d.Name][fileAliases]
	return !had && l.giveUp(d, found, next)
}

func (l *loader) giveUp(d *Domain, found problem.List, next texts) bool {
	delete(next, fileAliases)
	d.Broken = found
	return true
}
