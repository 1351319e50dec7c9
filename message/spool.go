package message

import (
	"bytes"
	"io"
	"os"
	"sync"
)

// chunks are the buffers through which messages are read.
var chunks = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// A spool holds bytes in memory until there are more than MemoryLimit, then all in a file. The
// file has no name once it is open, so that a crash leaves nothing to clean up.
type spool struct {
	dir    string
	shared *Memory
	memory []byte // all bytes, or once there is a file those that came before it
	file   *os.File
	size   int64
	held   bool // memory is to be given back
}

func (s *spool) write(b []byte) error {
	if s.file == nil && (len(s.memory)+len(b) > MemoryLimit || !s.shared.take(len(b))) {
		if err := s.spill(); err != nil {
			return err
		}
	}
	if s.file != nil {
		if _, err := s.file.Write(b); err != nil {
			return err
		}
	} else {
		s.memory, s.held = append(s.memory, b...), true
	}
	s.size += int64(len(b))
	return nil
}

func (s *spool) spill() error {
	f, err := os.CreateTemp(s.dir, "incoming-*")
	if err != nil {
		return err
	}
	s.file = f
	if err := os.Remove(f.Name()); err != nil {
		return err
	}
	_, err = f.Write(s.memory)
	return err
}

// from reads the bytes from an offset on.
func (s *spool) from(start int64) io.Reader {
	if s.file != nil {
		return io.NewSectionReader(s.file, start, s.size-start)
	}
	return bytes.NewReader(s.memory[start:])
}

func (s *spool) close() error {
	if s.held {
		s.shared.give(len(s.memory))
		s.held = false
	}
	if s.file == nil {
		return nil
	}
	f := s.file
	s.file = nil
	return f.Close()
}
