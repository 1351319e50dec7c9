// Package trace finds in relayd's own log what became of a message: every line with its ID, and with
// the ID of a notice about it. Of an address it finds the lines that name it and, of the messages in
// these, all other lines. It reads both formats that relayd writes, also behind what syslog puts in
// front of a line, and passes over everything else. What the log does not say, because a message still
// waits or because it is older than the log, it asks the queue of a running relayd.
package trace

import (
	"bufio"
	"errors"
	"io"
	"slices"
	"strings"
	"time"
)

// An Event is one line of the log about a message.
type Event struct {
	At     time.Time         `json:"time"`
	ID     string            `json:"id,omitempty"` // none on lines about a user or an address alone
	What   string            `json:"what"`         // as the log names it
	Text   string            `json:"text"`         // what happened, in words
	Fields map[string]string `json:"fields,omitempty"`
}

// Bounds of what is kept of a log, however long that is.
const (
	maxEvents = 10_000 // the newest
	maxIDs    = 10_000
	maxLine   = 1 << 20 // bytes; longer ones are passed over
)

// Find returns the events of about, a message's ID or an address, in the order of the log. The log is
// read twice, for a message is often known by an address only after its first line: log is called for
// each time, and what it returns is closed. more reports that older events were left out.
func Find(log func() (io.ReadCloser, error), about string) (events []Event, more bool, err error) {
	s := &search{ids: map[string]bool{}}
	if strings.Contains(about, "@") {
		s.address = about
	} else {
		s.ids[about] = true
	}
	if err := read(log, s.learn); err != nil {
		return nil, false, err
	}
	err = read(log, func(e *Event) {
		if !s.wants(e) {
			return
		}
		if len(events) >= 2*maxEvents {
			events, more = slices.Delete(events, 0, maxEvents), true
		}
		e.Text = words(e)
		events = append(events, *e)
	})
	if n := len(events) - maxEvents; n > 0 {
		events, more = events[n:], true
	}
	return events, more || s.full, err
}

// A search knows the messages that are looked for.
type search struct {
	address string
	ids     map[string]bool
	full    bool // there were more
}

// learn takes the ID of a line that is about what is looked for.
func (s *search) learn(e *Event) {
	if e.ID == "" || s.ids[e.ID] || !s.wants(e) {
		return
	}
	if len(s.ids) >= maxIDs {
		s.full = true
		return
	}
	s.ids[e.ID] = true
}

func (s *search) wants(e *Event) bool {
	return s.ids[e.ID] || e.What == noticeQueued && s.ids[e.Fields["about"]] || s.address != "" && names(e, s.address)
}

// names reports whether a line is about an address.
func names(e *Event, address string) bool {
	for _, key := range []string{"from", "to", "user", "alias", "refused", "tried"} {
		for one := range strings.SplitSeq(e.Fields[key], ">, <") {
			if strings.EqualFold(strings.Trim(one, "<>"), address) {
				return true
			}
		}
	}
	return false
}

// read gives each line of relayd's to f.
func read(log func() (io.ReadCloser, error), f func(*Event)) (err error) {
	r, err := log()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	lines := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := readLine(lines)
		if e, ok := Parse(line); ok {
			f(&e)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// readLine returns the next line, "" for one that is too long. The last one comes with io.EOF.
func readLine(r *bufio.Reader) (string, error) {
	var line []byte
	for long := false; ; {
		piece, err := r.ReadSlice('\n')
		if long = long || len(line)+len(piece) > maxLine; long {
			line = nil
		} else {
			line = append(line, piece...)
		}
		if err != bufio.ErrBufferFull {
			return strings.TrimRight(string(line), "\r\n"), err
		}
	}
}
