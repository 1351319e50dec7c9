package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// A disk is a drive with a mounted ext4 file system, behind a loop device.
type disk struct {
	*served
	dir string // where it is mounted
}

// format makes an empty file system of so many octets.
func format(dir string, size int64) ([]byte, error) {
	file := filepath.Join(dir, "new")
	defer os.Remove(file)
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, size)); err != nil {
		return nil, err
	}
	if err := command("mkfs.ext4", "-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0", file); err != nil {
		return nil, err
	}
	return os.ReadFile(file)
}

// mount makes a drive's file system appear below dir. The work is done by other programs: were this
// one killed in a call that waits for its own drive, nobody could ever end it.
func mount(d *drive, dir string) (*disk, error) {
	m := &disk{dir: filepath.Join(dir, "disk")}
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	if m.served, err = serve(d, filepath.Join(dir, "drive")); err != nil {
		return nil, err
	}
	if err := command("mount", "-t", "ext4", "-o", "loop,noatime", m.file, m.dir); err != nil {
		return nil, errors.Join(err, m.served.stop())
	}
	return m, nil
}

// unmount takes the file system away, and with it the loop device; check then looks whether it is
// whole. What cannot be unmounted is left to the end of the namespace.
func (m *disk) unmount(check bool) error {
	if err := command("umount", m.dir); err != nil {
		return err
	}
	var err error
	if check {
		err = command("e2fsck", "-fn", m.file)
	}
	return errors.Join(err, m.served.stop())
}

// command runs a program that says nothing of interest when all is well.
func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}
