package dkim

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// What the header of a message may have. Both are far above what is real; they bound the memory
// and the time that one message can cost, since fields are looked for by walking over them. They
// leave room for what a relay that takes 256 KiB and 1,000 fields puts in front.
const (
	MaxHeader = 264 << 10 // octets
	MaxFields = 1020
)

// ErrHeader is wrapped in the error for a header over MaxHeader or MaxFields.
var ErrHeader = errors.New("the header of the message is too large")

// A header is the head of a message.
type header struct {
	raw    []byte  // every line with its line end, without the blank line
	fields []field // from the top
	bare   bool    // the message ended before a blank line came
}

// A field is one field of a header, or lines that are none and have no name.
type field struct {
	name  string // in lower case
	value []byte // what stands behind the colon, with line ends
	raw   []byte // the whole of it
}

// readHeader reads up to and including the blank line. A line ends in LF, with or without CR:
// verifiers read it so. With an ErrHeader it returns what it has read so far.
func readHeader(r *bufio.Reader) (*header, error) {
	h := &header{}
	var starts []int
	tooMuch := error(nil)
	for tooMuch == nil {
		start := len(h.raw)
		err := h.readLine(r)
		line := h.raw[start:]
		switch {
		case errors.Is(err, ErrHeader):
			tooMuch = err
		case err != nil && err != io.EOF:
			return nil, err
		}
		if blank(line) && tooMuch == nil {
			h.raw = h.raw[:start]
			h.bare = err == io.EOF
			break
		}
		if len(line) > 0 && (start == 0 || line[0] != ' ' && line[0] != '\t') {
			starts = append(starts, start)
		}
		if len(starts) > MaxFields {
			tooMuch = fmt.Errorf("%w: more than %d fields", ErrHeader, MaxFields)
		}
		if err == io.EOF {
			h.bare = true
			break
		}
	}
	for i, start := range starts {
		end := len(h.raw)
		if i+1 < len(starts) {
			end = starts[i+1]
		}
		h.fields = append(h.fields, cutField(h.raw[start:end]))
	}
	return h, tooMuch
}

// blank reports whether the line ends the header; "" stands for the end of the message.
func blank(line []byte) bool {
	return len(line) == 0 || string(line) == "\n" || string(line) == "\r\n"
}

// readLine puts the next line, with its end, behind raw.
func (h *header) readLine(r *bufio.Reader) error {
	for {
		part, err := r.ReadSlice('\n')
		if len(h.raw)+len(part) > MaxHeader {
			h.raw = append(h.raw, part[:MaxHeader-len(h.raw)]...)
			return fmt.Errorf("%w: more than %d KiB", ErrHeader, MaxHeader>>10)
		}
		h.raw = append(h.raw, part...)
		if err != bufio.ErrBufferFull {
			return err
		}
	}
}

// cutField takes a field apart. White space before the colon is obsolete but allowed
// (RFC 5322 section 4.5); a line without a colon, and one that continues nothing, has no name
// and so is never selected.
func cutField(raw []byte) field {
	name, value, ok := bytes.Cut(raw, []byte{':'})
	if !ok || bytes.IndexByte(name, '\n') >= 0 {
		return field{raw: raw}
	}
	return field{name: lowerASCII(bytes.TrimRight(name, " \t")), value: value, raw: raw}
}

// lowerASCII leaves every byte that is not ASCII alone: field names have none, and some letters
// that do become ASCII would make a second name for a field.
func lowerASCII(name []byte) string {
	lower := bytes.Clone(name)
	for i, c := range lower {
		if 'A' <= c && c <= 'Z' {
			lower[i] = c + 'a' - 'A'
		}
	}
	return string(lower)
}
