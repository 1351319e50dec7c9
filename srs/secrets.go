package srs

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"relayd/problem"
)

// LoadSecrets reads one secret a line: the first signs, all verify, so a new one is put on top
// and an old one removed after MaxAge. Lines that begin with "#" and empty ones are ignored;
// blanks belong to a secret, as they do for postsrsd. A file that does not exist is made, mode 0600, with a random
// secret in it, and is on disk when LoadSecrets returns. A file without any secret is an error.
func LoadSecrets(path string) ([][]byte, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := createSecrets(path); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("making a file of SRS secrets: %w", err)
		}
		text, err = os.ReadFile(path) // another process may have been first
	}
	if err != nil {
		return nil, fmt.Errorf("reading SRS secrets: %w", err)
	}
	var secrets [][]byte
	for line := range bytes.Lines(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))) {
		line = bytes.TrimRight(line, "\r\n")
		if len(bytes.TrimSpace(line)) > 0 && line[0] != '#' {
			secrets = append(secrets, bytes.Clone(line))
		}
	}
	if len(secrets) == 0 {
		return nil, problem.At(path, 0, "no secret in it; write one, or remove the file and a new one is made")
	}
	return secrets, nil
}

// createSecrets writes a whole file beside path and links it there, which unlike a rename never
// replaces the secrets of a process that did the same at this moment.
func createSecrets(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	var secret [32]byte
	rand.Read(secret[:]) // never fails
	_, err = fmt.Fprintf(f, "# Signs rewritten senders (SRS). One secret a line: the first signs, all verify.\n%s\n",
		base64.RawStdEncoding.EncodeToString(secret[:]))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the names in a folder durable.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
