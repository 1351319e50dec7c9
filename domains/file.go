package domains

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"relayd/internal/links"
)

// WriteFile replaces a file in one step: whoever reads it sees the old bytes or the new ones,
// also after a power cut. Where name is a link, the file that it leads to is replaced and the link
// stays. Owner and mode of an existing file are kept; a new one belongs to the owner of its folder
// and has the given mode. After an error the old file is there, and nothing else.
func WriteFile(name string, data []byte, mode fs.FileMode) error {
	name, err := follow(name)
	if err != nil {
		return err
	}
	owner, mode, err := ownerAndMode(name, mode)
	if err != nil {
		return err
	}
	// Names that begin with a dot are nobody's files.
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	err = errors.Join(fill(f, data, mode, owner), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	return syncDir(filepath.Dir(name))
}

// fill makes a new file what it is to be, durably.
func fill(f *os.File, data []byte, mode fs.FileMode, owner *syscall.Stat_t) error {
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := give(f, owner); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	return f.Sync()
}

// give makes f belong to the owner of another file.
func give(f *os.File, owner *syscall.Stat_t) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	is := info.Sys().(*syscall.Stat_t)
	if is.Uid == owner.Uid && is.Gid == owner.Gid {
		return nil // some file systems refuse even that
	}
	if err := f.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
		return fmt.Errorf("the file would no longer belong to its owner, try sudo: %w", err)
	}
	return nil
}

// maxLinks is how many links follow goes after, as many as Linux does.
const maxLinks = 40

// follow returns the file that name leads to, which need not exist. For root it goes after a link of
// somebody else's only to what is that user's own.
func follow(name string) (string, error) {
	for range maxLinks {
		if err := links.Check(name); err != nil {
			return "", err
		}
		target, err := os.Readlink(name)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.EINVAL): // EINVAL: not a link
			return name, nil
		case err != nil:
			return "", err
		case filepath.IsAbs(target):
			name = target
		default:
			// Not cleaned: ".." behind a linked folder leads elsewhere than its text.
			name = filepath.Dir(name) + "/" + target
		}
	}
	return "", &fs.PathError{Op: "readlink", Path: name, Err: syscall.ELOOP}
}

func ownerAndMode(name string, mode fs.FileMode) (*syscall.Stat_t, fs.FileMode, error) {
	info, err := os.Lstat(name)
	switch {
	case err == nil && !info.Mode().IsRegular():
		return nil, 0, fmt.Errorf("%s: %w", name, errNotFile)
	case err == nil:
		return info.Sys().(*syscall.Stat_t), info.Mode().Perm(), nil
	case !errors.Is(err, fs.ErrNotExist):
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

// Edit changes a file by f while no other Edit is at the same folder. Where name is a link, that
// is the folder of the file that it leads to: there all edits of that file meet, by whatever link
// they come. f gets the bytes, nil for a file that does not exist; when it returns an error, or
// what it got, nothing is changed. Owner and mode are as with WriteFile.
func Edit(name string, mode fs.FileMode, f func(old []byte) ([]byte, error)) error {
	return edit(name, mode, syscall.LOCK_EX, f)
}

// edit is Edit; with LOCK_NB in how it returns an EWOULDBLOCK where Edit would wait.
func edit(name string, mode fs.FileMode, how int, f func(old []byte) ([]byte, error)) error {
	name, unlock, err := lockFile(name, how)
	if err != nil {
		return err
	}
	defer unlock()
	old, err := readFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	data, err := f(bytes.Clone(old))
	if err != nil || old != nil && bytes.Equal(data, old) {
		return err
	}
	return WriteFile(name, data, mode)
}

// lockFile takes the lock for the file that name leads to, and returns the name of that file.
func lockFile(name string, how int) (target string, unlock func(), err error) {
	for {
		if target, err = follow(name); err != nil {
			return "", nil, err
		}
		if unlock, err = lock(filepath.Dir(target), how); err != nil {
			return "", nil, err
		}
		// The link may have been changed while we waited.
		if now, err := follow(name); err == nil && now == target {
			return target, unlock, nil
		}
		unlock()
	}
}

// lock takes an advisory lock on a folder until the returned function is called.
func lock(dir string, how int) (func(), error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(d.Fd()), how); err != nil {
		d.Close()
		return nil, fmt.Errorf("locking %s: %w", dir, err)
	}
	return func() { d.Close() }, nil
}
