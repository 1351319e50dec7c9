package delivery

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"relayd/reply"
)

// maxBatch is how many recipients one transaction names: what RFC 5321 section 4.5.3.1.8 obliges
// every server to take.
const maxBatch = 100

// send delivers m, in as many transactions as the server's limit on recipients asks for. An
// error means that the connection was lost before anything was decided; after that, a lost
// connection is a temporary result for those who have none yet.
func (s *session) send(m *Message) ([]Result, error) {
	results := make([]Result, len(m.Recipients))
	if r := s.unfit(m); r != nil {
		return all(m, Result{Reply: r, Host: s.peer.String()}), nil
	}
	pending := make([]int, len(m.Recipients))
	for i := range pending {
		pending[i] = i
	}
	limit := s.batchLimit()
	for first := true; len(pending) > 0; first = false {
		n := min(limit, len(pending))
		batch := pending[:n]
		again, err := s.transaction(m, batch, results)
		if err != nil && first {
			return nil, err
		}
		if err != nil {
			for _, i := range pending {
				results[i] = Result{Reply: reply.From(err), Host: s.peer.String()}
			}
			return results, nil
		}
		if len(again) == len(batch) { // the server takes nobody: what it said stands, for the rest too
			for _, i := range pending[n:] {
				results[i] = results[batch[0]]
			}
			break
		}
		pending = append(again, pending[n:]...)
	}
	return results, nil
}

// batchLimit honours RCPTMAX of RFC 9422.
func (s *session) batchLimit() int {
	for word := range strings.FieldsSeq(s.ext["LIMITS"]) {
		if v, ok := strings.CutPrefix(strings.ToUpper(word), "RCPTMAX="); ok {
			if n, err := strconv.Atoi(v); err == nil && n > 0 {
				return min(n, maxBatch)
			}
		}
	}
	return maxBatch
}

// unfit is the reply to a message that this server has said it cannot take.
func (s *session) unfit(m *Message) *reply.Reply {
	if max, err := strconv.ParseInt(strings.TrimSpace(s.ext["SIZE"]), 10, 64); err == nil && max > 0 && m.Size > max {
		return reply.New(552, "5.3.4", "The message has %d bytes, and %s takes no more than %d", m.Size, s.peer, max)
	}
	if _, ok := s.ext["SMTPUTF8"]; m.UTF8 && !ok {
		return reply.New(550, "5.6.7", "%s does not take internationalized addresses (SMTPUTF8)", s.peer)
	}
	return nil
}

// transaction sends m to the recipients in batch and sets their results. It returns those whom
// the server wants in a transaction of their own because this one had enough.
func (s *session) transaction(m *Message, batch []int, results []Result) (again []int, err error) {
	_, pipelining := s.ext["PIPELINING"]
	lines := s.envelope(m, batch)
	replies := make([]*reply.Reply, len(lines))
	if pipelining {
		err = s.pipeline(lines, replies)
	} else {
		err = s.oneByOne(lines, replies)
	}
	if err != nil {
		return nil, err
	}
	if lines[0] == "RSET" {
		replies = replies[1:]
		s.dirty = false
	}
	mail, rcpts, data := replies[0], replies[1:1+len(batch)], replies[1+len(batch)]
	var accepted []int
	for n, i := range batch {
		r := rcpts[n]
		if !mail.Positive() {
			r = mail
		}
		results[i] = Result{Reply: r, Host: s.peer.String()}
		switch {
		case r.Positive():
			accepted = append(accepted, i)
		case isTooMany(r):
			again = append(again, i)
		}
	}
	return again, s.finish(m, data, accepted, results)
}

// isTooMany: RFC 5321 section 4.5.3.1.10, whose 552 is for history's sake.
func isTooMany(r *reply.Reply) bool {
	return r.Code == 452 && (r.Enhanced == "" || r.Enhanced == "4.5.3") || r.Code == 552 && r.Enhanced == "5.5.3"
}

// finish sends the body if anybody gets it, and gives those the final reply.
func (s *session) finish(m *Message, data *reply.Reply, accepted []int, results []Result) error {
	if data == nil || data.Code != 354 {
		s.dirty = true
		for _, i := range accepted {
			results[i].Reply = data
			if data.Positive() {
				results[i].Reply = reply.New(451, "4.5.0", "%s answers DATA with %d", s.peer, data.Code)
			}
		}
		return nil
	}
	if len(accepted) == 0 { // the server waits for a body that is for nobody
		s.broken = true
		return nil
	}
	final, err := s.body(m)
	if err != nil {
		final = reply.From(err)
	}
	s.sent++
	_, dsn := s.ext["DSN"]
	for _, i := range accepted {
		results[i].Reply, results[i].DSN = final, dsn
	}
	return nil
}

// envelope is the lines of a transaction up to DATA.
func (s *session) envelope(m *Message, batch []int) []string {
	var lines []string
	if s.dirty {
		lines = append(lines, "RSET")
	}
	lines = append(lines, s.mailLine(m))
	for _, i := range batch {
		lines = append(lines, s.rcptLine(m.Recipients[i]))
	}
	return append(lines, "DATA")
}

func (s *session) mailLine(m *Message) string {
	var b strings.Builder
	fmt.Fprintf(&b, "MAIL FROM:<%s>", m.ReturnPath)
	if _, ok := s.ext["SIZE"]; ok {
		fmt.Fprintf(&b, " SIZE=%d", m.Size)
	}
	if _, ok := s.ext["8BITMIME"]; ok && m.EightBit {
		b.WriteString(" BODY=8BITMIME")
	}
	if m.UTF8 {
		b.WriteString(" SMTPUTF8")
	}
	if _, ok := s.ext["DSN"]; ok {
		if m.Return != "" {
			b.WriteString(" RET=" + m.Return)
		}
		if m.EnvelopeID != "" {
			b.WriteString(" ENVID=" + xtext(m.EnvelopeID))
		}
	}
	return b.String()
}

func (s *session) rcptLine(r Recipient) string {
	var b strings.Builder
	fmt.Fprintf(&b, "RCPT TO:<%s>", r.Address)
	if _, ok := s.ext["DSN"]; ok {
		if len(r.Notify) > 0 {
			b.WriteString(" NOTIFY=" + strings.Join(r.Notify, ","))
		}
		if kind, original, ok := strings.Cut(r.Original, ";"); ok {
			b.WriteString(" ORCPT=" + kind + ";" + xtext(original))
		}
	}
	return b.String()
}

// xtext encodes a DSN parameter (RFC 3461 section 4).
func xtext(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < '!' || c > '~' || c == '+' || c == '=' {
			fmt.Fprintf(&b, "+%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// pipeline sends all lines at once (RFC 2920) and reads all replies.
func (s *session) pipeline(lines []string, replies []*reply.Reply) error {
	s.conn.SetDeadline(deadline(s.times.Command))
	for _, l := range lines {
		s.w.WriteString(l + "\r\n")
	}
	if err := s.w.Flush(); err != nil {
		return s.lost(err)
	}
	for i := range lines {
		wait := s.times.Command
		if i == len(lines)-1 {
			wait = s.times.DataInit
		}
		r, err := s.read(wait)
		if err != nil {
			return brokenOff(lines, replies[:i], replies, err)
		}
		replies[i] = r
	}
	return nil
}

// brokenOff deals with a connection that was lost in the middle of a pipelined envelope. A
// server that refuses MAIL, or says 421, and hangs up has said what it had to say to all; what
// else was not answered is to be tried again, and what was answered stands.
func brokenOff(lines []string, got, replies []*reply.Reply, lost error) error {
	mail := slices.IndexFunc(lines, isMail)
	if len(got) <= mail {
		return lost
	}
	rest := reply.From(lost)
	switch last := got[len(got)-1]; {
	case !got[mail].Positive():
		rest = got[mail]
	case last.Code == 421:
		rest = last
	}
	fill(replies, rest)
	return nil
}

func isMail(line string) bool { return strings.HasPrefix(line, "MAIL ") }

// oneByOne sends each line after the reply to the one before, and no DATA if it is in vain.
func (s *session) oneByOne(lines []string, replies []*reply.Reply) error {
	accepted := false
	for i, l := range lines {
		if l == "DATA" && !accepted {
			replies[i] = reply.New(503, "5.5.1", "no recipients")
			return nil
		}
		r, err := s.command(s.times.Command, l)
		if err != nil {
			return brokenOff(lines, replies[:i], replies, err)
		}
		replies[i] = r
		accepted = accepted || strings.HasPrefix(l, "RCPT ") && r.Positive()
		if isMail(l) && !r.Positive() {
			fill(replies, r)
			return nil
		}
	}
	return nil
}

// fill gives r to all lines that have no reply.
func fill(replies []*reply.Reply, r *reply.Reply) {
	for i := range replies {
		if replies[i] == nil {
			replies[i] = r
		}
	}
}

// body sends the message and reads the final reply.
func (s *session) body(m *Message) (*reply.Reply, error) {
	body, err := m.Body()
	if err != nil {
		s.broken = true // inside DATA there is no other way out
		return nil, reply.Internal(err)
	}
	defer body.Close()
	d := &dotWriter{w: s.w, before: func() { s.conn.SetDeadline(deadline(s.times.Block)) }}
	if _, err := io.CopyBuffer(d, body, make([]byte, 32<<10)); err != nil {
		return nil, s.lost(err)
	}
	if err := d.end(); err != nil {
		return nil, s.lost(err)
	}
	if err := s.w.Flush(); err != nil {
		return nil, s.lost(err)
	}
	return s.read(s.times.Dot)
}
