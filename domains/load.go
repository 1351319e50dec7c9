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
	"syscall"
	"time"

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

// Why readFile does not read a file.
var (
	errNotFile  = errors.New("this is not a regular file")
	errTooLarge = errors.New("the file is larger than 16 MiB")
)

// A loader builds one Set. good and oldKeys are what was in force before; after load, good and
// keys are what is.
type loader struct {
	opt      Options
	good     map[string]texts
	down     bool // no file can be read
	oldKeys  map[keyText]*dkim.Key
	keys     map[keyText]*dkim.Key
	problems problem.List
	warnings problem.List
	changed  []string
	unsure   bool          // some file could not be read for a reason that may pass
	waited   time.Duration // for files that were being written
}

func (l *loader) complain(file, format string, args ...any) problem.Problem {
	p := problem.At(file, 0, format, args...)
	l.problems = append(l.problems, p)
	return p
}

// failed notes an error of reading. One that has another reason than the files themselves, such
// as too many open files, may be gone the next time although they look the same.
func (l *loader) failed(err error) {
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, errNotFile) && err != errTooLarge {
		l.unsure = true
	}
}

func (l *loader) warn(file, format string, args ...any) {
	l.warnings = append(l.warnings, problem.At(file, 0, format, args...))
}

// load returns the Set that the files in the folders make.
func (l *loader) load(folders map[string]string) *Set {
	set := &Set{domains: map[string]*Domain{}, mailboxes: l.opt.Mailboxes}
	next := map[string]texts{}
	for _, name := range slices.Sorted(maps.Keys(folders)) {
		next[name] = texts{}
		set.domains[name] = l.domain(name, folders[name], next[name])
	}
	l.checkTogether(set, folders, next)
	l.checkSettings(set, folders, next)
	for name, d := range set.domains {
		if d.Broken != nil && !l.known(name) {
			delete(next, name)
		}
	}
	l.good = next
	return set
}

// checkSettings warns of settings that name who or what is not there.
func (l *loader) checkSettings(set *Set, folders map[string]string, next map[string]texts) {
	for _, d := range set.All() {
		if d.Broken != nil {
			continue
		}
		file, text := filepath.Join(folders[d.Name], fileSettings), next[d.Name][fileSettings]
		for _, user := range slices.Sorted(maps.Keys(d.Settings.SendAs)) {
			if _, ok := d.Users.Lookup(user); !ok {
				l.warnings = append(l.warnings, problem.At(file, config.Line(text, "send_as", user),
					"send_as: there is no user %s: add one with `relay-util user-add %[1]s@%s`, or correct the name", user, d.Name))
			}
		}
		for _, user := range slices.Sorted(maps.Keys(d.Settings.MessagesPerHour)) {
			if _, ok := d.Users.Lookup(user); !ok {
				l.warnings = append(l.warnings, problem.At(file, config.Line(text, "messages_per_hour", user),
					"messages_per_hour: there is no user %s: add one with `relay-util user-add %[1]s@%s`, or correct the name", user, d.Name))
			}
		}
		if srs := d.Settings.SRSDomain; srs != "" && set.Get(srs) == nil {
			l.warnings = append(l.warnings, problem.At(file, config.Line(text, "srs_domain"), NotHosted, srs))
		}
	}
}

// NotHosted is what is wrong with an srs_domain, with its name.
const NotHosted = "srs_domain: %s is not hosted here, so that mail which leaves in its name is not signed: make it with `relay-util domain-add %[1]s`"

// known reports whether a domain has been in force before as a whole. What its files were then is
// what they fall back to.
func (l *loader) known(name string) bool {
	_, ok := l.good[name]
	return ok
}

// domain loads one domain. good receives the texts that are in force.
func (l *loader) domain(name, dir string, good texts) *Domain {
	d := &Domain{Name: name, Settings: config.DefaultDomain(), usersFile: filepath.Join(dir, fileUsers)}
	f := &files{loader: l, name: name, dir: dir, next: good, domain: d, down: l.down}
	defer func() { d.Stale = d.Stale || f.down }()
	if _, err := os.Stat(dir); err != nil && !l.down {
		l.failed(err)
		f.down = true
		p := l.complain(dir, "the folder cannot be read: %v", err)
		if !l.known(name) {
			d.Broken = problem.List{p}
			return d
		}
	}
	f.need(fileSettings, func(file string, text []byte) error {
		settings, err := config.ParseDomain(file, text)
		if err == nil {
			d.Settings = settings
		}
		return err
	})
	f.need(fileUsers, func(file string, text []byte) (err error) {
		d.Users, err = users.Parse(file, bytes.NewReader(text))
		return err
	})
	f.need(fileAliases, func(file string, text []byte) (err error) {
		d.Aliases, err = l.parseAliases(d, file, text)
		return err
	})
	f.useKeys()
	if len(d.Keys) == 0 && d.Broken == nil {
		l.warn(dir, "no DKIM key, so mail from %s goes out unsigned: make one with `relay-util dkim-keygen %s`", name, name)
	}
	return d
}

func (l *loader) parseAliases(d *Domain, file string, text []byte) (*aliases.Table, error) {
	return aliases.Parse(file, bytes.NewReader(text), d.AliasOptions(l.opt.AllowPipe))
}

// files reads the files of one domain.
type files struct {
	*loader
	name, dir string
	next      texts
	domain    *Domain
	down      bool // the folder cannot be read: good copies are all there is
}

// parser parses a text as a file, or returns what is wrong with it and changes nothing.
type parser func(file string, text []byte) error

// need uses a file that the domain cannot do without. A broken one that is new, in a domain that was in
// force without it, is left out.
func (f *files) need(name string, parse parser) {
	problems := f.use(name, parse)
	_, had := f.good[f.name][name]
	if len(problems) > 0 && !had && f.known(f.name) && parse(filepath.Join(f.dir, name), nil) == nil {
		return
	}
	f.domain.Broken = append(f.domain.Broken, problems...)
}

// use puts a file in force, or its last good text where that cannot be done. A file that is
// missing and always was is as good as an empty one. When nothing can be put in force it returns
// what is wrong.
func (f *files) use(name string, parse parser) problem.List {
	file := filepath.Join(f.dir, name)
	good, had := f.good[f.name][name]
	text, err := f.read(name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && len(good) == 0:
		text, err = nil, parse(file, nil)
	case errors.Is(err, fs.ErrNotExist):
		err = f.gone(name)
	case err == nil:
		err = parse(file, text)
	}
	if err == nil {
		if text != nil && (!had || !bytes.Equal(good, text)) {
			f.changed = append(f.changed, file)
		}
		if text != nil || had {
			f.next[name] = text
		}
		return nil
	}
	f.domain.Stale = true
	problems := asProblems(file, err)
	f.problems = append(f.problems, problems...)
	if had && parse(file, good) == nil {
		f.next[name] = good
		return nil
	}
	return problems
}

// read reads a file of the domain; where none can be read its good copy stands in, without
// another complaint.
func (f *files) read(name string) ([]byte, error) {
	if !f.down {
		text, err := f.readWritten(filepath.Join(f.dir, name), f.good[f.name][name])
		f.failed(err)
		return text, err
	}
	if good, had := f.good[f.name][name]; had {
		return good, nil
	}
	return nil, fs.ErrNotExist
}

// gone is the complaint about a file that is in force and no longer there.
func (f *files) gone(name string) error {
	if strings.HasPrefix(name, dirKeys+"/") {
		return errors.New("the last key is gone; it stays in force, so that no mail goes out unsigned, until another one is here")
	}
	return errors.New("the file is gone; its last version stays in force (to have it empty, make it empty)")
}

const (
	// writeTime is how long a program may be at writing a file before what it has not yet written counts
	// as left out.
	writeTime = 100 * time.Millisecond
	// maxWaited is how long one load waits for all files that are being written.
	maxWaited = time.Second
)

// readWritten is readFile that waits while a file is being written: one that was changed in this moment and
// is empty or has no end of its last line, and one that is empty and was not when good was read. Most
// programs make a file empty before they write it, and a domain without aliases refuses its mail for good.
func (l *loader) readWritten(name string, good []byte) ([]byte, error) {
	for again := false; ; again = true {
		text, err := readFile(name)
		if err != nil || bytes.HasSuffix(text, []byte("\n")) || l.waited >= maxWaited {
			return text, err
		}
		// Looked at when it has been read: it may have become empty just before.
		info, err := os.Stat(name)
		if err != nil {
			return readFile(name)
		}
		age := time.Since(info.ModTime())
		if !again && len(text) == 0 && len(good) > 0 {
			age = 0 // ext4 makes a file empty first and notes the time later
		}
		if age < 0 || age >= writeTime {
			return text, nil
		}
		l.waited += writeTime - age
		time.Sleep(writeTime - age)
	}
}

// readFile reads a whole file. It does not wait for a pipe to be written to.
func readFile(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, errNotFile)
	}
	if info.Size() > maxFile {
		return nil, errTooLarge
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = errTooLarge
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
