package domains

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"relayd/dkim"
	"relayd/internal/links"
)

// NewFile is the mode of users and aliases files that are made for a person to edit.
const NewFile fs.FileMode = 0o640

// What a key is unless somebody says otherwise.
const (
	DefaultSelector = "relay1"
	DefaultAlgo     = "rsa2048" // which every receiver checks
)

// A KeySpec is which key to make.
type KeySpec struct{ Selector, Algo string }

// Make makes the folder of a domain in dir, and dir where there is none, with an alias file of the
// given text, no users, and a DKIM key. It happens in one step: a daemon sees the domain whole or
// not at all. Owner and mode are those of the folder around. A folder that is there already is an
// error, and so is a name that no Store would host.
func Make(dir, name string, aliasText []byte) (key *dkim.Key, err error) {
	if _, err := folderName(name); err != nil {
		return nil, err
	}
	if err := links.Check(dir); err != nil {
		return nil, err
	}
	if err := MakeFolder(dir); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	// Names that begin with a dot are no domains.
	draft, err := os.MkdirTemp(dir, "."+name+".*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(draft)
	if err := likeAround(draft); err != nil {
		return nil, err
	}
	if err := WriteFile(filepath.Join(draft, "users"), nil, NewFile); err != nil {
		return nil, err
	}
	if err := WriteFile(filepath.Join(draft, "aliases"), aliasText, NewFile); err != nil {
		return nil, err
	}
	if key, err = MakeKey(draft, name, KeySpec{DefaultSelector, DefaultAlgo}); err != nil {
		return nil, err
	}
	if err := os.Rename(draft, filepath.Join(dir, name)); err != nil {
		return nil, err
	}
	return key, syncDir(dir)
}

// CheckFree reports why no domain of that name, in A-labels and lower case, can be made in dir: it is
// an IP address, or something is in the way.
func CheckFree(dir, name string) error {
	if name[0] == '[' {
		return fmt.Errorf("%s is an address and no domain", name)
	}
	// A file of that name is in the way, too.
	if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
		return fmt.Errorf("%s is in the way; move it elsewhere first", filepath.Join(dir, name))
	}
	return nil
}

// MakeKey puts a new key into the folder of a domain. A key with the same selector in any case of
// letters is an error.
func MakeKey(dir, domain string, spec KeySpec) (*dkim.Key, error) {
	text, err := dkim.Generate(spec.Algo)
	if err != nil {
		return nil, err
	}
	key, err := dkim.ParseKey(domain, spec.Selector, text)
	if err != nil {
		return nil, err
	}
	keys := filepath.Join(dir, "dkim")
	if err := MakeFolder(keys); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	name := key.Selector + ".pem"
	err = Edit(filepath.Join(keys, name), 0o600, func([]byte) ([]byte, error) {
		there, err := os.ReadDir(keys)
		for _, e := range there {
			if strings.EqualFold(e.Name(), name) {
				err = fmt.Errorf("there is a key already, %s; take another name with --selector", filepath.Join(keys, e.Name()))
			}
		}
		return text, err
	})
	return key, err
}

// MakeFolder makes a folder with the owner and mode of the one around it.
func MakeFolder(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return likeAround(dir)
}

func likeAround(dir string) error { return LikeOther(dir, filepath.Dir(dir)) }

// LikeOther gives a folder the owner and mode of another. Only root can give an owner.
func LikeOther(dir, other string) error {
	info, err := os.Stat(other)
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t)
	return Give(dir, int(owner.Uid), int(owner.Gid), info.Mode()&(fs.ModePerm|fs.ModeSetgid))
}

// Give gives a folder an owner and a mode. Only root can give an owner. It is an error, and changes
// nothing, where who owns the folder around it has put a link in its place.
func Give(dir string, uid, gid int, mode fs.FileMode) error {
	f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Chown(uid, gid); err != nil && os.Geteuid() == 0 {
		return err
	}
	return f.Chmod(mode)
}
