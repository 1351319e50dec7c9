// Package rights looks at the modes of files: who on this machine can read the secrets of a relay,
// and who can change what it goes by. relayd at its start and relay-util's checkup both ask here.
//
// Only what everybody may counts: to whom the admin has given a file, and for which group it is
// open, is the admin's choice. Links are followed, for what they lead to is read. Nothing is changed.
package rights

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"relayd/config"
	"relayd/problem"
)

// A Place is a file or a folder that not everybody may change.
type Place struct {
	Path   string
	What   string // such as "private key"
	Secret bool   // not everybody may read it, either
}

// Places are those of a relay with these settings. Not all of them need to be there.
func Places(c *config.Config) []Place {
	list := []Place{
		{c.File(), "settings file", false}, {c.Dir(), "folder of the settings", false},
		{c.DomainsDir(), "folder of the domains", false}, {c.CertsDir(), "folder of the certificates", false},
		{c.StateDir, "state folder", false}, {c.ControlSocket(), "control socket", true}, {c.QueueDir(), "folder of mail that waits", true},
		{c.GoodDir(), "folder of last good copies", true},
		{filepath.Join(c.StateDir, "srs-secrets"), "secret of SRS", true},
		{filepath.Join(c.ACMEDir(), "account.json"), "key of the account for certificates", true},
	}
	if c.HoldsSecrets() {
		list[0] = Place{c.File(), "file with the password of the DNS provider", true}
	}
	for _, file := range c.SecretFiles() {
		list = append(list, Place{file, "password", true})
	}
	for _, dir := range folders(c.DomainsDir()) {
		list = append(list, ofDomain(dir)...)
	}
	for _, certs := range []string{c.CertsDir(), c.ACMEDir()} {
		for _, dir := range folders(certs) {
			list = append(list, Place{dir, "folder of a certificate", false},
				Place{filepath.Join(dir, "fullchain.pem"), "certificate", false}, Place{filepath.Join(dir, "privkey.pem"), "private key", true})
		}
	}
	return list
}

// ofDomain are the places in the folder of a domain.
func ofDomain(dir string) []Place {
	keys := filepath.Join(dir, "dkim")
	list := []Place{
		{dir, "folder of a domain", false}, {filepath.Join(dir, "users"), "file of password hashes", true},
		{filepath.Join(dir, "aliases"), "file of aliases", false}, {filepath.Join(dir, "domain.toml"), "settings file of a domain", false},
		{keys, "folder of private keys", false},
	}
	for _, key := range below(keys) {
		if strings.HasSuffix(key, ".pem") {
			list = append(list, Place{key, "private key", true})
		}
	}
	return list
}

// below lists what is in a folder, as far as it can be read. Names that begin with a dot are
// nobody's files.
func below(dir string) []string {
	entries, _ := os.ReadDir(dir)
	var list []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			list = append(list, filepath.Join(dir, e.Name()))
		}
	}
	return list
}

// folders are below without what is surely no folder, such as the README beside certbot's.
func folders(dir string) []string {
	return slices.DeleteFunc(below(dir), func(path string) bool {
		info, err := os.Stat(path)
		return err == nil && !info.IsDir()
	})
}

// A Fault is a place that is open to everybody.
type Fault struct {
	Path string
	Text string // what is wrong, without a full stop
	Do   string // the command that mends it
}

// Fault judges the mode of what is there.
func (p Place) Fault(info fs.FileInfo) (Fault, bool) {
	mode := info.Mode().Perm()
	bad, mend := fs.FileMode(0o002), "o-w"
	switch {
	case p.Secret && info.IsDir():
		bad, mend = 0o007, "o="
	case p.Secret:
		bad, mend = 0o006, "o="
	}
	able := "read"
	switch {
	case mode&bad == 0:
		return Fault{}, false
	case info.Mode()&fs.ModeSocket != 0:
		able = "use"
	case mode&0o002 != 0:
		able = "change"
	case info.IsDir():
		able = "look into"
	}
	return Fault{p.Path, fmt.Sprintf("everybody on this machine can %s this %s (mode %04o)", able, p.What, mode), "chmod " + mend + " " + p.Word()}, true
}

// Word is the path as one word of a shell: who may make folders, as the relay's user may, chooses their names,
// and root is to copy the commands.
func (p Place) Word() string {
	if !strings.ContainsFunc(p.Path, special) {
		return p.Path
	}
	return "'" + strings.ReplaceAll(p.Path, "'", `'\''`) + "'"
}

// special reports whether a character may mean something to a shell.
func special(c rune) bool {
	return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("/._-+@", c)
}

// Problem is f with what to do about it.
func (f Fault) Problem() problem.Problem { return problem.At(f.Path, 0, "%s: %s", f.Text, f.Do) }

// Check finds the places that are open to everybody. Those that cannot be looked at are left out: who
// has to read them complains.
func Check(c *config.Config) problem.List {
	var list problem.List
	for _, p := range Places(c) {
		info, err := os.Stat(p.Path)
		if err != nil {
			continue
		}
		if f, open := p.Fault(info); open {
			list = append(list, f.Problem())
		}
	}
	return list
}
