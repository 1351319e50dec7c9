package queue

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// A FileStore keeps each message in one file and an index of all of them in memory. The file is
// written under another name, synced, renamed, and its folder synced, before Add returns. After
// a sync that failed nothing more is taken until the store is opened again; a full disk only
// refuses what it has no room for.
type FileStore struct {
	dir  string
	disk disk
	log  *slog.Logger

	// folder is held while msg is synced, so that no sync comes between one that failed and the
	// note of it: the kernel tells of a failure once, and the next sync is all well.
	folder sync.Mutex

	mu       sync.Mutex
	index    index
	messages map[string]*entry
	adding   map[string]bool // IDs that Add is at work on
	broken   error           // a sync failed: what the disk holds is unknown
}

type entry struct {
	file   sync.Mutex // held while the message's file is changed; taken before FileStore.mu
	end    int64      // where the next change is written; under file
	behind bool       // the file lacks a change or has something behind end; under file

	env   *Envelope
	out   map[int]bool // recipients whose work is claimed
	items []*item      // in the index, one for each group
}

// OpenFileStore opens the queue in dir, creating it where there is none. group names the way
// that a recipient's mail takes. A file that cannot be read is set aside in dir/damaged and
// logged, never deleted.
func OpenFileStore(dir string, group func(*Recipient) string, log *slog.Logger) (*FileStore, error) {
	return openFileStore(osDisk{}, dir, group, log)
}

func (s *FileStore) path(id string) string { return filepath.Join(s.dir, "msg", id) }

// TemporaryDir is a folder on the same disk for what is not yet accepted; emptied at each start.
func (s *FileStore) TemporaryDir() string { return filepath.Join(s.dir, "tmp") }

// Add implements Store.
func (s *FileStore) Add(e *Envelope, body io.Reader) error {
	if err := e.check(); err != nil {
		return err
	}
	if err := s.reserve(e.ID); err != nil {
		return err
	}
	m := &entry{}
	err := s.place(m, e, body)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.adding, e.ID)
	if err != nil {
		return err
	}
	m.env = e.copy()
	s.messages[e.ID] = m
	s.index.schedule(m)
	return nil
}

// reserve keeps id for one Add, for a second file of that name would replace the first.
func (s *FileStore) reserve(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return fmt.Errorf("the disk failed before: %w", s.broken)
	}
	if s.messages[id] != nil || s.adding[id] {
		return fmt.Errorf("there is a message %s in the queue already", id)
	}
	s.adding[id] = true
	return nil
}

// place puts the file of a new message durably where it belongs, or nowhere.
func (s *FileStore) place(m *entry, e *Envelope, body io.Reader) (err error) {
	name := filepath.Join(s.TemporaryDir(), e.ID)
	defer func() {
		if err != nil {
			s.discard(name)
		}
	}()
	if m.end, err = s.write(name, e, body); err != nil {
		return err
	}
	if err := s.disk.Rename(name, s.path(e.ID)); err != nil {
		return err
	}
	name = s.path(e.ID)
	return s.syncFolder()
}

func (s *FileStore) discard(name string) {
	if err := s.disk.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Error("the file of a message that is done, or was not taken, cannot be removed", "file", name, "error", err.Error())
	}
}

func (s *FileStore) write(name string, e *Envelope, body io.Reader) (end int64, err error) {
	f, err := s.disk.Open(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return 0, err
	}
	end, err = writeMessage(f, e, body)
	if err == nil {
		err = s.sync(f)
	}
	return end, cmp.Or(err, f.Close())
}

// sync makes a file durable. After a failure the kernel may have dropped the pages that it could
// not write, and says so only once: nothing that is taken from then on could be relied upon.
// Where there was just no room, that concerns this file alone, and its caller knows of it.
func (s *FileStore) sync(f file) error {
	err := f.Sync()
	if err != nil && !isFull(err) {
		s.fail(err)
	}
	return err
}

// syncFolder makes the names in msg durable.
func (s *FileStore) syncFolder() error {
	s.folder.Lock()
	defer s.folder.Unlock()
	s.mu.Lock()
	broken := s.broken
	s.mu.Unlock()
	if broken != nil {
		return fmt.Errorf("the disk failed before: %w", broken)
	}
	d, err := s.disk.Open(filepath.Join(s.dir, "msg"), os.O_RDONLY)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		s.fail(err) // a full disk too: the names of other messages are in the same folder
		return err
	}
	return nil
}

func (s *FileStore) fail(err error) {
	s.mu.Lock()
	s.broken = err
	s.mu.Unlock()
	s.log.Error("a sync to disk failed: no more mail is taken until the disk is well and relayd is started again", "error", err.Error())
}

// Get implements Store.
func (s *FileStore) Get(id string) *Envelope {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.messages[id]; m != nil {
		return m.env.copy()
	}
	return nil
}

// Body implements Store.
func (s *FileStore) Body(id string) (io.ReadCloser, error) {
	e := s.Get(id)
	if e == nil {
		return nil, ErrNotFound
	}
	f, err := s.disk.Open(s.path(id), os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	// What follows the body in the file must not be sent, nor half of the body as if it were all.
	info, err := f.Stat()
	if err == nil && info.Size() < headerSize+e.Size {
		err = fmt.Errorf("the file of message %s is cut short", id)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, headerSize, e.Size), f}, nil
}

// List implements Store.
func (s *FileStore) List(yield func(*Envelope) bool) {
	type key struct {
		received time.Time
		id       string
	}
	s.mu.Lock()
	all := make([]key, 0, len(s.messages))
	for id, m := range s.messages {
		all = append(all, key{m.env.Received, id})
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b key) int {
		return cmp.Or(a.received.Compare(b.received), strings.Compare(a.id, b.id))
	})
	for _, k := range all {
		if e := s.Get(k.id); e != nil && !yield(e) {
			return
		}
	}
}

// Claim implements Store.
func (s *FileStore) Claim(now time.Time, limit int, free func(group string) bool) ([]*Work, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	claims, next := s.index.claim(now, limit, free)
	work := make([]*Work, len(claims))
	for n, c := range claims {
		id := c.entry.env.ID
		work[n] = &Work{
			Envelope: c.entry.env.copy(), Indexes: c.indexes, Group: c.group,
			Body: func() (io.ReadCloser, error) { return s.Body(id) },
		}
	}
	return work, next
}

// Done implements Store.
func (s *FileStore) Done(w *Work) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.messages[w.Envelope.ID]; m != nil {
		s.index.giveBack(m, w.Indexes)
	}
}
