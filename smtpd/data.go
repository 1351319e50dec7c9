package smtpd

import (
	"bytes"
	"net"
	"time"

	"relayd/reply"
)

// A bodyScanner finds the end of a DATA body, the bytes CR LF . CR LF and nothing else
// (RFC 5321 section 4.1.1.4), and every CR or LF that is not part of a CR LF. Other servers
// take LF . LF, CR . CR and their mixtures for an end, or drop NULs before they look; a body that
// holds one is how mail is smuggled past a relay, so it is refused, and what follows it is not read
// as commands.
type bodyScanner struct {
	matched int  // how many bytes of CR LF . CR LF have just passed, NULs beside the dot left out
	nul     bool // there were such
	bare    bool // a bare CR or LF was seen, or an end with NULs in it
}

func (s *bodyScanner) reset() { *s = bodyScanner{matched: 2} } // the line of DATA itself ended with CR LF

// States of matched: what has just passed.
const (
	afterCR    = 1
	afterCRLF  = 2
	afterDot   = 3
	afterDotCR = 4
)

// scan reads on in b and returns how many of its bytes belong to the body, end mark included,
// and whether they end it.
func (s *bodyScanner) scan(b []byte) (n int, end bool) {
	for n < len(b) {
		if s.matched == 0 { // the middle of a line: nothing but CR and LF matters
			i := bytes.IndexByte(b[n:], '\n')
			if i < 0 {
				i = len(b) - n
			}
			j := bytes.IndexByte(b[n:n+i], '\r')
			if j >= 0 {
				i = j
			}
			n += i
			if n == len(b) {
				break
			}
		}
		if s.step(b[n]); s.matched == 5 {
			return n + 1, true
		}
		n++
	}
	return n, false
}

// step takes one byte.
func (s *bodyScanner) step(c byte) {
	held := s.matched == afterCR || s.matched == afterDotCR // a CR that waits for its LF
	switch {
	case c == 0 && (s.matched == afterCRLF || s.matched == afterDot):
		s.nul = true
	case c == '\n' && s.matched == afterDotCR && s.nul:
		s.bare = true
		s.matched, s.nul = afterCRLF, false
	case c == '\n' && held:
		s.matched++
		s.nul = s.nul && s.matched != afterCRLF
	case c == '\n':
		s.bare = true
		s.matched = 0
	case held:
		s.bare = true
		s.matched = 0
		if c == '\r' {
			s.matched = afterCR
		}
	case c == '\r' && s.matched == afterDot:
		s.matched = afterDotCR
	case c == '\r':
		s.matched = afterCR
	case c == '.' && s.matched == afterCRLF:
		s.matched = afterDot
	default:
		s.matched = 0
	}
}

// A bodyFault ends a body before its end mark. It carries the answer that the session gives, and
// counts as a closed connection for go-smtp, which then says nothing more.
type bodyFault struct{ *reply.Reply }

func (bodyFault) Is(target error) bool { return target == net.ErrClosed }
func (f bodyFault) Unwrap() error      { return f.Reply }

var (
	errBareLineEnd = bodyFault{reply.New(550, "5.6.0", "The message holds a bare CR or LF, or a line of a dot and NUL: lines must end with CR LF")}
	errSlowBody    = bodyFault{reply.New(421, "4.4.2", "The message arrived too slowly, please try again")}
	errEndlessBody = bodyFault{reply.New(552, "5.3.4", "The message is far larger than is taken here")}
	errLostBody    = bodyFault{reply.New(421, "4.4.2", "The connection was lost inside the message")}
)

// nextBody gives go-smtp the next piece of the body.
func (g *gate) nextBody() {
	if _, err := g.in.Peek(1); err != nil {
		g.endBody(bodyError(err))
		return
	}
	b, _ := g.in.Peek(g.in.Buffered())
	n, end := g.body.scan(b)
	if g.body.bare {
		g.in.Discard(n)
		g.discardBody(end)
		return
	}
	g.ahead = append(g.line[:0], b[:n]...)
	g.line = g.ahead
	g.in.Discard(n)
	g.budget.bytes += int64(n)
	if g.budget.bytes > 2*g.srv.opt.Limits.MessageSize+1<<20 {
		g.ahead = nil
		g.endBody(errEndlessBody)
		return
	}
	if end {
		g.mode = commands
	}
}

// endBody breaks a body off: nothing that comes after it is ever read.
func (g *gate) endBody(fault bodyFault) {
	g.linger = true
	g.fail(fault)
}

func bodyError(err error) bodyFault {
	if isTimeout(err) {
		return errSlowBody
	}
	return errLostBody
}

// discardBody reads on past a bare CR or LF, to the end mark or until the client is silent,
// because it waits for its answer there; a connection closed earlier is a reset to it, and it
// tries again for days.
func (g *gate) discardBody(end bool) {
	g.budget.discard(g.srv.opt.Limits)
	for limit := g.srv.opt.Limits.MessageSize + 1<<20; !end && limit > 0; {
		if _, err := g.in.Peek(1); err != nil {
			break
		}
		b, _ := g.in.Peek(g.in.Buffered())
		var n int
		n, end = g.body.scan(b)
		g.in.Discard(n)
		limit -= int64(n)
	}
	g.endBody(errBareLineEnd)
}

// A budget is how long a body may take.
type budget struct {
	began   time.Time
	bytes   int64
	limits  Limits
	silence time.Duration // longest wait for the next byte
}

func (b *budget) start(l Limits) { *b = budget{began: time.Now(), limits: l, silence: l.DataTimeout} }

func (b *budget) discard(l Limits) { b.silence = l.BareSilence }

// deadline is when the next byte must be there: soon, and early enough that the whole body keeps
// up the minimum rate and stays under the total.
func (b *budget) deadline() time.Time {
	rate := b.limits.DataTimeout + time.Duration(b.bytes/b.limits.MinimumRate)*time.Second
	total := b.began.Add(min(rate, b.limits.DataTotal))
	next := time.Now().Add(b.silence)
	if total.Before(next) {
		return total
	}
	return next
}

func (g *gate) readDeadline() time.Time {
	if g.mode == data {
		return g.budget.deadline()
	}
	limits, now := g.srv.opt.Limits, time.Now()
	next := now.Add(limits.CommandTimeout)
	if end := g.mailBegan.Add(limits.Transaction); g.inMail && end.Before(next) {
		return end
	}
	return next
}
