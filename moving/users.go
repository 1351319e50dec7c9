package moving

import (
	"bytes"
	"fmt"

	"relayd/users"
)

// users reads chasquid's users file.
func (c *chasquid) users(d *Domain, file string) {
	data, err := readFile(file)
	if err != nil {
		c.wrong(file, err)
		return
	}
	list, err := parseText(string(data))
	if err != nil {
		c.wrong(file, err)
		return
	}
	for _, f := range list {
		if f.name != "users" || f.sub == nil {
			c.wrong(file, &lineError{f.line, fmt.Sprintf("%s is no user", f.name)})
			continue
		}
		if err := c.user(d, f.sub); err != nil {
			c.wrong(file, &lineError{f.line, err.Error()})
		}
	}
	if _, err := users.Parse(file, bytes.NewReader(d.Users)); err != nil && len(c.bad) == 0 {
		c.wrong(file, err)
	}
}

// user adds a user of chasquid's to a domain.
func (c *chasquid) user(d *Domain, entry message) error {
	name, err := users.CheckName(entry.text("key"))
	if err != nil {
		return err
	}
	if _, err := users.Remove(d.Users, name); err == nil {
		return fmt.Errorf("the user %s stands twice", name)
	}
	value, _ := entry.one("value")
	hash, disabled, err := c.hash(value.sub)
	if err == nil {
		d.Users, err = users.Set(d.Users, name, hash)
	}
	if err == nil && disabled {
		d.Users, err = users.Disable(d.Users, name)
	}
	if err != nil {
		return fmt.Errorf("the user %s: %w", name, err)
	}
	d.Count++
	if _, old := value.sub.one("scrypt"); old {
		d.Old++
	}
	return nil
}

// hash is what stands in a users file of ours for a password of chasquid's: the hash as it is, where
// only the next login can tell the password.
func (c *chasquid) hash(m message) (hash string, disabled bool, err error) {
	for _, f := range m {
		switch f.name {
		case "scrypt":
			hash, err = scryptHash(f.sub)
			return hash, false, err
		case "bcrypt":
			return f.sub.text("encrypted"), false, nil
		case "plain":
			hash, err = users.Hash(f.sub.text("password"), c.opt.BcryptCost)
			return hash, false, err
		case "denied": // one who gets mail and never logs in
			hash, err = users.Hash(users.Generate(), c.opt.BcryptCost)
			return hash, true, err
		}
	}
	return "", false, fmt.Errorf("there is no password of a kind that is known here")
}

func scryptHash(m message) (string, error) {
	s := users.Scrypt{Salt: []byte(m.text("salt")), Key: []byte(m.text("encrypted"))}
	for name, to := range map[string]*int{"logN": &s.LogN, "r": &s.R, "p": &s.P} {
		var err error
		if *to, err = m.number(name); err != nil {
			return "", err
		}
	}
	if length, err := m.number("keyLen"); err != nil || length != len(s.Key) {
		return "", fmt.Errorf("keyLen is not the length of the hash")
	}
	return s.Format()
}
