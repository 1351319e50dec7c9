package queue

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// A disk is the file system as far as a FileStore relies on it, so that tests can have each step
// fail and see what is left after it.
type disk interface {
	// Open is os.OpenFile; a file that it makes is for its owner only.
	Open(name string, flag int) (file, error)
	Rename(from, to string) error
	Remove(name string) error
}

// A file is what a FileStore uses of *os.File.
type file interface {
	io.Writer
	io.WriterAt
	io.ReaderAt
	io.Closer
	Stat() (fs.FileInfo, error)
	Truncate(size int64) error
	Sync() error
}

type osDisk struct{}

func (osDisk) Open(name string, flag int) (file, error) {
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err // and no interface that holds a nil pointer
	}
	return f, nil
}

func (osDisk) Rename(from, to string) error { return os.Rename(from, to) }
func (osDisk) Remove(name string) error     { return os.Remove(name) }

// isFull reports whether err passes once there is room again.
func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
