package smtpd

import (
	"bytes"
	"io"
	"net"
	"time"

	"relayd/reply"
)

// A bodyScanner finds the end of a DATA body, the bytes CR LF . CR LF and nothing else
// (RFC 5321 section 4.1.1.4), and every CR or LF that is not part of a CR LF. Other servers
// take LF . LF, CR . CR and their mixtures for an end, or drop NULs before they look; a body that
// holds one is how mail is smuggled past a relay, so it is refused, and what follows it is not read
// as commands. On its way it takes the dot-stuffing out (section 4.5.2), so that each octet is looked
// at once.
type bodyScanner struct {
	matched int  // how many bytes of CR LF . CR LF have just passed, NULs beside the dot left out
	nul     bool // there were such
	bare    bool // a bare CR or LF was seen, or an end with NULs in it
	ended   bool // the end was seen
}

func (s *bodyScanner) reset() { *s = bodyScanner{matched: 2} } // the line of DATA itself ended with CR LF

// States of matched: what has just passed.
const (
	afterCR    = 1
	afterCRLF  = 2
	afterDot   = 3
	afterDotCR = 4
)

// scan reads on in b up to the end mark or the end of b: n octets. Those of them that are body, without
// dots that were put in and without the end mark, it moves to the front of b: kept octets. What stands
// there is worth nothing once bare is set.
func (s *bodyScanner) scan(b []byte) (n, kept int) {
	begin := 0 // of the body that is yet to be moved
	for n < len(b) && !s.ended {
		if s.matched == 0 { // the middle of a line: nothing but CR and LF matters
			n += lineBreak(b[n:])
			if n == len(b) {
				break
			}
			if n+2 < len(b) && b[n] == '\r' && b[n+1] == '\n' && b[n+2] > '.' {
				n += 3 // and on to the middle of the next: most lines begin with nothing that matters
				continue
			}
		}
		if s.step(b[n]) {
			kept += copy(b[kept:], b[begin:n])
			begin = n + 1
		}
		n++
	}
	return n, kept + copy(b[kept:], b[begin:n])
}

// lineBreak is the offset of the first CR or LF in b, len(b) where there is none.
func lineBreak(b []byte) int {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		b = b[:i]
	}
	if i := bytes.IndexByte(b, '\r'); i >= 0 {
		return i
	}
	return len(b)
}

// step takes one byte and reports whether it is none of the body: a dot at the start of a line, and what
// with it may be the end mark. A CR behind such a dot that turns out not to be is a bare one.
func (s *bodyScanner) step(c byte) (drop bool) {
	held := s.matched == afterCR || s.matched == afterDotCR // a CR that waits for its LF
	switch {
	case c == 0 && (s.matched == afterCRLF || s.matched == afterDot):
		s.nul = true
	case c == '\n' && s.matched == afterDotCR && s.nul:
		s.bare = true
		s.matched, s.nul = afterCRLF, false
	case c == '\n' && s.matched == afterDotCR:
		s.ended = true
		return true
	case c == '\n' && held:
		s.matched, s.nul = afterCRLF, false
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
		return true
	case c == '\r':
		s.matched = afterCR
	case c == '.' && s.matched == afterCRLF:
		s.matched = afterDot
		return !s.nul
	default:
		s.matched = 0
	}
	return false
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

// A bodyReader reads the body of DATA as it was before dot-stuffing, for the session: go-smtp's own
// reader goes byte by byte. Its errors are sticky. It must be given room for one octet at least.
type bodyReader struct{ g *gate }

func (r bodyReader) Read(p []byte) (n int, err error) {
	g := r.g
	g.settle() // 354 may be on its way
	for n == 0 && g.err == nil && !g.body.ended {
		n = g.readBody(p)
	}
	switch {
	case g.err != nil:
		return 0, g.err
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// nextBody throws away what the session has left of the body, and shows go-smtp an empty one.
func (g *gate) nextBody() {
	if _, err := io.Copy(io.Discard, bodyReader{g}); err != nil {
		return
	}
	g.ahead = []byte(".\r\n")
	g.mode = commands
}

// readBody reads once and puts what is body into p, which may be nothing. Past what has come already it
// reads as much as p takes, and keeps what stands behind the end for later.
func (g *gate) readBody(p []byte) int {
	b, buffered := p, g.in.Buffered() > 0 || len(g.behind) > 0
	var err error
	if buffered {
		g.in.Peek(1)
		b, err = g.in.Peek(min(g.in.Buffered(), len(p)))
	} else {
		var n int
		n, err = networkReader{g}.Read(p)
		b = p[:n]
	}
	if len(b) == 0 && err != nil {
		g.endBody(bodyError(err))
		return 0
	}
	n, kept := g.body.scan(b)
	if buffered {
		copy(p, b[:kept])
		g.in.Discard(n)
	} else {
		g.behind = bytes.Clone(b[n:])
	}
	g.budget.bytes += int64(n)
	switch {
	case g.body.bare:
		g.discardBody()
		return 0
	case g.budget.bytes > 2*g.srv.opt.Limits.MessageSize+1<<20:
		g.endBody(errEndlessBody)
		return 0
	}
	return kept
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
func (g *gate) discardBody() {
	g.budget.discard(g.srv.opt.Limits)
	for limit := g.srv.opt.Limits.MessageSize + 1<<20; !g.body.ended && limit > 0; {
		if _, err := g.in.Peek(1); err != nil {
			break
		}
		b, _ := g.in.Peek(g.in.Buffered())
		n, _ := g.body.scan(b)
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
	limits := g.srv.opt.Limits
	next := g.asked.Add(limits.CommandTimeout)
	if end := g.mailBegan.Add(limits.Transaction); g.inMail && end.Before(next) {
		return end
	}
	return next
}
