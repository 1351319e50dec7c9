package users

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrNoUser is returned by the edits that need the user to be there.
var ErrNoUser = errors.New("no such user")

// The edits below take the text of a users file and return a new one, in which one line is
// different and every other byte is the same: comments, order and line ends are a person's.
// They do not need the rest of the file to be right, but they refuse a user that stands twice,
// since a change of one of the two lines would look done and not be.

// Set gives the user a new hash, and adds the user at the end if there is none. The mark of a
// disabled user stays, and so do Dovecot's fields: a new password does not let anybody back in.
// It returns an error if the name or the hash could not stand in the file.
func Set(data []byte, local, hash string) ([]byte, error) {
	name, err := CheckName(local)
	if err != nil {
		return nil, err
	}
	if err := checkHash(hash); err != nil {
		return nil, err
	}
	l, err := find(data, name)
	if errors.Is(err, ErrNoUser) {
		return appendLine(data, name+":"+hash), nil
	}
	if err != nil {
		return nil, err
	}
	return l.withField(data, func(off bool, scheme, _ string) string {
		return mark(off) + scheme + hash
	}), nil
}

// ErrChanged is returned by Replace when the user has another hash by now.
var ErrChanged = errors.New("the user has another hash by now")

// Replace gives the user a new hash in place of the one that is known, as Set does. It returns
// ErrNoUser or ErrChanged if somebody was faster.
func Replace(data []byte, local, known, hash string) ([]byte, error) {
	l, err := find(data, local)
	if err != nil {
		return nil, err
	}
	if _, from, to, _ := l.fields(); l.hash(from, to) != known {
		return nil, ErrChanged
	}
	return Set(data, local, hash)
}

func (l line) hash(from, to int) string {
	_, _, hash := splitField(l.text[from:to])
	return hash
}

// Remove takes the user's line out. It returns ErrNoUser if there is none.
func Remove(data []byte, local string) ([]byte, error) {
	l, err := find(data, local)
	if err != nil {
		return nil, err
	}
	return slices.Concat(data[:l.start], data[l.end:]), nil
}

// Disable puts "!" before the user's hash, if it is not there. It returns ErrNoUser if there is
// no such user.
func Disable(data []byte, local string) ([]byte, error) { return setDisabled(data, local, true) }

// Enable takes the "!" away again. It returns ErrNoUser if there is no such user.
func Enable(data []byte, local string) ([]byte, error) { return setDisabled(data, local, false) }

func setDisabled(data []byte, local string, off bool) ([]byte, error) {
	l, err := find(data, local)
	if err != nil {
		return nil, err
	}
	return l.withField(data, func(was bool, scheme, hash string) string {
		return mark(off) + scheme + hash
	}), nil
}

func mark(off bool) string {
	if off {
		return "!"
	}
	return ""
}

// find returns the one line of the user.
func find(data []byte, local string) (line, error) {
	name := strings.ToLower(local)
	var found line
	for l := range lines(data) {
		if !l.isEntry() {
			continue
		}
		if n, _, _, ok := l.fields(); !ok || strings.ToLower(n) != name {
			continue
		}
		if found.number != 0 {
			return line{}, fmt.Errorf("%s stands in line %d and in line %d: take one of them out first", name, found.number, l.number)
		}
		found = l
	}
	if found.number == 0 {
		return line{}, fmt.Errorf("%s: %w", name, ErrNoUser)
	}
	return found, nil
}

// withField returns data with the second field of the line changed.
func (l line) withField(data []byte, change func(off bool, scheme, hash string) string) []byte {
	_, from, to, _ := l.fields()
	field := change(splitField(l.text[from:to]))
	return slices.Concat(data[:l.start+from], []byte(field), data[l.start+to:])
}

// appendLine adds a line at the end, with the line ends that the file has.
func appendLine(data []byte, text string) []byte {
	end := "\n"
	if i := bytes.IndexByte(data, '\n'); i > 0 && data[i-1] == '\r' {
		end = "\r\n"
	}
	out := slices.Clone(data)
	if len(out) > 0 && out[len(out)-1] != '\n' {
		out = append(out, end...)
	}
	return append(append(out, text...), end...)
}
