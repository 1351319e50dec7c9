package queue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// found is a frame as a scan meets it.
type found struct {
	kind byte
	head []byte // valid until the next
	at   place
}

// scanner reads a segment from its start. A frame that is damaged is skipped, and every whole
// frame behind it is found again by its magic.
type scanner struct {
	seg    *segment
	size   int64 // as far as it is read; 0: to the end of the file
	bodies bool  // check the sums of bodies too
	end    int64 // behind the last whole frame
	window window
	damage int // places before a whole frame where something other than a frame or zeros stands
	torn   int // the same behind the last whole frame
}

// scan calls yield for each whole frame in order. An error is that of reading, ErrNewerStore, or
// the head's damage; frames that were met before it count.
func (s *scanner) scan(yield func(found) error) error {
	if s.size == 0 {
		size, err := s.seg.file.Size()
		if err != nil {
			return err
		}
		s.size = size
	}
	s.window.file = s.seg.file
	fixed, err := s.window.read(0, segmentHeader)
	if err != nil {
		return err
	}
	if s.seg.salt, err = parseSegmentHeader(fixed); err != nil {
		return err
	}
	s.end = segmentHeader
	for off := int64(segmentHeader); off+frameSize <= s.size; {
		f, head, err := s.frame(off)
		if err == nil {
			at := place{seg: s.seg, off: uint32(off), head: f.head, body: f.body}
			if err := yield(found{f.kind, head, at}); err != nil {
				return err
			}
			off += f.size()
			s.end = off
			s.damage, s.torn = s.damage+s.torn, 0
			continue
		}
		if !errors.Is(err, errNoFrame) && !errors.Is(err, errBadFrame) {
			return err
		}
		next, clean, err := s.search(off)
		if err != nil {
			return err
		}
		if !clean {
			s.torn++
		}
		if next < 0 {
			break
		}
		off = next
	}
	return nil
}

// frame reads the frame at off, without its body unless bodies are checked.
func (s *scanner) frame(off int64) (f frame, head []byte, err error) {
	b, err := s.window.read(off, frameSize)
	if err != nil {
		return frame{}, nil, err
	}
	if f, err = parseFrame(b); err != nil {
		return f, nil, err
	}
	if off+f.size() > s.size {
		return f, nil, errBadFrame
	}
	n := frameSize + int64(f.head)
	if s.bodies {
		n = f.size()
	}
	if b, err = s.window.read(off, n); err != nil {
		return f, nil, err
	}
	if int64(len(b)) < n {
		return f, nil, errBadFrame
	}
	head = b[frameSize : frameSize+f.head]
	if !f.checkHead(s.seg.salt, b[:frameSize], head) || s.bodies && !f.checkBody(s.seg.salt, b[frameSize+f.head:]) {
		return f, nil, errBadFrame
	}
	return f, head, nil
}

// search finds the next magic behind off, -1 if there is none. clean means that all that was
// passed is zeros.
func (s *scanner) search(off int64) (next int64, clean bool, err error) {
	var mark [4]byte
	binary.LittleEndian.PutUint32(mark[:], magic)
	clean = true
	for at := off; at < s.size; {
		b, err := s.window.read(at, min(windowSize, s.size-at))
		if err != nil {
			return 0, false, err
		}
		from := 0
		if at == off {
			from = min(1, len(b))
		}
		if i := bytes.Index(b[from:], mark[:]); i >= 0 {
			return at + int64(from+i), clean && allZero(b[:from+i]), nil
		}
		clean = clean && allZero(b)
		if len(b) < windowSize {
			break
		}
		at += windowSize - 3 // a magic may stand across the end
	}
	return -1, clean, nil
}

// A window is a piece of a file that was read at once, for frames are small and many.
type window struct {
	file File
	base int64
	buf  []byte
}

const windowSize = 64 << 10

// read returns n octets from off, fewer where the file ends. They are valid until the next read.
func (w *window) read(off, n int64) ([]byte, error) {
	if off < w.base || off+n > w.base+int64(len(w.buf)) {
		size := max(n, windowSize)
		if int64(cap(w.buf)) < size {
			w.buf = make([]byte, size)
		}
		read, err := w.file.ReadAt(w.buf[:size], off)
		w.base, w.buf = off, w.buf[:read]
		if err != nil && err != io.EOF {
			w.buf = w.buf[:0]
			return nil, err
		}
	}
	from := off - w.base
	return w.buf[from:min(from+n, int64(len(w.buf)))], nil
}

// wipe puts zeros behind the last whole frame of a segment.
func (seg *segment) wipe() error {
	size, err := seg.file.Size()
	if err != nil {
		return err
	}
	if _, err := seg.file.WriteAt(make([]byte, max(0, size-seg.end)), seg.end); err != nil {
		return err
	}
	return seg.file.Sync()
}

func allZero(b []byte) bool {
	for len(b) >= 8 {
		if binary.LittleEndian.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// readPlace reads the frame at a place again and checks it. part says which half is wanted.
func readPlace(at place, wantBody bool) ([]byte, error) {
	n := frameSize + int64(at.head)
	if wantBody {
		n += int64(at.body)
	}
	b := make([]byte, n)
	if _, err := at.seg.file.ReadAt(b, int64(at.off)); err != nil && err != io.EOF {
		return nil, err
	}
	f, err := parseFrame(b)
	if err != nil || f.head != at.head || f.body != at.body {
		return nil, fmt.Errorf("%s at %d: %w", at.seg.name, at.off, errBadFrame)
	}
	head, body := b[frameSize:frameSize+at.head], b[frameSize+at.head:]
	if wantBody {
		if !f.checkBody(at.seg.salt, body) {
			return nil, fmt.Errorf("%s at %d: the body: %w", at.seg.name, at.off, errBadFrame)
		}
		return body, nil
	}
	if !f.checkHead(at.seg.salt, b[:frameSize], head) {
		return nil, fmt.Errorf("%s at %d: the envelope: %w", at.seg.name, at.off, errBadFrame)
	}
	return head, nil
}
