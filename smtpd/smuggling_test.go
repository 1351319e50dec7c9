package smtpd

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// What some server or other takes for the end of data, or what hides the true end from one.
var endForms = []string{
	"\n.\n",             // as Unix writes lines
	"\n.\r\n",           // the line before ends in LF alone: most of the servers of 2023 took it
	"\r\n.\n",           // the dot's line ends in LF alone
	"\r.\r",             // as old Macs wrote lines
	"\r.\r\n",           // the line before ends in CR alone
	"\r\n.\r",           // the dot's line ends in CR alone
	"\n.\r",             // a mixture
	"\r.\n",             // the other one
	"\n\r.\r\n",         // LF CR for CR LF
	"\r\n.\n\r",         // the same behind the dot
	"\r\n.\r\r\n",       // a doubled CR behind the dot, which some drop
	"\r\r\n.\r\n",       // one before it: go-smtp's reader misses this end and swallows what follows
	"\r\r\n.\r\r\n",     // both
	"\n\n.\r\n",         // an empty line of LF
	"\r\n\x00.\r\n",     // NUL before the dot, which who works with C's strings may drop
	"\r\n.\x00\r\n",     // NUL behind it
	"\r\n\x00.\x00\r\n", // both
	"\r\n.\r\x00\n",     // NUL inside the line end
	"\r\x00\n.\r\n",     // and inside the one before
	"\r\n.\x00\n",       // NUL in place of CR
	"\r\n..\r\n",        // a stuffed dot, which is a line of one dot and no end
	"\r\n. \r\n",        // a space behind the dot
	"\r\n\t.\r\n",       // a tab before it
	"\r\n.\x0b\r\n",     // a vertical tab
	"\r\n.\x1a\r\n",     // the end of a file of DOS
	"\xe2\x80\xa8.\r\n", // Unicode's line separator
	"\xc2\x85.\xc2\x85", // its next line
	"=0D=0A.=0D=0A",     // quoted-printable, which nobody may decode here
}

// isRefused tells the forms that have a message refused from those that are lines of it.
func isRefused(form string) bool {
	return strings.ContainsAny(strings.ReplaceAll(form, "\r\n", ""), "\r\n") || nulEnd.MatchString(form)
}

// A segmentedConn is a client whose bytes come in segments, one a read.
type segmentedConn struct {
	scriptedConn
	segments [][]byte
}

func (c *segmentedConn) Read(p []byte) (int, error) {
	for len(c.segments) > 0 && len(c.segments[0]) == 0 {
		c.segments = c.segments[1:]
	}
	if len(c.segments) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.segments[0])
	c.segments[0] = c.segments[0][n:]
	return n, nil
}

// converse is a session with a client that sends these segments; it returns the replies and what was taken.
func converse(submission bool, segments ...[]byte) (replies []string, messages []taken) {
	r := &fakeRelay{}
	conn := &segmentedConn{scriptedConn{in: bytes.NewReader(nil), closed: make(chan struct{})}, segments}
	New(fuzzOptions(submission), r).Serve(&oneConn{conn: conn})
	<-conn.closed
	return strings.Split(strings.TrimSuffix(conn.out.String(), "\r\n"), "\r\n"), r.taken()
}

const smuggled = "MAIL FROM:<forged@victim.test>\r\nRCPT TO:<victim@example.test>\r\nDATA\r\nsmuggled\r\n.\r\nQUIT\r\n"

// However the bytes are cut into segments: behind a wrong end nothing runs as a command.
func TestNoEndOfDataButCRLFDotCRLF(t *testing.T) {
	const before = "HELO client.test\r\n" + envelope
	sessions := 0
	for _, form := range endForms {
		whole := []byte("Subject: x\r\n\r\nhello" + form + smuggled)
		cuts := [][][]byte{bytes.Split(whole, nil)} // a segment for every byte
		for i := range whole {
			cuts = append(cuts, [][]byte{whole[:i], whole[i:]})
		}
		begin := bytes.Index(whole, []byte("hello")) + len("hello")
		for i := begin - 1; i <= begin+len(form); i++ {
			for j := i + 1; j <= begin+len(form)+1; j++ {
				cuts = append(cuts, [][]byte{whole[:i], whole[i:j], whole[j:]})
			}
		}
		for _, cut := range cuts {
			sessions++
			replies, taken := converse(false, append([][]byte{[]byte(before)}, cut...)...)
			answers := strings.Join(replies[4:], "\n") // behind the greeting and those to HELO, MAIL and RCPT
			switch {
			case isRefused(form) && (len(taken) != 0 || len(replies) != 6 || !strings.HasPrefix(answers, "354 ") || !strings.HasPrefix(replies[5], "550 5.6.0")):
				t.Errorf("%q cut as %q: took %d messages and said\n%s", form, cut, len(taken), answers)
			case !isRefused(form) && (len(taken) != 1 || len(replies) != 7 || !strings.HasPrefix(replies[5], "250 2.0.0") || !strings.Contains(taken[0].body, "smuggled")):
				t.Errorf("%q cut as %q: what follows must belong to the body; took %d messages and said\n%s", form, cut, len(taken), answers)
			}
		}
	}
	t.Logf("%d forms in %d sessions", len(endForms), sessions)
}

// A dot beside a NUL that no server may take for the end of a line is refused behind the true end, and the
// session goes on: nothing of the message was read as a command. Dots of a line of their own are stuffed, and pass.
func TestADotBesideNULInABody(t *testing.T) {
	for _, submission := range []bool{false, true} {
		for form, want := range map[string]string{
			"hello\x00.\r\n": "550 5.6.0", "hello\x00.\x00": "550 5.6.0", "\r\nx\x00.\r\n": "550 5.6.0", "hello\x00": "250 2.0.0", "\r\n..\x00x\r\n": "250 2.0.0", "\r\n\x00.x": "250 2.0.0",
		} {
			s := serve(t, func(o *Options) { o.Submission = submission })
			var d *peer
			if submission {
				d = s.login(t)
			} else {
				d = s.hello(t)
			}
			d.body()
			d.do("Subject: x\r\n\r\n"+form+smuggled[:strings.Index(smuggled, "\r\n.\r\n")]+"\r\n.", want)
			d.do("NOOP", "250")
			if n := len(s.relay.taken()); (n == 1) != (want[0] == '2') {
				t.Errorf("%q: %d messages were taken", form, n)
			}
		}
	}
}

// A client that waits behind a wrong end, instead of sending on, is told within the silence.
func TestAWrongEndIsAnsweredWhenTheClientWaits(t *testing.T) {
	s := serve(t, func(o *Options) { o.Limits.BareSilence = 20 * time.Millisecond })
	for _, form := range endForms {
		if !isRefused(form) {
			continue
		}
		t.Run(fmt.Sprintf("%q", form), func(t *testing.T) {
			d := s.hello(t)
			d.body()
			d.send("hello" + form)
			if strings.HasSuffix(form, "\r") {
				d.send("x") // a CR may be half of a line end
			}
			d.expect("550 5.6.0")
			d.closed()
		})
	}
}

// However the bytes are cut into packets, the scanner says the same.
func TestEndOfDataAtEverySplit(t *testing.T) {
	for _, form := range append(endForms, "\r\n.\r\n") {
		text := []byte("a\r\n..b\r\n.c" + form + "RSET\r\n.\r\n")
		whole, wantN, want := scanParts(text)
		for i := range text {
			for j := i; j < len(text); j++ {
				s, n, kept := scanParts(text[:i], text[i:j], text[j:])
				if n != wantN || s.ended != whole.ended || s.bare != whole.bare || kept != want && !s.bare {
					t.Fatalf("%q cut at %d and %d: n=%d end=%v bare=%v %q, want %d %v %v %q",
						form, i, j, n, s.ended, s.bare, kept, wantN, whole.ended, whole.bare, want)
				}
			}
		}
	}
}
