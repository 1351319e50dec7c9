// Package users keeps the people who may log in: the users file of one domain, what a password
// must be, and the check of a login.
//
// A users file is what `htpasswd -B` writes and Dovecot's passwd-file reads: one
// "localpart:bcrypt-hash" a line, blank lines and # comments between them. "!" before the hash
// disables the user; "{BLF-CRYPT}" before it and Dovecot's further fields behind it are allowed
// and ignored. A hash by scrypt, "$scrypt$ln=14,r=8,p=1$SALT$KEY", is one that was brought in from
// another server: it is good for one login, which replaces it. Parse turns a whole file into an immutable Table or says what is wrong in it; the
// functions in edit.go change one line of it and no other byte.
//
// A Verifier promises that checking logins of sources that are not known takes half of the cores at most
// (one where there is only one), that those who guess do not delay sources that are known, that a name
// which does not exist takes as long as a wrong password, and that the password itself is kept nowhere.
package users

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"unicode"

	"relayd/address"
	"relayd/problem"
)

// maxFile is the most that a users file may hold, in bytes: some 200,000 users. It keeps a
// mistaken file (a log, a device) from filling the memory.
const maxFile = 16 << 20

// A User is one line of a users file.
type User struct {
	Name     string // the local part, in lower case
	Hash     string `json:"-"` // bcrypt, 60 bytes, or scrypt; without prefix or mark
	Disabled bool
	Line     int // in its file, from 1
}

// A Table is every user of one domain. It does not change after Parse and so is safe for
// concurrent use. A nil Table has no users.
type Table struct {
	users  []User
	byName map[string]int
}

// Parse reads a users file; file is its name for the complaints. The error is a problem.List with
// everything that is wrong, and the table is then nil: half a file would lock people out.
// No complaint quotes what stands in the place of a hash, since that may be a password.
func Parse(file string, r io.Reader) (*Table, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, problem.List{problem.At(file, 0, "%v", err)}
	}
	if len(data) > maxFile {
		return nil, problem.List{problem.At(file, 0, "more than %d MiB: this is no users file", maxFile>>20)}
	}
	t := &Table{byName: make(map[string]int)}
	var problems problem.List
	for l := range lines(data) {
		if !l.isEntry() {
			continue
		}
		u, err := l.user()
		if err != nil {
			problems = append(problems, problem.At(file, l.number, "%v", err))
			continue
		}
		if first, ok := t.byName[u.Name]; ok {
			problems = append(problems, problem.At(file, l.number,
				"%s stands already in line %d: a user may stand only once", u.Name, t.users[first].Line))
			continue
		}
		t.byName[u.Name] = len(t.users)
		t.users = append(t.users, u)
	}
	if err := problems.Err(); err != nil {
		return nil, err
	}
	return t, nil
}

// Lookup finds a user by the local part, in any case. A disabled user is found too.
func (t *Table) Lookup(local string) (User, bool) {
	if t == nil {
		return User{}, false
	}
	i, ok := t.byName[strings.ToLower(local)]
	if !ok {
		return User{}, false
	}
	return t.users[i], true
}

// All returns every user in the order of the file. The slice is the caller's.
func (t *Table) All() []User {
	if t == nil {
		return nil
	}
	return append([]User(nil), t.users...)
}

// Names returns the name of every user, disabled ones too, in the order of the file.
func (t *Table) Names() []string {
	names := make([]string, 0, t.len())
	for _, u := range t.All() {
		names = append(names, u.Name)
	}
	return names
}

func (t *Table) len() int {
	if t == nil {
		return 0
	}
	return len(t.users)
}

// CheckName brings a local part into the form in which it stands in a users file, or says why it
// cannot stand there. It is narrower than a mailbox: the name becomes a field of a line, and in
// Dovecot, which reads the same file, the name of a folder.
func CheckName(local string) (string, error) {
	if strings.Contains(local, "@") {
		return "", fmt.Errorf("%q: write only the name, without the @ and what follows, for the domain is that of the folder", local)
	}
	if err := address.CheckLocal(local); err != nil {
		return "", err
	}
	name := strings.ToLower(local)
	if err := address.CheckLocal(name); err != nil { // a few letters are longer in lower case
		return "", err
	}
	switch {
	case address.QuoteLocal(name) != name:
		return "", fmt.Errorf("%q must be a plain name: no spaces, no colon or other punctuation of addresses, no dot at either end or next to another", local)
	case strings.ContainsRune(name, '/'):
		return "", fmt.Errorf("%q has a slash: mail programs make a folder of the name, and a slash would leave it", local)
	case name[0] == '!':
		return "", fmt.Errorf(`%q begins with "!": to disable a user, put it before the hash`, local)
	case name[0] == '#':
		return "", fmt.Errorf(`%q begins with "#", which makes its line a comment`, local)
	case name[0] == '{':
		return "", fmt.Errorf("%q begins with a brace: the name stands first, the hash behind the colon", local)
	case strings.ContainsFunc(name, invisible):
		return "", fmt.Errorf("%q has a character that nobody sees, such as a byte-order mark", local)
	}
	return name, nil
}

// invisible finds what two names can differ in although they look the same.
func invisible(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) }

// errNoHash says what to do about every hash that is none, and does not quote it.
var errNoHash = errors.New("no bcrypt hash stands behind the colon: plain passwords and other kinds of hash are not taken; make one with `relay-util user-passwd ADDRESS`")

// checkHash reports why s is no hash that we would spend the time on: one of scrypt, or of bcrypt,
// "$2y$", two digits of cost, "$", and 53 characters of salt and checksum. The kind "2x" is the
// result of a bug and "2" of an older one.
func checkHash(s string) error {
	if isScrypt(s) {
		_, err := parseScrypt(s)
		return err
	}
	if len(s) != 60 || s[:2] != "$2" || !strings.Contains("aby", s[2:3]) || s[3] != '$' || s[6] != '$' {
		return errNoHash
	}
	if strings.ContainsFunc(s[7:], notHashByte) {
		return errNoHash
	}
	cost, err := strconv.ParseUint(s[4:6], 10, 8) // no signs
	if err != nil || int(cost) < MinCost {
		return errNoHash
	}
	if cost > MaxCost {
		return fmt.Errorf("a hash of cost %d takes too long at every login: the most is %d; make a new one with `relay-util user-passwd ADDRESS`", cost, MaxCost)
	}
	return nil
}

func notHashByte(r rune) bool {
	return r != '.' && r != '/' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
}

// A line is one line of a users file, cut into the parts that an edit changes.
type line struct {
	number     int
	start, end int    // in the file, the line end included
	text       string // without the line end
}

// lines walks over the lines of a users file, comments and blank lines too.
func lines(data []byte) iter.Seq[line] {
	return func(yield func(line) bool) {
		number, start := 0, 0
		for raw := range bytes.Lines(data) {
			number++
			end := start + len(raw)
			text := strings.TrimSuffix(strings.TrimSuffix(string(raw), "\n"), "\r")
			if !yield(line{number, start, end, text}) {
				return
			}
			start = end
		}
	}
}

// isEntry reports whether the line is meant to be a user.
func (l line) isEntry() bool {
	s := strings.TrimSpace(l.text)
	return s != "" && s[0] != '#'
}

// fields cuts a line into its name and, as offsets into the text, the field of the hash without
// spaces behind it.
func (l line) fields() (name string, from, to int, ok bool) {
	name, rest, ok := strings.Cut(l.text, ":")
	if !ok {
		return name, 0, 0, false
	}
	field, _, _ := strings.Cut(rest, ":")
	from = len(name) + 1
	return name, from, from + len(strings.TrimRight(field, " \t")), true
}

func (l line) user() (User, error) {
	name, from, to, ok := l.fields()
	if !ok {
		// The line is not quoted: it may be a password.
		return User{}, errors.New(`this is not "name:hash", and no comment either`)
	}
	name, err := CheckName(name)
	if err != nil {
		return User{}, err
	}
	off, scheme, hash := splitField(l.text[from:to])
	err = checkHash(hash)
	if scheme != "" && isScrypt(hash) {
		err = errNoHash // the scheme says that it is another kind
	}
	if err != nil {
		return User{}, fmt.Errorf("user %s: %w", name, err)
	}
	return User{Name: name, Hash: hash, Disabled: off, Line: l.number}, nil
}

// blfCrypt is how Dovecot names bcrypt.
const blfCrypt = "{BLF-CRYPT}"

// splitField takes the second field of a line apart: the mark of a disabled user, which may
// stand before or behind Dovecot's name for the scheme, that name as written, and the hash.
func splitField(field string) (off bool, scheme, hash string) {
	hash = strings.TrimLeft(field, "!")
	if n := len(blfCrypt); len(hash) >= n && strings.EqualFold(hash[:n], blfCrypt) {
		scheme, hash = hash[:n], hash[n:]
	}
	hash = strings.TrimLeft(hash, "!")
	return len(scheme)+len(hash) < len(field), scheme, hash
}
