package users

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// The costs that a hash may have; one more doubles the time. Cost 10 takes some 60 ms of a core,
// cost 16 some 4 s.
const (
	MinCost = bcrypt.MinCost
	MaxCost = 16
)

// MaxPassword is the length of a password in bytes that bcrypt looks at.
const MaxPassword = 72

// Why a password cannot be one.
var (
	ErrEmpty   = errors.New("the password is empty")
	ErrTooLong = fmt.Errorf("the password has more than %d bytes, and bcrypt looks only at the first %[1]d: take a shorter one", MaxPassword)
	ErrNUL     = errors.New("the password has a zero byte: mail programs cannot send it")
)

// CheckPassword returns ErrEmpty, ErrTooLong or ErrNUL for what cannot be a password. SASL PLAIN
// (RFC 4616) ends a password at a zero byte, and other readers of the file would see only what
// stands before it.
func CheckPassword(password string) error {
	switch {
	case password == "":
		return ErrEmpty
	case len(password) > MaxPassword:
		return ErrTooLong
	case strings.IndexByte(password, 0) >= 0:
		return ErrNUL
	}
	return nil
}

// Hash makes the bcrypt hash of a password for a users file. It returns the errors of
// CheckPassword, and one for a cost outside MinCost to MaxCost.
func Hash(password string, cost int) (string, error) {
	if err := CheckPassword(password); err != nil {
		return "", err
	}
	if cost < MinCost || cost > MaxCost {
		return "", fmt.Errorf("a bcrypt cost is %d to %d, not %d", MinCost, MaxCost, cost)
	}
	h, err := bcrypt.GenerateFromPassword([]byte(password), cost)
	if err != nil {
		return "", fmt.Errorf("hashing the password: %w", err)
	}
	// The same computation under the name that htpasswd gives it: the C library of Debian computes
	// "2a" differently for some passwords that are not ASCII, and Dovecot asks that library.
	return "$2y$" + strings.TrimPrefix(string(h), "$2a$"), nil
}

// Characters of made passwords: 32, so that each is five bits, in lower case for phone keyboards,
// without those that are taken for one another (0 and o, 1 and l).
const alphabet = "abcdefghijkmnpqrstuvwxyz23456789"

// Generate makes a password of 100 random bits that is easy to type: five groups of four.
func Generate() string {
	var random [20]byte
	rand.Read(random[:]) // never fails: it ends the program first
	var b strings.Builder
	for i, r := range random {
		if i > 0 && i%4 == 0 {
			b.WriteByte('-')
		}
		b.WriteByte(alphabet[r%32])
	}
	return b.String()
}
