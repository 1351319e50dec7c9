package domains

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// WriteFile replaces a file in one step: whoever reads it sees the old bytes or the new ones,
// also after a power cut. Owner and mode of an existing file are kept; a new one belongs to the
// owner of its folder and has the given mode.
func WriteFile(name string, data []byte, mode fs.FileMode) (err error) {
	owner, mode, err := ownerAndMode(name, mode)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if err := f.Chown(int(owner.Uid), int(owner.Gid)); err != nil && os.Geteuid() == 0 {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

func ownerAndMode(name string, mode fs.FileMode) (*syscall.Stat_t, fs.FileMode, error) {
	info, err := os.Stat(name)
	if err == nil {
		return info.Sys().(*syscall.Stat_t), info.Mode().Perm(), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, 0, err
	}
	if info, err = os.Stat(filepath.Dir(name)); err != nil {
		return nil, 0, err
	}
	return info.Sys().(*syscall.Stat_t), mode, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Edit changes a file by f while no other Edit is at the same folder. f gets the bytes, nil for
// a file that does not exist; when it returns an error nothing is changed.
func Edit(name string, mode fs.FileMode, f func(old []byte) ([]byte, error)) error {
	unlock, err := lock(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer unlock()
	// A link is followed, so that the file that it leads to is changed and the link stays.
	if target, err := filepath.EvalSymlinks(name); err == nil {
		name = target
	}
	old, err := readFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	data, err := f(old)
	if err != nil {
		return err
	}
	return WriteFile(name, data, mode)
}

// lock takes an advisory lock on a folder until the returned function is called.
func lock(dir string) (func(), error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
		d.Close()
		return nil, fmt.Errorf("locking %s: %w", dir, err)
	}
	return func() { d.Close() }, nil
}
