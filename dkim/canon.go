package dkim

import (
	"bytes"
	"encoding/binary"
	"hash"
)

// appendRelaxed appends a field in the relaxed form of RFC 6376 section 3.4.2, without the CRLF
// behind it: the name in lower case, the value unfolded, runs of white space made one space.
func appendRelaxed(dst []byte, f field) []byte {
	dst = append(dst, f.name...)
	dst = append(dst, ':')
	begin, space := len(dst), false
	for i, c := range f.value {
		fold := c == '\n' || c == '\r' && i+1 < len(f.value) && f.value[i+1] == '\n'
		if fold || c == ' ' || c == '\t' {
			space = true
			continue
		}
		if space && len(dst) > begin {
			dst = append(dst, ' ')
		}
		space = false
		dst = append(dst, c)
	}
	return dst
}

// relaxedBody hashes a body in the relaxed form of RFC 6376 section 3.4.4: white space at the end
// of lines and empty lines at the end of the body are left out, runs of white space are one space,
// and what there is ends in CRLF. A last line without CRLF (BDAT can send one) loses its white space
// too, as it does once DATA has given it a CRLF. A bare LF counts as CRLF, as in most verifiers; a bare CR is a
// byte like others.
//
// Most lines are in that form already, so what is searched for, eight bytes at a time, is the place
// where one is not. What comes out is collected, since the hash works best on large pieces.
type relaxedBody struct {
	hash  hash.Hash
	out   []byte // what goes into the hash next; its capacity is not exceeded
	lines int    // line ends that are written before the next byte of text, or never
	space bool   // white space of this line that is written before its next byte of text, or never
	cr    bool   // a CR at the end of the last piece, which may belong to a line end
	some  bool   // there was text
}

// crlfs is a piece of the line ends of a run of empty lines.
var crlfs = bytes.Repeat([]byte("\r\n"), 64)

// Write takes the next piece of the body. It never fails.
func (c *relaxedBody) Write(p []byte) (int, error) {
	n := len(p)
	if c.cr && n > 0 {
		c.cr = false
		if p[0] != '\n' {
			c.text([]byte{'\r'})
		}
	}
	p = p[c.asItIs(p):]
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			if p[len(p)-1] == '\r' {
				c.cr = true
				p = p[:len(p)-1]
			}
			c.text(p)
			break
		}
		c.text(bytes.TrimSuffix(p[:i], crlfs[:1]))
		c.space = false
		c.lines++
		p = p[i+1:]
	}
	return n, nil
}

// asItIs takes the lines at the beginning of a piece if all that end in it are in relaxed form already, as in
// most pieces, and returns their length.
func (c *relaxedBody) asItIs(p []byte) int {
	whole := p[:bytes.LastIndexByte(p, '\n')+1]
	if c.space || bytes.IndexByte(whole, '\t') >= 0 || bytes.Contains(whole, twoSpaces) || bytes.Contains(whole, spaceCR) {
		return 0
	}
	for rest := whole; len(rest) > 0; {
		i := bytes.IndexByte(rest, '\n')
		if i == 0 || rest[i-1] != '\r' {
			return 0
		}
		rest = rest[i+1:]
	}
	text, lines := whole, 0
	for bytes.HasSuffix(text, crlfs[:2]) {
		text = text[:len(text)-2]
		lines++
	}
	if len(text) > 0 {
		c.endLines()
		c.flush()
		c.hash.Write(text)
		c.some = true
	}
	c.lines += lines
	return len(whole)
}

var twoSpaces, spaceCR = []byte("  "), []byte(" \r")

// close ends the body and puts its rest into the hash.
func (c *relaxedBody) close() {
	if c.cr {
		c.text([]byte{'\r'})
	}
	if c.some {
		c.put(crlfs[:2])
	}
	c.flush()
}

// text takes a part of one line, without a line end.
func (c *relaxedBody) text(b []byte) {
	end := len(b)
	for end > 0 && isWSP(b[end-1]) {
		end--
	}
	trailing := end < len(b)
	if b = b[:end]; end > 0 {
		start := 0
		for isWSP(b[start]) {
			start++
		}
		c.endLines()
		if c.space || start > 0 {
			c.put([]byte{' '})
		}
		c.words(b[start:])
		c.some, c.space = true, false
	}
	c.space = c.space || trailing
}

// words writes text that neither begins nor ends with white space: whole up to where more stands
// between two words than one space, and from there byte by byte.
func (c *relaxedBody) words(b []byte) {
	i := uneven(b)
	c.put(b[:i])
	space := false
	for _, x := range b[i:] {
		if isWSP(x) {
			space = true
			continue
		}
		if len(c.out)+2 > cap(c.out) {
			c.flush()
		}
		if space {
			c.out = append(c.out, ' ')
			space = false
		}
		c.out = append(c.out, x)
	}
}

// uneven returns the place of the first white space in b that is not a single space, or the length
// of b. The last byte of b is not white space.
func uneven(b []byte) int {
	if bytes.IndexByte(b, ' ') < 0 && bytes.IndexByte(b, '\t') < 0 {
		return len(b) // as all of base64
	}
	i := 0
	for ; i+8 < len(b); i += 8 {
		word := binary.LittleEndian.Uint64(b[i:])
		tabs, spaces := equal(word, '\t'), equal(word, ' ')
		if tabs != 0 || spaces&(spaces>>8) != 0 || spaces>>63 != 0 && isWSP(b[i+8]) {
			break
		}
	}
	for ; i < len(b); i++ {
		if b[i] == '\t' || b[i] == ' ' && isWSP(b[i+1]) {
			break
		}
	}
	return i
}

// equal sets the highest bit of each byte of word that is c, and no other bit.
func equal(word uint64, c byte) uint64 {
	const ones, low = 0x0101010101010101, 0x7f7f7f7f7f7f7f7f
	diff := word ^ ones*uint64(c)
	return ^((diff&low + low) | diff | low)
}

func isWSP(c byte) bool { return c == ' ' || c == '\t' }

// endLines writes the line ends that turned out to have text behind them.
func (c *relaxedBody) endLines() {
	for c.lines > 0 {
		n := min(c.lines, len(crlfs)/2)
		c.put(crlfs[:2*n])
		c.lines -= n
	}
}

func (c *relaxedBody) put(b []byte) {
	if len(c.out)+len(b) > cap(c.out) {
		c.flush()
		if len(b) >= cap(c.out) {
			c.hash.Write(b)
			return
		}
	}
	c.out = append(c.out, b...)
}

func (c *relaxedBody) flush() {
	c.hash.Write(c.out)
	c.out = c.out[:0]
}
