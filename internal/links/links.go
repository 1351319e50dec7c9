// Package links says which symbolic links root follows when it works in folders of others.
package links

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Check returns an error if a link on the way to name was made by somebody other than root and leads to
// what is not that user's own: root would do there what the maker of the link could not. Where a link
// leads nowhere yet, the folder counts in which it would make a file. Processes of others may follow what they
// like, for the system bounds them. It looks at the way as it is at this moment.
func Check(name string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	path, err := filepath.Abs(name)
	if err != nil {
		return err
	}
	for ; path != "/"; path = filepath.Dir(path) {
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && (info.Mode()&fs.ModeSymlink == 0 || owner(info) == 0) {
			continue
		}
		if err != nil {
			return err
		}
		whose, err := ownerBehind(path)
		if err != nil {
			return err
		}
		if maker := owner(info); whose != maker {
			return fmt.Errorf("%s is a link of user %d and leads to what is user %d's: make the link as root if it is right", path, maker, whose)
		}
	}
	return nil
}

func owner(info fs.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Uid }

// maxLinks is how many links are gone after, as many as Linux does.
const maxLinks = 40

// ownerBehind is who owns what a link leads to, or else the folder in which that would be.
func ownerBehind(path string) (uint32, error) {
	for range maxLinks {
		info, err := os.Stat(path)
		if err == nil {
			return owner(info), nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return 0, err
		}
		folder := path[:strings.LastIndexByte(path, '/')+1] // not cleaned: ".." behind a linked folder leads elsewhere than its text
		target, err := os.Readlink(path)
		switch {
		case err != nil:
			info, err := os.Stat(folder)
			if err != nil {
				return 0, err
			}
			return owner(info), nil
		case filepath.IsAbs(target):
			path = target
		default:
			path = folder + target
		}
	}
	return 0, &fs.PathError{Op: "readlink", Path: path, Err: syscall.ELOOP}
}
