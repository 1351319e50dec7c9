package sendmail

import (
	"bufio"
	"io"
)

// A lineReader makes lines end with CR LF. See Lines.
type lineReader struct {
	in      *bufio.Reader
	dot     bool
	body    bool // the header is over
	empty   bool // the line that is read has nothing in it yet
	crs     int  // CRs that wait for what follows
	pending []byte
	err     error
}

// Lines reads a text of this machine as a mail message has it: LF becomes CR LF, CR LF stays, as do the
// CR CR LF of programs that convert twice become one end. A CR alone, as progress bars print it, ends a
// line of the body; in the header it becomes a space, for there it would begin a field of somebody
// else's making. An end is put behind a last line without one. With dot a line that is a single dot ends
// the text, and what follows is not read as part of it.
func Lines(r io.Reader, dot bool) io.Reader {
	return &lineReader{in: bufio.NewReaderSize(r, 32<<10), dot: dot, empty: true}
}

func (l *lineReader) Read(p []byte) (int, error) {
	for len(l.pending) == 0 && l.err == nil {
		l.fill()
	}
	if len(l.pending) == 0 {
		return 0, l.err
	}
	n := copy(p, l.pending)
	l.pending = l.pending[n:]
	return n, nil
}

// fill converts what is there, a buffer at most.
func (l *lineReader) fill() {
	if _, l.err = l.in.Peek(1); l.err != nil {
		l.finish()
		return
	}
	if l.dot && l.empty && l.crs == 0 && l.atDot() {
		l.err = io.EOF
		return
	}
	b, _ := l.in.Peek(l.in.Buffered())
	l.pending = make([]byte, 0, len(b)+len(b)/16+8)
	for i, c := range b {
		l.step(c)
		if l.dot && l.empty && l.crs == 0 { // a dot may come
			l.in.Discard(i + 1)
			return
		}
	}
	l.in.Discard(len(b))
}

// atDot reports whether the line that begins is a single dot. It looks no further than it has to: who
// types at a terminal sends nothing behind it.
func (l *lineReader) atDot() bool {
	if b, _ := l.in.Peek(1); string(b) != "." {
		return false
	}
	b, err := l.in.Peek(2)
	if err != nil || b[1] == '\n' {
		return err == nil || err == io.EOF
	}
	if b[1] != '\r' {
		return false
	}
	b, err = l.in.Peek(3)
	return err == io.EOF || err == nil && b[2] == '\n'
}

// step takes one byte.
func (l *lineReader) step(c byte) {
	switch {
	case c == '\r':
		l.crs++
		return
	case c == '\n':
		l.crs = 0
		l.endLine()
		return
	case l.crs > 0:
		l.loneCR()
	}
	l.pending = append(l.pending, c)
	l.empty = false
}

func (l *lineReader) loneCR() {
	l.crs = 0
	if l.body {
		l.endLine()
		return
	}
	l.pending = append(l.pending, ' ')
}

func (l *lineReader) endLine() {
	l.pending = append(l.pending, '\r', '\n')
	l.body = l.body || l.empty
	l.empty = true
}

// finish ends a last line that has no end.
func (l *lineReader) finish() {
	if l.err == io.EOF && (!l.empty || l.crs > 0) {
		l.crs = 0
		l.endLine()
	}
}
