package domains

import (
	"errors"
	"fmt"
	"syscall"

	"relayd/address"
	"relayd/users"
)

// Rehash puts a new hash of the same password in place of a user's old one, in the users file
// itself, as an Edit. It never waits for another edit and never undoes one: where somebody is at
// the file, or the old hash is gone, it leaves the work to the next login. What it could not do is
// logged; nothing depends on it.
func (s *Store) Rehash(user address.Address, old, hash string) {
	err := s.rehash(user, old, hash)
	switch {
	case err == nil:
		s.opt.Log.Info("the hash of a password was replaced by one of bcrypt", "user", user.Key())
	case errors.Is(err, syscall.EWOULDBLOCK), errors.Is(err, users.ErrChanged), errors.Is(err, users.ErrNoUser):
		s.opt.Log.Debug("the hash of a password stays for now", "user", user.Key(), "reason", err.Error())
	default:
		s.opt.Log.Warn("the hash of a password could not be replaced by one of bcrypt", "user", user.Key(), "reason", err.Error())
	}
}

func (s *Store) rehash(user address.Address, old, hash string) error {
	d := s.Current().Get(user.Domain)
	if d == nil {
		return fmt.Errorf("%s: %w", user.Domain, users.ErrNoUser)
	}
	return edit(d.usersFile, 0, syscall.LOCK_EX|syscall.LOCK_NB, func(data []byte) ([]byte, error) {
		return users.Replace(data, user.Local, old, hash)
	})
}
