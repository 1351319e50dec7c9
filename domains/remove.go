package domains

import (
	"os"
	"path/filepath"

	"relayd/internal/links"
)

// Remove removes the folder of a domain with all that is in it. A daemon never sees half of a domain:
// the name goes first.
func Remove(dir string) error {
	aside, err := PutAside(dir)
	if err != nil {
		return err
	}
	return os.RemoveAll(filepath.Dir(aside))
}

// PutAside moves the folder of a domain to where the daemon does not look, beside it, and returns its
// new name.
func PutAside(dir string) (aside string, err error) {
	around := filepath.Dir(dir)
	if err := links.Check(around); err != nil {
		return "", err
	}
	grave, err := os.MkdirTemp(around, ".removed.*")
	if err != nil {
		return "", err
	}
	aside = filepath.Join(grave, filepath.Base(dir))
	if err := os.Rename(dir, aside); err != nil {
		os.Remove(grave)
		return "", err
	}
	return aside, syncDir(around)
}
