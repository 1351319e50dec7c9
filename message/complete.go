package message

import (
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Complete returns the header fields that a submitted message lacks (RFC 6409 section 8), to be
// put in front of it: Date, Message-ID made of id and hostname, and the MIME fields without which
// 8-bit text would have no meaning. Nothing is added that an existing signature lists, nor changed
// that is there. It is "" when nothing is lacking.
func (m *Message) Complete(id, hostname string, now time.Time) string {
	var b strings.Builder
	add := func(name, value string) { b.WriteString(name + ": " + value + "\r\n") }
	if m.mayAdd("Date") {
		add("Date", Date(now))
	}
	if m.mayAdd("Message-ID") {
		add("Message-ID", "<"+id+"@"+hostname+">")
	}
	hasType := m.Header.Has("Content-Type") || m.Header.Has("Content-Transfer-Encoding")
	switch {
	case hasType && m.mayAdd("MIME-Version"):
		add("MIME-Version", "1.0")
	case m.EightBit && m.mayAdd("MIME-Version", "Content-Type", "Content-Transfer-Encoding") && m.isUTF8():
		add("MIME-Version", "1.0")
		add("Content-Type", "text/plain; charset=utf-8")
		add("Content-Transfer-Encoding", "8bit")
	}
	return b.String()
}

// mayAdd reports whether all of these fields are missing and unsigned.
func (m *Message) mayAdd(names ...string) bool {
	signed := m.Header.SignedNames()
	return !slices.ContainsFunc(names, func(name string) bool {
		return m.Header.Has(name) || signed[strings.ToLower(name)]
	})
}

// isUTF8 reports whether the message is valid UTF-8 throughout.
func (m *Message) isUTF8() bool {
	r := m.Original()
	buf := make([]byte, 32<<10)
	held := 0 // bytes at the front of buf that may begin a character
	for {
		n, err := r.Read(buf[held:])
		b := buf[:held+n]
		for len(b) > 0 {
			c, size := utf8.DecodeRune(b)
			if c == utf8.RuneError && size <= 1 {
				if err == nil && !utf8.FullRune(b) {
					break
				}
				return false
			}
			b = b[size:]
		}
		held = copy(buf, b)
		if err == io.EOF {
			return held == 0
		}
		if err != nil {
			return false
		}
	}
}
