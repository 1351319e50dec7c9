// Package placing brings drafts to the places of their files: all of them or none.
package placing

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"syscall"
)

// A Step changes one name, and knows how to take it back.
type Step struct{ Do, Undo func() error }

// Rename gives a file or folder another name, which may be that of a folder with nothing in it.
func Rename(from, to string) Step {
	return Step{func() error { return renameOver(from, to) }, func() error { return os.Rename(to, from) }}
}

func renameOver(from, to string) error {
	if err := syscall.Rename(from, to); err != nil { // os.Rename refuses every folder
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// Run does all of the steps or, after an error, none. The error also tells of what could not be undone.
func Run(steps []Step) error {
	for i, s := range steps {
		err := s.Do()
		if err == nil {
			continue
		}
		for _, done := range slices.Backward(steps[:i]) {
			err = errors.Join(err, done.Undo())
		}
		return err
	}
	return nil
}

// MakeLast makes new names in folders, which need not exist, survive a power cut. What is done is not
// undone where that fails: it is a warning.
func MakeLast(warn func(format string, args ...any), dirs ...string) {
	for _, dir := range dirs {
		if err := sync(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			warn("all is done, but a power cut may undo it: %v", err)
		}
	}
}

func sync(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
