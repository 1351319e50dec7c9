package queue

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// An FS is the little of a file system that the store stands on. Everything that must survive a
// power cut goes through it, so that tests can cut the power at every step. What it promises is
// what POSIX does: bytes are durable after Sync of their file, names after SyncDir of their folder.
type FS interface {
	// Create makes a file that does not exist; Open opens one that does. Both for reading and writing.
	Create(name string) (File, error)
	Open(name string) (File, error)
	Rename(from, to string) error
	Remove(name string) error
	MkdirAll(dir string) error
	List(dir string) ([]string, error) // names in order
	SyncDir(dir string) error
	// Free is how many bytes and files there is still room for.
	Free(dir string) (bytes, files uint64, err error)
}

// A File is an open file. Its methods may be called from several goroutines.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Sync() error // data, and as much of the metadata as reading it back needs
	Size() (int64, error)
}

// osFS is the file system of the machine.
type osFS struct{}

type osFile struct{ *os.File }

func (f osFile) Sync() error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); err != unix.EINTR {
			return err
		}
	}
}

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (osFS) Create(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) Open(name string) (File, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) Rename(from, to string) error { return os.Rename(from, to) }
func (osFS) Remove(name string) error     { return os.Remove(name) }
func (osFS) MkdirAll(dir string) error    { return os.MkdirAll(dir, 0o700) }

func (osFS) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, err
}

func (osFS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (osFS) Free(dir string) (bytes, files uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(filepath.Clean(dir), &st); err != nil {
		return 0, 0, err
	}
	return freeIn(&st)
}

func freeIn(st *unix.Statfs_t) (bytes, files uint64, err error) {
	files = st.Ffree
	if st.Files == 0 { // file systems without a fixed number of inodes say 0 of 0
		files = ^uint64(0)
	}
	return st.Bavail * uint64(st.Bsize), files, nil
}

// isFull reports whether err passes once there is room again.
func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
