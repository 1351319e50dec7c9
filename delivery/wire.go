package delivery

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"

	"relayd/reply"
)

// Bounds on what a server may answer.
const (
	maxReplyLine  = 4096 // bytes; RFC 5321 section 4.5.3.1.5 allows 512
	maxReplyLines = 200
	maxReplyText  = 8192 // bytes that are kept: a reply goes into logs, the queue and DSNs
)

var errBadReply = errors.New("the server's reply is not SMTP")

// readReply reads one reply, of any number of lines.
func readReply(r *bufio.Reader) (*reply.Reply, error) {
	var texts []string
	for range maxReplyLines {
		line, err := readLine(r)
		if err != nil {
			return nil, err
		}
		code, more, text, err := splitReply(line)
		if err != nil {
			return nil, err
		}
		texts = append(texts, text)
		if !more {
			return assemble(code, texts), nil
		}
	}
	return nil, fmt.Errorf("%w: more than %d lines", errBadReply, maxReplyLines)
}

// readLine returns a line without its end, and takes what is past maxReplyLine for an attack.
func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		return "", fmt.Errorf("%w: a line of more than %d bytes", errBadReply, maxReplyLine)
	}
	if err == io.EOF && len(line) > 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(line), "\r\n"), nil
}

func splitReply(line string) (code int, more bool, text string, err error) {
	if len(line) < 3 {
		return 0, false, "", fmt.Errorf("%w: %.80q", errBadReply, line)
	}
	n, err := strconv.ParseUint(line[:3], 10, 16)
	if err != nil || n < 200 || n > 599 || len(line) > 3 && line[3] != ' ' && line[3] != '-' {
		return 0, false, "", fmt.Errorf("%w: %.80q", errBadReply, line)
	}
	if len(line) > 3 {
		text = line[4:]
	}
	return int(n), len(line) > 3 && line[3] == '-', text, nil
}

// assemble joins the lines of a reply. Each may repeat the enhanced status code.
func assemble(code int, texts []string) *reply.Reply {
	r := &reply.Reply{Code: code}
	for i, t := range texts {
		enhanced, rest := reply.SplitEnhanced(code, t)
		if enhanced != "" {
			r.Enhanced, texts[i] = enhanced, rest
		}
	}
	text := strings.Join(texts, "\n")
	r.Text = strings.Map(printable, strings.ToValidUTF8(text[:min(len(text), maxReplyText)], "?"))
	return r
}

// printable keeps a server from writing to terminals and into protocols by way of its replies.
func printable(r rune) rune {
	if unicode.IsControl(r) && r != '\n' && r != '\t' {
		return '?'
	}
	return r
}

// dotWriter stuffs dots (RFC 5321 section 4.5.2) and changes nothing else. A dot behind a bare CR or
// LF is stuffed as well, since some servers take those for a line end, and the message's end could be
// forged there. before is called ahead of every write to w, to set its deadline.
type dotWriter struct {
	w      *bufio.Writer
	before func()
	tail   [2]byte // what was written last
}

// newDotWriter begins a message, which is where a line begins.
func newDotWriter(w *bufio.Writer, before func()) *dotWriter {
	return &dotWriter{w: w, before: before, tail: [2]byte{'\r', '\n'}}
}

func (d *dotWriter) Write(p []byte) (int, error) {
	d.before()
	last, begin := d.tail[1], 0 // the octet before p, and what of p is yet to be written
	for at := 0; at < len(p); at++ {
		i := bytes.IndexByte(p[at:], '.')
		if i < 0 {
			break
		}
		at += i
		if at > 0 {
			last = p[at-1]
		}
		if last != '\n' && last != '\r' {
			continue
		}
		if _, err := d.w.Write(p[begin:at]); err != nil {
			return 0, err
		}
		if err := d.w.WriteByte('.'); err != nil {
			return 0, err
		}
		begin = at
	}
	if _, err := d.w.Write(p[begin:]); err != nil {
		return 0, err
	}
	for _, b := range p[max(0, len(p)-2):] {
		d.tail = [2]byte{d.tail[1], b}
	}
	return len(p), nil
}

// end writes the end mark, after completing a last line that has no end, and flushes w.
func (d *dotWriter) end() error {
	d.before()
	mark := ".\r\n"
	if d.tail != [2]byte{'\r', '\n'} {
		mark = "\r\n.\r\n"
	}
	if _, err := d.w.WriteString(mark); err != nil {
		return err
	}
	return d.w.Flush()
}

// deadline is a time from now, for a net.Conn.
func deadline(d time.Duration) time.Time { return time.Now().Add(d) }
