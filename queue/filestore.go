package queue

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A FileStore keeps each message in one file and an index of all of them in memory. The file is
// a header line with the size of the body, the body, the envelope as a line of JSON, and a line
// for every change since. It is written under another name, synced, renamed, and its folder
// synced, before Add returns.
type FileStore struct {
	dir string
	log *slog.Logger

	mu       sync.Mutex
	index    index
	messages map[string]*entry
	broken   error // a sync failed: what the disk holds is unknown, so nothing more is taken
}

type entry struct {
	file sync.Mutex // held while the message's file is changed
	env  *Envelope
	gen  int             // counts changes; older work in the index is void
	out  map[string]bool // groups whose work is claimed
}

// headerSize is the length of the first line: "relayd-queue 1 ", 19 digits, line end.
const headerSize = 35

// OpenFileStore opens the queue in dir, creating it where there is none. group names the way
// that a recipient's mail takes. A file that cannot be read is set aside in dir/damaged and
// logged, never deleted.
func OpenFileStore(dir string, group func(*Recipient) string, log *slog.Logger) (*FileStore, error) {
	s := &FileStore{dir: dir, log: log, messages: map[string]*entry{}}
	s.index.init(group)
	for _, d := range []string{"tmp", "msg", "damaged"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, err
		}
	}
	if err := s.clearTemporary(); err != nil {
		return nil, err
	}
	return s, s.load()
}

func (s *FileStore) path(id string) string { return filepath.Join(s.dir, "msg", id) }

// TemporaryDir is a folder on the same disk for what is not yet accepted; emptied at each start.
func (s *FileStore) TemporaryDir() string { return filepath.Join(s.dir, "tmp") }

func (s *FileStore) clearTemporary() error {
	left, err := os.ReadDir(s.TemporaryDir())
	for _, f := range left {
		err = errors.Join(err, os.Remove(filepath.Join(s.TemporaryDir(), f.Name())))
	}
	return err
}

func (s *FileStore) load() error {
	files, err := os.ReadDir(filepath.Join(s.dir, "msg"))
	if err != nil {
		return err
	}
	for _, f := range files {
		e, err := s.read(f.Name())
		if err != nil {
			s.log.Error("a message in the queue cannot be read and is set aside", "file", s.path(f.Name()), "error", err.Error())
			if err := os.Rename(s.path(f.Name()), filepath.Join(s.dir, "damaged", f.Name())); err != nil {
				return err
			}
			continue
		}
		if e.done() {
			os.Remove(s.path(f.Name()))
			continue
		}
		s.messages[e.ID] = &entry{env: e, out: map[string]bool{}}
		s.index.schedule(s.messages[e.ID])
	}
	return nil
}

// read rebuilds an envelope from its file. A last line that was not wholly written is cut off.
func (s *FileStore) read(name string) (*Envelope, error) {
	f, err := os.OpenFile(s.path(name), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := readHeader(f)
	if err != nil {
		return nil, err
	}
	at := headerSize + size
	if _, err := f.Seek(at, io.SeekStart); err != nil {
		return nil, err
	}
	var e *Envelope
	for lines := bufio.NewReader(f); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break
		}
		if e == nil {
			e = new(Envelope)
			err = json.Unmarshal(line, e)
		} else {
			err = e.apply(line)
		}
		if err != nil {
			return nil, err
		}
		at += int64(len(line))
	}
	if e == nil || e.ID != name {
		return nil, errors.New("it has no envelope")
	}
	return e, f.Truncate(at)
}

func readHeader(f *os.File) (size int64, err error) {
	var b [headerSize]byte
	if _, err := io.ReadFull(f, b[:]); err != nil {
		return 0, errors.New("its first line is cut short")
	}
	digits, ok := strings.CutPrefix(string(b[:headerSize-1]), "relayd-queue 1 ")
	if !ok {
		return 0, errors.New("it is not a message of this version's queue")
	}
	return strconv.ParseInt(digits, 10, 64)
}

func formatHeader(size int64) string { return fmt.Sprintf("relayd-queue 1 %019d\n", size) }

// apply makes the change that line records.
func (e *Envelope) apply(line []byte) error {
	var changes map[int]Recipient
	if err := json.Unmarshal(line, &changes); err != nil {
		return err
	}
	e.change(changes)
	return nil
}

// change sets recipients by index; those past the end are added in order.
func (e *Envelope) change(changes map[int]Recipient) {
	indexes := make([]int, 0, len(changes))
	for i := range changes {
		indexes = append(indexes, i)
	}
	slices.Sort(indexes)
	for _, i := range indexes {
		if i < len(e.Recipients) {
			e.Recipients[i] = changes[i]
		} else {
			e.Recipients = append(e.Recipients, changes[i])
		}
	}
}

func (e *Envelope) copy() *Envelope {
	c := *e
	c.Recipients = slices.Clone(e.Recipients)
	return &c
}

// Add implements Store.
func (s *FileStore) Add(e *Envelope, body io.Reader) error {
	s.mu.Lock()
	broken := s.broken
	s.mu.Unlock()
	if broken != nil {
		return fmt.Errorf("the disk failed before: %w", broken)
	}
	tmp := filepath.Join(s.dir, "tmp", e.ID)
	if err := s.write(tmp, e, body); err != nil {
		os.Remove(tmp)
		return err
	}
	if err := os.Rename(tmp, s.path(e.ID)); err != nil {
		os.Remove(tmp)
		return err
	}
	if err := s.syncDir(); err != nil {
		os.Remove(s.path(e.ID))
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages[e.ID] = &entry{env: e.copy(), out: map[string]bool{}}
	s.index.schedule(s.messages[e.ID])
	return nil
}

func (s *FileStore) write(name string, e *Envelope, body io.Reader) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString(formatHeader(0)); err != nil {
		return err
	}
	if e.Size, err = io.Copy(f, body); err != nil {
		return err
	}
	if _, err := f.WriteAt([]byte(formatHeader(e.Size)), 0); err != nil {
		return err
	}
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if _, err := f.Write(append(line, '\n')); err != nil {
		return err
	}
	return s.sync(f)
}

// sync makes a file durable. After a failure the kernel may have dropped the pages that it could
// not write, and says so only once: nothing that is taken from then on could be relied upon.
func (s *FileStore) sync(f *os.File) error {
	err := f.Sync()
	if err != nil {
		s.mu.Lock()
		s.broken = err
		s.mu.Unlock()
		s.log.Error("a sync to disk failed: no more mail is taken until the disk is well and relayd is started again", "error", err.Error())
	}
	return err
}

func (s *FileStore) syncDir() error {
	d, err := os.Open(filepath.Join(s.dir, "msg"))
	if err != nil {
		return err
	}
	defer d.Close()
	return s.sync(d)
}

// Update implements Store.
func (s *FileStore) Update(id string, changes map[int]Recipient, sync bool) error {
	s.mu.Lock()
	m := s.messages[id]
	s.mu.Unlock()
	if m == nil {
		return ErrNotFound
	}
	m.file.Lock()
	defer m.file.Unlock()
	s.mu.Lock()
	m.env.change(changes)
	done := m.env.done()
	s.mu.Unlock()
	if done {
		return s.Remove(id)
	}
	if err := s.appendLine(id, changes, sync); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index.schedule(m)
	return nil
}

func (s *FileStore) appendLine(id string, changes map[int]Recipient, sync bool) error {
	line, err := json.Marshal(changes)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(s.path(id), os.O_WRONLY|os.O_APPEND, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNotFound
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(append(line, '\n')); err != nil {
		return err
	}
	if sync {
		return s.sync(f)
	}
	return nil
}

// Remove implements Store.
func (s *FileStore) Remove(id string) error {
	s.mu.Lock()
	m := s.messages[id]
	if m != nil {
		m.gen++
		delete(s.messages, id)
	}
	s.mu.Unlock()
	if m == nil {
		return ErrNotFound
	}
	return os.Remove(s.path(id))
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
	f, err := os.Open(s.path(id))
	if err != nil {
		return nil, err
	}
	size, err := readHeader(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, headerSize, size), f}, nil
}

// List implements Store.
func (s *FileStore) List(yield func(*Envelope) bool) {
	s.mu.Lock()
	all := make([]*Envelope, 0, len(s.messages))
	for _, m := range s.messages {
		all = append(all, m.env.copy())
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b *Envelope) int {
		return cmp.Or(a.Received.Compare(b.Received), strings.Compare(a.ID, b.ID))
	})
	for _, e := range all {
		if !yield(e) {
			return
		}
	}
}

// Claim implements Store.
func (s *FileStore) Claim(now time.Time, max int, free func(group string) bool) ([]*Work, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	items, next := s.index.claim(now, max, free)
	work := make([]*Work, len(items))
	for n, it := range items {
		id := it.entry.env.ID
		work[n] = &Work{
			Envelope: it.entry.env.copy(),
			Indexes:  s.index.due(it.entry.env, it.group, now),
			Group:    it.group,
			Body:     func() (io.ReadCloser, error) { return s.Body(id) },
		}
	}
	return work, next
}

// Done implements Store.
func (s *FileStore) Done(w *Work) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.messages[w.Envelope.ID]; m != nil {
		delete(m.out, w.Group)
		s.index.schedule(m)
	}
	s.index.unblock(w.Group)
}
