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

	"relayd/reply"
)

// Bounds on what a server may answer.
const (
	maxReplyLine  = 4096 // bytes; RFC 5321 section 4.5.3.1.5 allows 512
	maxReplyLines = 200
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
	r.Text = strings.ToValidUTF8(strings.Join(texts, "\n"), "?")
	return r
}

// dotWriter stuffs dots (RFC 5321 section 4.5.2) and changes nothing else. before is called
// ahead of every write to w, to set its deadline.
type dotWriter struct {
	w      *bufio.Writer
	before func()
	middle bool // inside a line
}

func (d *dotWriter) Write(p []byte) (int, error) {
	written := len(p)
	d.before()
	for len(p) > 0 {
		if !d.middle && p[0] == '.' {
			if err := d.w.WriteByte('.'); err != nil {
				return 0, err
			}
		}
		end := bytes.IndexByte(p, '\n') + 1
		d.middle = end == 0
		if end == 0 {
			end = len(p)
		}
		if _, err := d.w.Write(p[:end]); err != nil {
			return 0, err
		}
		p = p[end:]
	}
	return written, nil
}

// end writes the end mark, after completing a last line that has no end.
func (d *dotWriter) end() error {
	if d.middle {
		d.w.WriteString("\r\n")
	}
	_, err := d.w.WriteString(".\r\n")
	return err
}

// deadline is a time from now, for a net.Conn.
func deadline(d time.Duration) time.Time { return time.Now().Add(d) }
