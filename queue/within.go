package queue

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Within is the file system of the machine as far as root reaches, which has been opened as the folder
// dir. No link that somebody has put there leads out of it: it is for a process that has more rights
// than the owner of the folder. The caller closes root when the store is closed.
func Within(root *os.Root, dir string) FS { return rooted{root, dir} }

type rooted struct {
	root *os.Root
	dir  string
}

// below is the path of a file from the root.
func (r rooted) below(name string) (string, error) { return filepath.Rel(r.dir, name) }

func (r rooted) open(name string, flags int) (*os.File, error) {
	name, err := r.below(name)
	if err != nil {
		return nil, err
	}
	return r.root.OpenFile(name, flags, 0o600)
}

func (r rooted) Create(name string) (File, error) {
	f, err := r.open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (r rooted) Open(name string) (File, error) {
	f, err := r.open(name, os.O_RDWR)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (r rooted) Rename(from, to string) error {
	from, err := r.below(from)
	if err != nil {
		return err
	}
	if to, err = r.below(to); err != nil {
		return err
	}
	return r.root.Rename(from, to)
}

func (r rooted) Remove(name string) error {
	name, err := r.below(name)
	if err != nil {
		return err
	}
	return r.root.Remove(name)
}

func (r rooted) MkdirAll(dir string) error {
	dir, err := r.below(dir)
	if err != nil {
		return err
	}
	return r.root.MkdirAll(dir, 0o700)
}

func (r rooted) List(dir string) ([]string, error) {
	f, err := r.open(dir, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

func (r rooted) SyncDir(dir string) error {
	f, err := r.open(dir, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (r rooted) Free(dir string) (bytes, files uint64, err error) {
	f, err := r.open(dir, os.O_RDONLY)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return 0, 0, err
	}
	return freeIn(&st)
}
