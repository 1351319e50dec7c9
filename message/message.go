// Package message carries a mail message without changing a byte of it. A Message is what the
// client sent, exactly, and a list of header fields put in front; there is no way to alter or
// re-fold what is behind them, because the author's DKIM signature covers it. Whole fields can be
// left out, for there are two kinds that must not go on: see Message.LeaveOut and Header.Split.
//
// The message is read once, as it arrives: into memory up to MemoryLimit and into a file past
// that. Line ends are the session's business (a bare CR or LF never gets here); the header's
// bounds are checked here. Sources: RFC 5322 sections 2.1 and 3.6.7, RFC 6376 section 5.4.
package message

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"sync/atomic"
)

// Bounds on what Read takes in.
const (
	MemoryLimit     = 64 << 10  // bytes of a message held in memory; a larger one goes to a file
	MaxHeaderBytes  = 256 << 10 // the largest header that real mail shows is well below this
	MaxHeaderFields = 1000
)

// What may stand in front of a header that Read has taken, by our own doing. A message that was
// accepted must never be refused when its header is read again.
const (
	ownHeaderBytes = 64 << 10
	ownFields      = 100
)

// Errors of Read that are the client's fault.
var (
	ErrTooLarge       = errors.New("message larger than the limit")
	ErrHeaderTooLarge = errors.New("header larger than 256 KiB")
	ErrTooManyFields  = errors.New("header of more than 1000 fields")
	// ErrLoneDot is for a dot behind a NUL and before a NUL or a line's end. Servers that drop NULs, or take them for
	// line ends, may see the end of the message there and run what follows as commands. Other NULs pass,
	// as RFC 5322 section 4 wants and as other servers let them; and a dot behind CR LF is stuffed on its way.
	ErrLoneDot = errors.New("a dot between NULs, or between NUL and the end of a line")
)

// A StorageError says that the message could not be kept here: the disk is full or broken. It is
// never the client's fault.
type StorageError struct{ Err error }

func (e *StorageError) Error() string { return "storing the message: " + e.Err.Error() }
func (e *StorageError) Unwrap() error { return e.Err }

// A Message is one received message. Its methods may be called from one goroutine at a time;
// the readers that it hands out may be used concurrently.
type Message struct {
	Header   Header // of the message as it came, without the fields put in front
	EightBit bool   // a byte above 127 stands somewhere in it
	prefix   []string
	header   []byte // what goes on of Header.Raw
	spool    spool
	shares   atomic.Int32 // how often Close is to be called before it closes
}

// Read takes a message of at most limit bytes from r. Past MemoryLimit it is kept in a file in
// dir until Close. An error of r is returned as it is, one of the disk as a *StorageError. On
// any error nothing is left behind; the rest of r is left unread.
func Read(r io.Reader, dir string, limit int64) (*Message, error) {
	return (*Memory)(nil).Read(r, dir, limit)
}

// Read is Read for a message that shares the memory with others until Close.
func (memory *Memory) Read(r io.Reader, dir string, limit int64) (*Message, error) {
	m, whole := &Message{spool: spool{dir: dir, shared: memory}}, false
	defer func() {
		if !whole { // also after a panic of r's
			m.Close()
		}
	}()
	if err := m.fill(r, limit); err != nil {
		return nil, err
	}
	whole = true
	return m, nil
}

func (m *Message) fill(r io.Reader, limit int64) error {
	buf := chunks.Get().(*[]byte)
	defer chunks.Put(buf)
	var dots dotScanner
	for {
		n, err := r.Read(*buf)
		b := (*buf)[:n]
		if dots.scan(b) || err == io.EOF && dots.open() {
			return ErrLoneDot
		}
		if m.spool.size+int64(n) > limit {
			return ErrTooLarge
		}
		m.EightBit = m.EightBit || !isASCII(b)
		if werr := m.spool.write(b); werr != nil {
			return &StorageError{werr}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	raw, err := m.readHeader()
	if err != nil {
		return err
	}
	m.Header, err = parse(raw, MaxHeaderBytes, MaxHeaderFields)
	m.header = raw
	return err
}

// readHeader returns the bytes before the blank line, the whole message where there is none.
func (m *Message) readHeader() ([]byte, error) {
	head := m.spool.memory
	if end := headerEnd(head); end >= 0 {
		return head[:end], nil
	}
	if m.spool.file == nil {
		return head, nil
	}
	head = make([]byte, min(m.spool.size, MaxHeaderBytes+4))
	if _, err := m.spool.file.ReadAt(head, 0); err != nil && err != io.EOF {
		return nil, &StorageError{err}
	}
	end := headerEnd(head)
	if end < 0 && m.spool.size > MaxHeaderBytes {
		return nil, ErrHeaderTooLarge
	}
	if end < 0 {
		end = len(head)
	}
	return head[:end], nil
}

// headerEnd is the offset of the blank line that ends the header, -1 if b has none.
func headerEnd(b []byte) int {
	if bytes.HasPrefix(b, []byte("\r\n")) {
		return 0
	}
	if i := bytes.Index(b, []byte("\r\n\r\n")); i >= 0 {
		return i + 2
	}
	return -1
}

// Prepend puts whole header fields, each with its CRLF, in front of everything so far.
//
// A message that begins with white space would continue whatever field stands in front of it, and
// so change what that field says and break a signature that covers it. Such a message gets the
// field X-Malformed right before it, which takes the continuation and means nothing to anybody.
func (m *Message) Prepend(fields string) {
	if fields == "" {
		return
	}
	if len(m.prefix) == 0 && m.Header.continues() {
		m.prefix = []string{Separator}
	}
	m.prefix = append([]string{fields}, m.prefix...)
}

// Separator is the field that is continued by the lines at the start of a message that belong to none.
const Separator = "X-Malformed: the message begins with white space\r\n"

// LeaveOut has remove take whole fields out of the header that goes on: it is given Header.Raw,
// which it must not change, and returns it without them. Header and Original stay as they are.
func (m *Message) LeaveOut(remove func(header []byte) []byte) { m.header = remove(m.Header.raw) }

// Size is the length in bytes of what Reader gives.
func (m *Message) Size() int64 {
	n := m.spool.size - int64(len(m.Header.raw)-len(m.header))
	for _, p := range m.prefix {
		n += int64(len(p))
	}
	return n
}

// OriginalSize is the length in bytes of the message as it came.
func (m *Message) OriginalSize() int64 { return m.spool.size }

// Reader reads the message with the fields put in front and without those left out, from the start.
func (m *Message) Reader() io.Reader {
	prefix := strings.NewReader(strings.Join(m.prefix, ""))
	if len(m.header) == len(m.Header.raw) {
		return io.MultiReader(prefix, m.Original())
	}
	return io.MultiReader(prefix, bytes.NewReader(m.header), m.spool.from(int64(len(m.Header.raw))))
}

// Original reads the message as it came, from the start.
func (m *Message) Original() io.Reader { return m.spool.from(0) }

// Share makes one more owner of the message: it is kept until each has called Close.
func (m *Message) Share() { m.shares.Add(1) }

// Close removes the file behind a large message. The message and its readers are of no use after it.
// Owners who share the message may call it at the same time.
func (m *Message) Close() error {
	if m.shares.Add(-1) >= 0 {
		return nil
	}
	return m.spool.close()
}

func isASCII(b []byte) bool {
	for ; len(b) >= 8; b = b[8:] {
		if binary.NativeEndian.Uint64(b)&0x8080808080808080 != 0 {
			return false
		}
	}
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}
