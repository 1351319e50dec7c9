package moving

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"relayd/address"
	"relayd/aliases"
	"relayd/config"
	"relayd/dkim"
	"relayd/problem"
)

// ChasquidOptions are how the files are to be read.
type ChasquidOptions struct {
	BcryptCost int  // of hashes for passwords that stand there in the clear
	AllowPipe  bool // whether aliases may be commands here
}

// chasquid reads the configuration folder of a chasquid.
type chasquid struct {
	Plan
	opt  ChasquidOptions
	dir  string
	conf message
	bad  problem.List
}

// Chasquid reads the configuration folder of a chasquid, /etc/chasquid with Debian. What cannot be
// read or understood is an error, a problem.List, since a domain without half of its users would
// not be what was moved; what has no place here is in the Plan's Left.
func Chasquid(dir string, opt ChasquidOptions) (*Plan, error) {
	c := &chasquid{opt: opt, dir: dir}
	c.settings()
	c.eachFolder("domains", c.domain)
	c.eachFolder("certs", c.cert)
	c.leaveHooks()
	if err := c.bad.Err(); err != nil {
		return nil, err
	}
	return &c.Plan, nil
}

// wrong notes what keeps the folder from being moved.
func (c *chasquid) wrong(file string, err error) {
	if le, ok := errors.AsType[*lineError](err); ok {
		c.bad = append(c.bad, problem.At(file, le.line, "%s", le.why))
		return
	}
	if list, ok := errors.AsType[problem.List](err); ok {
		c.bad = append(c.bad, list...)
		return
	}
	if pe, ok := errors.AsType[*fs.PathError](err); ok && pe.Path == file {
		err = pe.Err
	}
	c.bad = append(c.bad, problem.At(file, 0, "%v", err))
}

// settings reads chasquid.conf. Suffixes and dots are a matter of each domain here.
func (c *chasquid) settings() {
	file := filepath.Join(c.dir, "chasquid.conf")
	data, err := readFile(file)
	if err == nil {
		c.conf, err = parseText(string(data))
	}
	if err != nil {
		c.wrong(file, err)
		return
	}
	for _, f := range c.conf {
		switch f.name {
		case "hostname":
			if c.Hostname, err = address.Domain(f.text); err != nil {
				c.wrong(file, &lineError{f.line, err.Error()})
			}
		case "max_data_size_mb":
			if c.MessageSizeMB, err = strconv.Atoi(f.text); err != nil || c.MessageSizeMB < 1 {
				c.wrong(file, &lineError{f.line, "max_data_size_mb is no number of megabytes"})
			}
		case "suffix_separators", "drop_characters":
		default:
			c.leave(file, f.line, "%s: %s", f.name, whyLeft(f.name))
		}
	}
}

// whyLeft says what takes the place of a setting.
func whyLeft(setting string) string {
	switch {
	case strings.HasSuffix(setting, "_address"):
		return "ports are those of [listen] in relayd.toml; by default 25, 587 and 465"
	case strings.HasPrefix(setting, "mail_delivery_agent"):
		return "mailboxes are those of Dovecot here, by [mailbox] lmtp in relayd.toml"
	case strings.HasPrefix(setting, "dovecot"):
		return "passwords stand in the users files of the domains here; add those users with `relay-util user-add`"
	case setting == "data_dir":
		return "the queue stays there: let chasquid deliver what is in it"
	}
	return "there is no such setting here"
}

// eachFolder calls f for each folder below one of the configuration, links to folders included.
func (c *chasquid) eachFolder(name string, f func(name, dir string)) {
	around := filepath.Join(c.dir, name)
	entries, err := os.ReadDir(around)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		c.wrong(around, err)
		return
	}
	for _, e := range entries {
		dir := filepath.Join(around, e.Name())
		if info, err := os.Stat(dir); err != nil {
			c.wrong(dir, err)
		} else if info.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			f(e.Name(), dir)
		}
	}
}

func (c *chasquid) domain(name, dir string) {
	d := Domain{Keys: map[string][]byte{}}
	var err error
	if d.Name, err = address.Domain(name); err != nil {
		c.wrong(dir, err)
		return
	}
	d.Settings = c.domainSettings(d.Name)
	entries, err := os.ReadDir(dir)
	if err != nil {
		c.wrong(dir, err)
	}
	for _, e := range entries {
		file := filepath.Join(dir, e.Name())
		switch selector, isKey := cutKey(e.Name()); {
		case strings.HasPrefix(e.Name(), "."): // nobody's
		case e.Name() == "users":
			c.users(&d, file)
		case e.Name() == "aliases":
			c.aliases(&d, file)
		case isKey:
			c.key(&d, file, selector)
		case e.Name() == "dkim_selector":
			c.hookKey(&d, file)
		default:
			c.leave(file, 0, "there is no such file here")
		}
	}
	c.Domains = append(c.Domains, d)
}

// cutKey takes the selector out of the name of a DKIM key, "dkim:SELECTOR.pem".
func cutKey(name string) (selector string, ok bool) {
	selector, ok = strings.CutPrefix(name, "dkim:")
	if ok {
		selector, ok = strings.CutSuffix(selector, ".pem")
	}
	return selector, ok
}

func (c *chasquid) key(d *Domain, file, selector string) {
	data, err := readFile(file)
	if err == nil {
		_, err = dkim.ParseKey(d.Name, selector, data)
	}
	if err != nil {
		c.wrong(file, err)
		return
	}
	d.Keys[strings.ToLower(selector)] = data
}

// hookKey takes the key by which a hook signs, as chasquid's documentation has it.
func (c *chasquid) hookKey(d *Domain, selectorFile string) {
	file := filepath.Join(c.dir, "certs", d.Name, "dkim_privkey.pem")
	selector, err1 := readFile(selectorFile)
	data, err2 := readFile(file)
	err := errors.Join(err1, err2)
	name := strings.ToLower(strings.TrimSpace(string(selector)))
	if err == nil {
		_, err = dkim.ParseKey(d.Name, name, data)
	}
	if err != nil {
		c.leave(file, 0, "no key was taken from here: %v; put it into dkim/SELECTOR.pem by hand, if need be after `openssl pkcs8 -topk8 -nocrypt`", err)
		return
	}
	d.Keys[name] = data
}

// domainSettings is the domain.toml for what is not the default here.
func (c *chasquid) domainSettings(domain string) []byte {
	var b bytes.Buffer
	usual := config.DefaultDomain()
	for _, s := range []struct{ key, usual string }{{"suffix_separators", usual.SuffixSeparators}, {"drop_characters", usual.DropCharacters}} {
		f, given := c.conf.one(s.key)
		if !given || f.text == s.usual {
			continue
		}
		line := fmt.Sprintf("%s = %q\n", s.key, f.text)
		if _, err := config.ParseDomain("", []byte(line)); err != nil {
			file := filepath.Join(c.dir, "chasquid.conf")
			c.wrong(file, &lineError{f.line, s.key + " has a character that cannot be used here: only punctuation that an address may have without quotes"})
		}
		b.WriteString(line)
	}
	return b.Bytes()
}

// aliases takes the file as it is, but for commands where they are not allowed: those become
// comments.
func (c *chasquid) aliases(d *Domain, file string) {
	data, err := readFile(file)
	if err != nil {
		c.wrong(file, err)
		return
	}
	var out bytes.Buffer
	number := 0
	for line := range bytes.Lines(data) {
		number++
		if left, ok := commandOf(string(line)); ok && !c.opt.AllowPipe {
			c.leave(file, number, "%s: a command; [aliases] allow_pipe = true in relayd.toml allows them, "+
				"and the line is a comment in the new file", left)
			out.WriteString("# ")
		}
		out.Write(line)
	}
	d.Aliases, d.Source = out.Bytes(), file
	_, err = aliases.Parse(file, bytes.NewReader(d.Aliases), aliases.Options{
		Domain: d.Name, SuffixSeparators: c.conf.textOr("suffix_separators", "+"), DropCharacters: c.conf.textOr("drop_characters", "."), AllowPipe: c.opt.AllowPipe,
	})
	if err != nil {
		c.wrong(file, err)
	}
}

// commandOf reports whether a line of an aliases file leads to a command.
func commandOf(line string) (left string, ok bool) {
	left, right, _ := strings.Cut(line, ":")
	left = strings.TrimSpace(left)
	return left, !strings.HasPrefix(left, "#") && strings.HasPrefix(strings.TrimSpace(right), "|")
}

func (m message) textOr(name, otherwise string) string {
	if f, ok := m.one(name); ok {
		return f.text
	}
	return otherwise
}

// cert reads a pair, through links to the real files.
func (c *chasquid) cert(name, dir string) {
	if _, err := os.Stat(filepath.Join(dir, "fullchain.pem")); errors.Is(err, fs.ErrNotExist) && exists(filepath.Join(dir, "dkim_privkey.pem")) {
		return // the folder of a key alone
	}
	pair := Cert{Name: name}
	var errs [2]error
	pair.Chain, errs[0] = readFile(filepath.Join(dir, "fullchain.pem"))
	pair.Key, errs[1] = readFile(filepath.Join(dir, "privkey.pem"))
	if err := errors.Join(errs[:]...); err != nil {
		c.leave(dir, 0, "no certificate: %v", strings.ReplaceAll(err.Error(), "\n", "; "))
		return
	}
	c.Certs = append(c.Certs, pair)
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// leaveHooks tells of programs that chasquid runs.
func (c *chasquid) leaveHooks() {
	entries, _ := os.ReadDir(filepath.Join(c.dir, "hooks")) // without them there is nothing to tell
	for _, e := range entries {
		c.leave(filepath.Join(c.dir, "hooks", e.Name()), 0, "there are no hooks here")
	}
}
