package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"relayd/domains"
)

// A placement changes one name, and how to take it back.
type placement struct{ do, undo func() error }

// rename gives a file or folder another name, which may be that of a folder with nothing in it.
func rename(from, to string) placement {
	return placement{func() error { return renameOver(from, to) }, func() error { return os.Rename(to, from) }}
}

func renameOver(from, to string) error {
	if err := syscall.Rename(from, to); err != nil { // os.Rename refuses every folder
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// exchange puts a text in the place of another, unless somebody was faster.
func exchange(file string, from, to []byte) func() error {
	return func() error {
		return domains.Edit(file, domains.NewFile, func(old []byte) ([]byte, error) {
			if !bytes.Equal(old, from) {
				return nil, fmt.Errorf("%s was changed in the meantime: try again", file)
			}
			return to, nil
		})
	}
}

// putInPlace does all of the steps or, after an error, none.
func putInPlace(steps []placement) error {
	for i, s := range steps {
		err := s.do()
		if err == nil {
			continue
		}
		for _, done := range slices.Backward(steps[:i]) {
			err = errors.Join(err, done.undo())
		}
		return err
	}
	return nil
}

// makeLast makes new names in folders survive a power cut. What is done is not undone for it.
func (t *tool) makeLast(dirs ...string) {
	for _, dir := range dirs {
		if err := syncFolder(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.warn("all is done, but a power cut may undo it: %v", err)
		}
	}
}
