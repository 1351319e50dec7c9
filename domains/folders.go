package domains

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"relayd/address"
)

// Folders maps the name of each domain that is hosted below dir to its folder, for those who edit
// the files. A folder may be named in another case than its domain. A dir that does not exist
// hosts nothing.
func Folders(dir string) (map[string]string, error) {
	l := &loader{opt: Options{Dir: dir}}
	folders, err := l.folders()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return folders, err
}

// folders maps the name of each hosted domain to its folder. One that is there and cannot be
// looked into, such as a link to a disk that is not mounted, still makes its domain hosted: mail
// for it must not be refused for good.
func (l *loader) folders() (map[string]string, error) {
	entries, err := os.ReadDir(l.opt.Dir)
	if err != nil {
		return nil, err
	}
	folders := map[string]string{}
	for _, e := range entries {
		dir := filepath.Join(l.opt.Dir, e.Name())
		info, err := os.Stat(dir)
		removed := errors.Is(err, fs.ErrNotExist) && e.Type()&fs.ModeSymlink == 0
		if strings.HasPrefix(e.Name(), ".") || err == nil && !info.IsDir() || removed {
			continue
		}
		name, err := folderName(e.Name())
		if err != nil {
			l.complain(dir, "a folder here must have the name of a domain: %v", err)
			continue
		}
		if other, twice := folders[name]; twice {
			l.complain(dir, "this is the same domain as %s", other)
			continue
		}
		folders[name] = dir
	}
	return folders, nil
}

// folderName is the domain that a folder is for: one that addresses can be in.
func folderName(s string) (string, error) {
	if _, err := address.Domain(s); err != nil {
		return "", err // without the address that the name is tried in below
	}
	a, err := address.Parse("postmaster@" + s)
	if _, literal := a.Literal(); err == nil && literal {
		err = errors.New("an IP address cannot be hosted")
	}
	return a.Domain, err
}
