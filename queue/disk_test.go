package queue

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// A faultyDisk is the real file system, with a hook before every operation, and with a memory of
// what of it would be there after a power cut: of a file what was synced, under the names that
// its folder had when that was synced.
type faultyDisk struct {
	before func(op, name string) error

	mu      sync.Mutex
	inodes  map[string]*inode // by name now
	durable map[string]*inode // by name after a power cut
}

type inode struct{ synced []byte }

// errShort has a write write half of its bytes before it fails with the error behind it.
type errShort struct{ error }

func (e errShort) Unwrap() error { return e.error }

func newFaultyDisk() *faultyDisk {
	return &faultyDisk{inodes: map[string]*inode{}, durable: map[string]*inode{}}
}

// adopt has all that is in dir's msg survive a power cut as it is.
func (d *faultyDisk) adopt(t testing.TB, dir string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "msg", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		n := &inode{synced: b}
		d.inodes[name], d.durable[name] = n, n
	}
}

func (d *faultyDisk) step(op, name string) error {
	if d.before == nil {
		return nil
	}
	return d.before(op, name)
}

func (d *faultyDisk) Open(name string, flag int) (file, error) {
	if err := d.step("open", name); err != nil {
		return nil, err
	}
	f, err := osDisk{}.Open(name, flag)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.inodes[name]
	if n == nil {
		n = &inode{}
		d.inodes[name] = n
	}
	return &faultyFile{file: f, disk: d, name: name, inode: n}, nil
}

func (d *faultyDisk) Rename(from, to string) error {
	if err := d.step("rename", from); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inodes[to] = d.inodes[from]
	delete(d.inodes, from)
	return os.Rename(from, to)
}

func (d *faultyDisk) Remove(name string) error {
	if err := d.step("remove", name); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.inodes, name)
	return os.Remove(name)
}

// cutPower writes what would be left of dir's messages to a new folder.
func (d *faultyDisk) cutPower(t testing.TB, dir string) string {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	to := filepath.Join(t.TempDir(), "q")
	if err := os.MkdirAll(filepath.Join(to, "msg"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, n := range d.durable {
		if filepath.Dir(name) != filepath.Join(dir, "msg") {
			continue
		}
		if err := os.WriteFile(filepath.Join(to, "msg", filepath.Base(name)), n.synced, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

type faultyFile struct {
	file
	disk  *faultyDisk
	name  string
	inode *inode
}

func (f *faultyFile) Write(b []byte) (int, error) {
	if err := f.disk.step("write", f.name); err != nil {
		if short, ok := errors.AsType[errShort](err); ok {
			n, _ := f.file.Write(b[:len(b)/2])
			return n, short.error
		}
		return 0, err
	}
	return f.file.Write(b)
}

func (f *faultyFile) WriteAt(b []byte, at int64) (int, error) {
	if err := f.disk.step("write", f.name); err != nil {
		if short, ok := errors.AsType[errShort](err); ok {
			n, _ := f.file.WriteAt(b[:len(b)/2], at)
			return n, short.error
		}
		return 0, err
	}
	return f.file.WriteAt(b, at)
}

func (f *faultyFile) ReadAt(b []byte, at int64) (int, error) {
	if err := f.disk.step("read", f.name); err != nil {
		return 0, err
	}
	return f.file.ReadAt(b, at)
}

func (f *faultyFile) Truncate(size int64) error {
	if err := f.disk.step("truncate", f.name); err != nil {
		return err
	}
	return f.file.Truncate(size)
}

// Sync asks nothing of the real disk: what it promises is kept in f.disk.
func (f *faultyFile) Sync() error {
	if err := f.disk.step("sync", f.name); err != nil {
		return err
	}
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if info, err := os.Stat(f.name); err == nil && info.IsDir() {
		maps.DeleteFunc(f.disk.durable, func(name string, _ *inode) bool { return filepath.Dir(name) == f.name })
		for name, n := range f.disk.inodes {
			if filepath.Dir(name) == f.name {
				f.disk.durable[name] = n
			}
		}
		return nil
	}
	b, err := os.ReadFile(f.name)
	f.inode.synced = b
	return err
}

func (f *faultyFile) Close() error {
	return errors.Join(f.disk.step("close", f.name), f.file.Close())
}

// copyDir is what a crash of the process leaves of dir.
func copyDir(t testing.TB, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "q")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}
