package message

import "bytes"

// A dotScanner looks for what ErrLoneDot is about in a message that comes in pieces.
type dotScanner struct {
	tail []byte // the last octets of what came, at most two
}

var nulDot = []byte("\x00.")

// scan takes a piece and reports whether the dot is in it, or where it joins the last one.
func (s *dotScanner) scan(b []byte) bool {
	seam := append(s.tail, b[:min(2, len(b))]...)
	found := loneDot(seam) || loneDot(b)
	if len(b) >= 2 {
		seam = append(seam[:0], b[len(b)-2:]...)
	}
	s.tail = seam[max(0, len(seam)-2):]
	return found
}

// open reports whether the message, if it ends here, ends with such a dot.
func (s *dotScanner) open() bool { return bytes.Equal(s.tail, nulDot) }

func loneDot(b []byte) bool {
	for {
		i := bytes.Index(b, nulDot)
		if i < 0 {
			return false
		}
		b = b[i+len(nulDot):]
		if len(b) > 0 && (b[0] == 0 || b[0] == '\r' || b[0] == '\n') {
			return true
		}
	}
}
