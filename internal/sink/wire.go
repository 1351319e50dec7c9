package sink

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
)

// readLine sends what is waiting, unless more commands are here already, and reads a line.
func (c *session) readLine() (string, error) {
	if c.r.Buffered() == 0 {
		if err := c.w.Flush(); err != nil {
			return "", err
		}
	}
	line, err := c.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		_ = c.say("500 5.5.2 line too long")
		return "", errQuit
	}
	if err != nil {
		return "", err
	}
	text, ok := strings.CutSuffix(string(line), "\r\n")
	if !ok || strings.ContainsAny(text, "\r\x00") {
		_ = c.say("500 5.5.2 lines end in CRLF")
		return "", errQuit
	}
	return text, nil
}

// readBody reads up to CRLF "." CRLF and takes the stuffed dots out (RFC 5321 section 4.5.2); a
// line begins only after CRLF. Past limit bytes it reads on without keeping anything: !fits.
func readBody(r *bufio.Reader, limit int) (body []byte, fits bool, err error) {
	body, fits = []byte{}, true
	begins := true // the next piece is the beginning of a line
	cr := false    // the piece before ended in CR
	for {
		piece, err := r.ReadSlice('\n') // a line, or as much of it as the buffer holds
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, false, err
		}
		if begins && string(piece) == ".\r\n" {
			return body, fits, nil
		}
		crlf := bytes.HasSuffix(piece, []byte("\r\n")) || cr && string(piece) == "\n"
		cr = piece[len(piece)-1] == '\r'
		if begins && piece[0] == '.' {
			piece = piece[1:]
		}
		begins = crlf
		if fits = fits && len(body)+len(piece) <= limit; fits {
			body = append(body, piece...)
		}
	}
}

// parsePath splits "FROM:<path> args". A ">" inside of a quoted local part does not end the path.
func parsePath(s, prefix string) (path, args string, ok bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return "", "", false
	}
	s, ok = strings.CutPrefix(s[len(prefix):], "<")
	quoted := false
	for i := 0; ok && i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case !quoted && s[i] == '>':
			rest := s[i+1:]
			return s[:i], strings.TrimPrefix(rest, " "), rest == "" || rest[0] == ' '
		}
	}
	return "", "", false
}

// reply answers a stage with what the script says, or else with normal. It returns the code, 0
// if there is none.
func (c *session) reply(stage, arg, normal string) (int, error) {
	if script := c.sink.scripted(stage, arg); script != "" {
		return c.act(script)
	}
	return c.act(c.plain(normal))
}

// say answers with a reply that no script changes.
func (c *session) say(line string) error {
	_, err := c.act(c.plain(line))
	return err
}

// plain takes the enhanced code out of a normal reply where those are not offered.
func (c *session) plain(line string) string {
	code, rest, _ := strings.Cut(line, " ")
	enhanced, text, _ := strings.Cut(rest, " ")
	if strings.Count(enhanced, ".") == 2 && len(enhanced) == 5 && !c.offers("ENHANCEDSTATUSCODES") {
		return code + " " + text
	}
	return line
}

// act writes the lines of a reply and does what the action behind them says.
func (c *session) act(script string) (code int, err error) {
	text, action := script, ""
	for _, a := range []string{"<close>", "<reset>", "<hang>", "<cut>"} {
		if before, ok := strings.CutSuffix(script, a); ok {
			text, action = before, a
		}
	}
	half := ""
	if action == "<cut>" {
		cut := strings.LastIndexByte(text, '\n') + 1
		text, half = text[:cut], text[cut:]
	}
	if text != "" {
		for line := range strings.SplitSeq(strings.TrimRight(text, "\r\n"), "\n") {
			_, _ = c.w.WriteString(strings.TrimSuffix(line, "\r") + "\r\n") // Flush has the error
			code, _ = strconv.Atoi(line[:min(3, len(line))])
		}
	}
	if action == "" {
		return code, nil
	}
	if action == "<cut>" {
		_, _ = c.w.WriteString(half)
	}
	_ = c.w.Flush()
	switch action {
	case "<hang>":
		<-c.sink.closing
	case "<reset>":
		if tcp, ok := c.raw.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = c.raw.Close()
	}
	return code, errQuit
}
