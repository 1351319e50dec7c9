package traffic

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// A letter is a message made beforehand, in which only its number changes.
type letter struct {
	text []byte // as it goes over the wire, with the final dot
	at   []int  // where the number stands
}

// idField has the run, the number and the size of the body, each in ten digits.
const idField = "X-Bench-ID: "

// newLetter makes a letter with a body of about size bytes, at least one line.
func newLetter(run uint32, from, to string, size int) *letter {
	line := strings.Repeat("All work and no play makes mail a dull boy. ", 2)[:74] + "\r\n"
	lines := max(1, size/len(line))
	var b bytes.Buffer
	l := &letter{}
	number := func() {
		l.at = append(l.at, b.Len())
		fmt.Fprintf(&b, "%010d", 0)
	}
	fmt.Fprintf(&b, "%s%010d.", idField, run)
	number()
	fmt.Fprintf(&b, ".%010d\r\n", lines*len(line))
	fmt.Fprintf(&b, "Date: Mon, 1 Jun 2026 12:00:00 +0000\r\nFrom: Writer <%s>\r\nTo: Reader <%s>\r\nSubject: Figures of the day\r\nMessage-ID: <%d.", from, to, run)
	number()
	b.WriteString("@client.sender.test>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n")
	for range lines {
		b.WriteString(line)
	}
	b.WriteString(".\r\n")
	l.text = b.Bytes()
	return l
}

// numbered is the letter with a number, valid until the next call.
func (l *letter) numbered(id int) []byte {
	for _, at := range l.at {
		copy(l.text[at:at+10], fmt.Sprintf("%010d", id))
	}
	return l.text
}

// parseID reads the value of an ID field.
func parseID(value []byte) (run uint32, id, size int, ok bool) {
	parts := strings.Split(string(bytes.TrimSpace(value)), ".")
	if len(parts) != 3 {
		return 0, 0, 0, false
	}
	r, err1 := strconv.ParseUint(parts[0], 10, 32)
	id, err2 := strconv.Atoi(parts[1])
	size, err3 := strconv.Atoi(parts[2])
	return uint32(r), id, size, err1 == nil && err2 == nil && err3 == nil && id >= 0
}
