package domains

import (
	"errors"
	"io/fs"
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
