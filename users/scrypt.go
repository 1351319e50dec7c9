package users

import (
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/crypto/scrypt"
)

// scryptPrefix is how a hash that was made by scrypt begins: a guest in a users file, brought in
// from elsewhere and replaced at the next login. The form is that of the PHC string format:
// "$scrypt$ln=14,r=8,p=1$SALT$KEY", salt and key in base64 without padding.
const scryptPrefix = "$scrypt$"

// Bounds of a hash by scrypt (RFC 7914 section 2). It takes 128·r·2^ln bytes for the time of a
// comparison, and p times the work that this much memory takes: at most 64 MiB, and 4 times.
const (
	maxScryptMemory = 64 << 20
	maxScryptP      = 4
	minScryptKey    = 16
	maxScryptBytes  = 64 // of salt and of key
)

// A Scrypt is a password hashed by scrypt (RFC 7914).
type Scrypt struct {
	LogN int // the cost: 2^LogN rounds; 1 to 16, and with R no more than 64 MiB
	R, P int // block size and parallel parts; at least 1
	Salt []byte
	Key  []byte // what came out: 16 to 64 bytes
}

// Format writes s as it stands in a users file. It returns an error for one that is out of bounds.
func (s Scrypt) Format() (string, error) {
	if err := s.check(); err != nil {
		return "", err
	}
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("%sln=%d,r=%d,p=%d$%s$%s", scryptPrefix, s.LogN, s.R, s.P, b64.EncodeToString(s.Salt), b64.EncodeToString(s.Key)), nil
}

func (s Scrypt) check() error {
	switch {
	case s.LogN < 1 || s.LogN > 20 || s.R < 1 || s.R > 1<<10 || s.P < 1 || s.P > maxScryptP || 128*s.R<<s.LogN > maxScryptMemory:
		return fmt.Errorf("a hash by scrypt may take %d MiB of memory and p=%d at most; make a new one with `relay-util user-passwd ADDRESS`",
			maxScryptMemory>>20, maxScryptP)
	case len(s.Salt) == 0 || len(s.Salt) > maxScryptBytes || len(s.Key) < minScryptKey || len(s.Key) > maxScryptBytes:
		return errNoHash
	}
	return nil
}

// parseScrypt reads what Format writes, and nothing that differs from it by a byte.
func parseScrypt(hash string) (Scrypt, error) {
	parts := strings.Split(strings.TrimPrefix(hash, scryptPrefix), "$")
	if !strings.HasPrefix(hash, scryptPrefix) || len(parts) != 3 {
		return Scrypt{}, errNoHash
	}
	var s Scrypt
	numbers := strings.Split(parts[0], ",")
	if len(numbers) != 3 {
		return Scrypt{}, errNoHash
	}
	for i, field := range []struct {
		name string
		to   *int
	}{{"ln=", &s.LogN}, {"r=", &s.R}, {"p=", &s.P}} {
		digits, named := strings.CutPrefix(numbers[i], field.name)
		n, err := strconv.ParseUint(digits, 10, 16)
		if !named || err != nil {
			return Scrypt{}, errNoHash
		}
		*field.to = int(n)
	}
	var err1, err2 error
	s.Salt, err1 = base64.RawStdEncoding.DecodeString(parts[1])
	s.Key, err2 = base64.RawStdEncoding.DecodeString(parts[2])
	if err1 != nil || err2 != nil {
		return Scrypt{}, errNoHash
	}
	again, err := s.Format()
	if err == nil && again != hash {
		err = errNoHash
	}
	return s, err
}

var errWrong = errors.New("the password does not fit the hash")

// isScrypt reports whether a hash is to be replaced by one of bcrypt when its password is known.
func isScrypt(hash string) bool { return strings.HasPrefix(hash, scryptPrefix) }

// compareHash returns nil if the password fits the hash, which Parse has taken.
func compareHash(hash, password []byte) error {
	if !isScrypt(string(hash)) {
		return bcrypt.CompareHashAndPassword(hash, password)
	}
	s, err := parseScrypt(string(hash))
	if err != nil {
		return err
	}
	key, err := scrypt.Key(password, s.Salt, 1<<s.LogN, s.R, s.P, len(s.Key))
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(key, s.Key) != 1 {
		return errWrong
	}
	return nil
}
