package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"relayd/problem"
)

// MaxFile is the largest settings file that is read, in bytes.
const MaxFile = 1 << 20

// maxPassword is the largest password file that is read, in bytes.
const maxPassword = 4 << 10

// Load reads the relayd.toml at file and the files with secrets that it names. An error is a problem.List.
func Load(file string) (*Config, error) {
	data, err := readUpTo(file, MaxFile+1) // one byte more, for Parse to find it too large
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf(`%w: make it with one line in it, hostname = "mx.example.com" with the name of this server, or name another one with -c`, err)
	}
	if err != nil {
		return nil, problem.List{problem.At(file, 0, "%v", err)}
	}
	c, doc := parse(file, data)
	c.readPasswords(doc)
	c.readSecrets(doc)
	if err := doc.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// StateDir is the state_dir of the relayd.toml at file, also of one that Load refuses, for those
// who have to reach the daemon that runs in spite of it. In a file that is not TOML it is taken
// from a line of its own before the first table. Where there is none, or none that can be used,
// it is the default.
func StateDir(file string) string {
	data, _ := readUpTo(file, MaxFile)
	if dir, ok := findStateDir(string(data)); ok {
		return dir
	}
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(strings.TrimSpace(line), "[") {
			break
		}
		if dir, ok := findStateDir(line); ok {
			return dir
		}
	}
	return Default().StateDir
}

// findStateDir reads the state_dir of a TOML text.
func findStateDir(text string) (dir string, ok bool) {
	var values map[string]any
	if _, err := toml.Decode(text, &values); err != nil {
		return "", false
	}
	doc := &document{}
	bad := complaints{doc, toml.Key{"state_dir"}}
	if !assign(&dir, values["state_dir"], bad) {
		return "", false
	}
	stateDir(&dir)(bad)
	return dir, doc.err() == nil
}

// readPasswords reads the passwords of all smarthosts and that of rspamd.
func (c *Config) readPasswords(doc *document) {
	out := &c.Outbound
	if doc.sound("outbound.password_file") {
		out.Smarthost.Password = c.readPassword(out.PasswordFile, doc.complaints("outbound.password_file"))
	}
	if doc.sound("filter.password_file") {
		c.Filter.Rspamd.Password = c.readPassword(c.Filter.PasswordFile, doc.complaints("filter.password_file"))
	}
	for name, table := range map[string]map[string]Way{"to": out.To, "from": out.From} {
		for domain, way := range table {
			bad := complaints{doc, toml.Key{"outbound", name, domain, "password_file"}}
			way.Smarthost.Password = c.readPassword(way.PasswordFile, bad)
			table[domain] = way
		}
	}
}

// readPassword reads a password, if there is a file for it.
func (c *Config) readPassword(file string, bad complaints) string {
	if file == "" {
		return ""
	}
	return c.readSecret(file, "password", bad)
}

// SecretFiles are the files with passwords and other secrets that the file names, each once and in order.
func (c *Config) SecretFiles() []string {
	files := slices.Clone(c.ACME.secrets)
	add := func(name string) {
		if name != "" {
			files = append(files, c.beside(name))
		}
	}
	add(c.Outbound.PasswordFile)
	add(c.Filter.PasswordFile)
	for _, table := range []map[string]Way{c.Outbound.To, c.Outbound.From} {
		for _, way := range table {
			add(way.PasswordFile)
		}
	}
	slices.Sort(files)
	return slices.Compact(files)
}

// beside makes a path absolute: one that is not starts at Dir.
func (c *Config) beside(file string) string {
	if filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(c.Dir(), file)
}

// readSecret reads a secret: the one line of its file.
func (c *Config) readSecret(file, what string, bad complaints) string {
	file = c.beside(file)
	data, err := readUpTo(file, maxPassword+1)
	if err != nil {
		bad.add("%s: %v", file, err)
		return ""
	}
	secret := strings.TrimRight(string(data), "\r\n")
	switch {
	case len(data) > maxPassword:
		bad.add("%s is larger than %v: that is no password", file, Size(maxPassword))
	case secret == "":
		bad.add("%s is empty: write the %s into it", file, what)
	case strings.ContainsAny(secret, "\r\n\x00"):
		bad.add("%s has more than one line: the password alone must stand in it", file)
	}
	return secret
}

// readUpTo reads at most the first limit bytes of a file. Its errors do not name the file, since
// they go where it is named already.
func readUpTo(file string, limit int64) ([]byte, error) {
	data, err := func() ([]byte, error) {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return io.ReadAll(io.LimitReader(f, limit))
	}()
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return nil, pe.Err
	}
	return data, err
}
