package queue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// found is a frame as the start-up scan meets it.
type found struct {
	kind byte
	head []byte // valid until the next
	at   place
}

// scanner reads a segment from its start. A frame that is damaged is skipped, and every whole
// frame behind it is found again by its magic.
type scanner struct {
	seg    *segment
	size   int64
	bodies bool // check the sums of bodies too
	buf    []byte
	damage int // places before a whole frame where something other than a frame or zeros stands
	torn   int // the same behind the last whole frame
}

// scan calls yield for each whole frame in order. It sets seg.end behind the last one. An error
// is that of reading, ErrNewerStore, or the head's damage; frames that were met before it count.
func (s *scanner) scan(yield func(found) error) error {
	size, err := s.seg.file.Size()
	if err != nil {
		return err
	}
	s.size = size
	fixed := make([]byte, segmentHeader)
	if _, err := s.seg.file.ReadAt(fixed, 0); err != nil && err != io.EOF {
		return err
	}
	if s.seg.salt, err = parseSegmentHeader(fixed); err != nil {
		return err
	}
	s.seg.end = segmentHeader
	for off := int64(segmentHeader); off+frameSize <= size; {
		f, err := s.frame(off)
		if err == nil {
			at := place{seg: s.seg, off: uint32(off), head: f.head, body: f.body}
			if err := yield(found{f.kind, s.buf[frameSize : frameSize+f.head], at}); err != nil {
				return err
			}
			off += f.size()
			s.seg.end = off
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

// frame reads the frame at off into buf, without its body unless bodies are checked.
func (s *scanner) frame(off int64) (frame, error) {
	if err := s.read(off, frameSize); err != nil {
		return frame{}, err
	}
	f, err := parseFrame(s.buf)
	if err != nil {
		return f, err
	}
	if off+f.size() > s.size {
		return f, errBadFrame
	}
	n := frameSize + int64(f.head)
	if s.bodies {
		n = f.size()
	}
	if err := s.read(off, n); err != nil {
		return f, err
	}
	if !f.checkHead(s.seg.salt, s.buf[:frameSize], s.buf[frameSize:frameSize+f.head]) {
		return f, errBadFrame
	}
	if s.bodies && !f.checkBody(s.seg.salt, s.buf[frameSize+f.head:n]) {
		return f, errBadFrame
	}
	return f, nil
}

// read fills buf with n octets from off.
func (s *scanner) read(off, n int64) error {
	if int64(cap(s.buf)) < n {
		s.buf = make([]byte, n+n/2)
	}
	s.buf = s.buf[:n]
	_, err := s.seg.file.ReadAt(s.buf, off)
	if err == io.EOF {
		err = nil // the file ends where it should
	}
	return err
}

// search finds the next magic behind off, -1 if there is none. clean means that all that was
// passed is zeros.
func (s *scanner) search(off int64) (next int64, clean bool, err error) {
	var mark [4]byte
	binary.LittleEndian.PutUint32(mark[:], magic)
	window := make([]byte, 1<<20)
	clean = true
	for at := off; at < s.size; at += int64(len(window)) - 3 {
		n, err := s.seg.file.ReadAt(window, at)
		if err != nil && err != io.EOF {
			return 0, false, err
		}
		b := window[:n]
		from := 0
		if at == off {
			from = 1
		}
		i := -1
		if from < len(b) {
			i = bytes.Index(b[from:], mark[:])
		}
		if i >= 0 {
			return at + int64(from+i), clean && allZero(b[:from+i]), nil
		}
		clean = clean && allZero(b)
		if n < len(window) {
			break
		}
	}
	return -1, clean, nil
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
