package queue

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"relayd/address"
)

// OpenStore opens the queue in opt.Dir, creating it where there is none. Damage is no error: a
// damaged segment is set aside in damaged/, after its whole frames were written anew, and logged.
func OpenStore(opt StoreOptions) (*LogStore, error) {
	if opt.FS == nil {
		opt.FS = osFS{}
	}
	if err := opt.FS.MkdirAll(opt.Dir); err != nil {
		return nil, err
	}
	if opt.segmentSize == 0 {
		free, _, err := opt.FS.Free(opt.Dir)
		if err != nil {
			return nil, err
		}
		opt.segmentSize = fitSegment(free)
	}
	opt.ReserveBytes = min(opt.ReserveBytes, 2*uint64(opt.segmentSize))
	s := &LogStore{opt: opt, changes: newIDLocks(), messages: map[string]*entry{}, adding: map[string]bool{}}
	s.bodies.New = newBodyBuffer
	s.accounts.by = map[address.Address]*account{}
	s.index.init(opt.Group)
	s.journal.init(opt.FS, filepath.Join(opt.Dir, "log"), opt.segmentSize)
	for _, d := range []string{"log", "large", "tmp", "damaged"} {
		if err := opt.FS.MkdirAll(filepath.Join(opt.Dir, d)); err != nil {
			return nil, err
		}
	}
	if err := s.clear("tmp", func(string) bool { return true }); err != nil {
		return nil, err
	}
	if err := s.clear("log", func(name string) bool { return strings.HasSuffix(name, ".new") }); err != nil {
		return nil, err
	}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("opening the queue: %w", err)
	}
	return s, nil
}

// clear removes files from a folder of the store.
func (s *LogStore) clear(dir string, which func(name string) bool) error {
	dir = filepath.Join(s.opt.Dir, dir)
	names, err := s.opt.FS.List(dir)
	for _, name := range names {
		if which(name) {
			err = errors.Join(err, s.opt.FS.Remove(filepath.Join(dir, name)))
		}
	}
	return err
}

// load rebuilds the index from the segments and makes the journal ready to go on.
func (s *LogStore) load() error {
	names, err := s.opt.FS.List(s.journal.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := s.openSegment(name); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	overdue, err := s.readSegments()
	if err != nil {
		return err
	}
	if err := s.begin(); err != nil {
		return err
	}
	damaged := false
	for _, seg := range slices.Clone(s.segments) {
		if seg.bad != nil {
			damaged = true
			if err := s.setAside(seg); err != nil {
				return err
			}
		}
	}
	if len(s.messages) > 0 {
		s.opt.Log.Info("queue loaded", "messages", len(s.messages), "segments", len(s.segments), "overdue", overdue)
	}
	if damaged { // a body that nobody knows may be that of a message whose envelope was hit
		return s.setBodiesAside()
	}
	return s.clear("large", s.isUnknown)
}

func (s *LogStore) isUnknown(id string) bool { return s.messages[id] == nil }

// setBodiesAside moves the files of large bodies that nobody knows to where damaged segments are.
func (s *LogStore) setBodiesAside() error {
	large, aside := filepath.Join(s.opt.Dir, "large"), s.asideDir()
	names, err := s.opt.FS.List(large)
	for _, name := range names {
		if s.isUnknown(name) {
			err = errors.Join(err, s.opt.FS.Rename(filepath.Join(large, name), filepath.Join(aside, name)))
		}
	}
	return errors.Join(err, s.opt.FS.SyncDir(large), s.opt.FS.SyncDir(aside))
}

// openSegment opens a file of the journal.
func (s *LogStore) openSegment(name string) error {
	digits, ok := strings.CutSuffix(name, ".log")
	number, err := strconv.ParseUint(digits, 10, 32)
	if !ok || err != nil {
		return nil // not ours
	}
	seg := &segment{number: uint32(number), name: filepath.Join(s.journal.dir, name)}
	if seg.file, err = s.opt.FS.Open(seg.name); err != nil {
		return err
	}
	s.segments = append(s.segments, seg)
	seg.size, err = seg.file.Size()
	return err
}

// firstOpen is the index of the segment that was written last: those behind it were made
// beforehand. All before it were synced to their end.
func (s *LogStore) firstOpen() int {
	for i := len(s.segments) - 1; i > 0; i-- {
		var b [4]byte
		if n, _ := s.segments[i].file.ReadAt(b[:], segmentHeader); n > 0 && !allZero(b[:n]) {
			return i
		}
	}
	return 0
}

// begin has the journal go on in the last segment, or in a new one if that is full or damaged.
func (s *LogStore) begin() error {
	number := uint32(1)
	if n := len(s.segments); n > 0 {
		last := s.segments[n-1]
		if last.bad == nil && last.end < last.size {
			s.journal.current = last
			return nil
		}
		number = last.number + 1
	}
	seg, err := s.journal.create(number)
	if err != nil {
		return err
	}
	s.journal.current = seg
	s.segments = append(s.segments, seg)
	return nil
}
