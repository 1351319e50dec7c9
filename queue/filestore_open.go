package queue

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
)

func openFileStore(d disk, dir string, group func(*Recipient) string, log *slog.Logger) (*FileStore, error) {
	s := &FileStore{dir: dir, disk: d, log: log, messages: map[string]*entry{}, adding: map[string]bool{}}
	s.index.init(group)
	if err := s.makeFolders(); err != nil {
		return nil, err
	}
	if err := s.clearTemporary(); err != nil {
		return nil, err
	}
	if err := s.load(); err != nil {
		return nil, err
	}
	return s, nil
}

// makeFolders makes what is missing, durably: a synced file in a folder that itself was never
// synced into its own is gone after a power cut.
func (s *FileStore) makeFolders() error {
	for _, name := range []string{"tmp", "msg", "damaged"} {
		if err := os.MkdirAll(filepath.Join(s.dir, name), 0o700); err != nil {
			return err
		}
	}
	for _, name := range []string{filepath.Dir(filepath.Clean(s.dir)), s.dir, filepath.Join(s.dir, "msg")} {
		f, err := s.disk.Open(name, os.O_RDONLY)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("syncing %s: %w", name, err)
		}
	}
	return nil
}

func (s *FileStore) clearTemporary() error {
	left, err := os.ReadDir(s.TemporaryDir())
	for _, f := range left {
		err = errors.Join(err, os.RemoveAll(filepath.Join(s.TemporaryDir(), f.Name())))
	}
	return err
}

func (s *FileStore) load() error {
	files, err := os.ReadDir(filepath.Join(s.dir, "msg"))
	if err != nil {
		return err
	}
	for _, f := range files {
		m, err := s.read(f)
		if err != nil {
			s.setAside(f.Name(), err)
			continue
		}
		if m.env.done() {
			s.discard(s.path(f.Name()))
			continue
		}
		s.messages[f.Name()] = m
		s.index.schedule(m)
	}
	return nil
}

// read rebuilds a message from its file.
func (s *FileStore) read(entryOf fs.DirEntry) (*entry, error) {
	name := entryOf.Name()
	if !entryOf.Type().IsRegular() { // to open a named pipe would wait for ever
		return nil, errors.New("it is not a file")
	}
	f, err := s.disk.Open(s.path(name), os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	m := &entry{}
	if m.env, m.end, err = readMessage(f, info.Size()); err != nil {
		return nil, err
	}
	if m.env.ID != name {
		return nil, fmt.Errorf("it holds message %s", m.env.ID)
	}
	if m.behind = m.end < info.Size(); m.behind {
		s.log.Warn("the end of a message's file cannot be read: what was recorded there is done again",
			"id", name, "bytes", info.Size()-m.end)
	}
	return m, nil
}

// setAside moves a file out of the way, in place of no other. Where that fails it stays, and the
// other messages are served all the same.
func (s *FileStore) setAside(name string, why error) {
	to := filepath.Join(s.dir, "damaged", name)
	for n := 2; ; n++ {
		if _, err := os.Lstat(to); err != nil {
			break
		}
		to = filepath.Join(s.dir, "damaged", fmt.Sprintf("%s.%d", name, n))
	}
	err := s.disk.Rename(s.path(name), to)
	s.log.Error("a message in the queue cannot be read and is set aside", "file", s.path(name), "in", to, "error", errors.Join(why, err).Error())
}
