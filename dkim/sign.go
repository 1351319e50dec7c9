package dkim

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"relayd/message"
)

// Fields that are signed once more than they occur, so that none can be added: each is shown to
// the reader, answers the message or says how its body is read, and may stand only once
// (RFC 6376 sections 5.4.1 and 8.15). Sorted as they stand in messages.
var overSigned = []string{
	"From", "To", "Cc", "Subject", "Date", "Message-ID", "Reply-To", "In-Reply-To", "References",
	"MIME-Version", "Content-Type", "Content-Transfer-Encoding",
}

// Fields that are signed as often as they occur. Lists and forwarders add them with good reason,
// which must not break a signature. Mailbox providers ask for a signature over List-Unsubscribe
// and List-Unsubscribe-Post (RFC 8058 section 4) and show Sender and List-Id.
//
// Not signed: trace fields, which change on the way (Received, Return-Path, Resent-*);
// Auto-Submitted, which only keeps robots from answering, so that a gateway that takes it out
// harms nobody and a signature would; and all that no reader sees.
var signedIfPresent = []string{
	"Sender", "List-Id", "List-Unsubscribe", "List-Unsubscribe-Post", "List-Post",
}

// maxLine is how long we let a line of a signature be, in octets without CRLF (RFC 5322 section
// 2.1.1). Only a tag that cannot be folded, such as a long domain, goes over it.
const maxLine = 78

// buffers are what reading one message takes: not on the heap for every one, since a relay signs
// many at a time.
type buffers struct {
	in  *bufio.Reader
	out []byte
}

const bufferSize = 32 << 10

var pool = sync.Pool{New: func() any {
	return &buffers{in: bufio.NewReaderSize(nil, bufferSize), out: make([]byte, 0, bufferSize)}
}}

// Sign reads a whole message and returns one DKIM-Signature field for each key, in the order of
// the keys and each ending in CRLF, to be put in front of it. The canonicalization is
// relaxed/relaxed, and now is the time of signing. A message without a blank line is signed as one
// with an empty body; lines of the header that are no fields are passed over. Without keys it
// returns "" and reads nothing.
//
// It returns an error that wraps ErrHeader for a header over MaxHeader or MaxFields, the error of
// msg, and that of a key that cannot sign; there are then no fields at all.
func Sign(msg io.Reader, keys []*Key, now time.Time) (string, error) {
	if len(keys) == 0 {
		return "", nil
	}
	buf := pool.Get().(*buffers)
	defer pool.Put(buf)
	buf.in.Reset(msg)
	defer buf.in.Reset(nil)

	h, err := readHeader(buf.in)
	if err != nil {
		return "", fmt.Errorf("reading the header to sign: %w", err)
	}
	bodyHash, err := hashBody(buf)
	if err != nil {
		return "", fmt.Errorf("reading the body to sign: %w", err)
	}
	names, signed := selectFields(h)
	var out []byte
	for _, k := range keys {
		s := signature{key: k, names: names, signed: signed, bodyHash: bodyHash, time: now}
		if out, err = s.append(out); err != nil {
			return "", fmt.Errorf("signing with %s: %w", k.recordName(), err)
		}
	}
	if len(h.raw) > 0 && isWSP(h.raw[0]) {
		out = append(out, message.Separator...)
	}
	return string(out), nil
}

// hashBody reads the rest of buf.in and returns its hash in base64.
func hashBody(buf *buffers) (string, error) {
	body := relaxedBody{hash: sha256.New(), out: buf.out[:0]}
	for {
		if _, err := buf.in.Peek(1); err == io.EOF {
			break
		} else if err != nil {
			return "", err
		}
		piece, _ := buf.in.Peek(buf.in.Buffered())
		body.Write(piece)
		buf.in.Discard(len(piece))
	}
	body.close()
	return base64.StdEncoding.EncodeToString(body.hash.Sum(nil)), nil
}

// selectFields returns the names of h= in their order, and what they stand for in the order in
// which it is hashed: a name that occurs more than once counts from the bottom up, and one that
// does not occur, or no more, stands for nothing (RFC 6376 section 5.4.2).
func selectFields(h *header) (names []string, signed []byte) {
	occurring := make(map[string][]field)
	for _, f := range h.fields {
		occurring[f.name] = append(occurring[f.name], f)
	}
	take := func(name string) {
		fields := occurring[lowerASCII([]byte(name))]
		for i := len(fields) - 1; i >= 0; i-- {
			names = append(names, name)
			signed = append(appendRelaxed(signed, fields[i]), "\r\n"...)
		}
	}
	for _, name := range overSigned {
		take(name)
		names = append(names, name)
	}
	for _, name := range signedIfPresent {
		take(name)
	}
	return names, signed
}

// A signature is one DKIM-Signature field in the making.
type signature struct {
	key      *Key
	names    []string // h=
	signed   []byte   // what the names stand for
	bodyHash string   // bh=
	time     time.Time
}

const (
	fieldName     = "DKIM-Signature"
	signatureName = "dkim-signature" // the same as a field.name
)

// append signs and appends the whole field.
func (s signature) append(dst []byte) ([]byte, error) {
	w := folder{out: append(dst, fieldName+":"...), column: len(fieldName) + 1}
	start := len(w.out)
	for _, tag := range []string{
		"v=1;", "a=" + s.key.Algorithm() + ";", "c=relaxed/relaxed;", "d=" + s.key.Domain + ";",
		"s=" + s.key.Selector + ";", "t=" + strconv.FormatInt(s.time.Unix(), 10) + ";",
		"bh=" + s.bodyHash + ";",
	} {
		w.tag(tag)
	}
	w.tag("h=" + s.names[0])
	for _, name := range s.names[1:] {
		w.out = append(w.out, ':')
		w.column++
		w.glue(name)
	}
	w.out = append(w.out, ';')
	w.line("b=")

	// The field signs itself with an empty b= and without the CRLF (RFC 6376 section 3.7).
	self := field{name: signatureName, value: w.out[start:]}
	digest := sha256.New()
	digest.Write(s.signed)
	digest.Write(appendRelaxed(nil, self))
	sig, err := s.key.sign(digest.Sum(nil))
	if err != nil {
		return dst, err
	}
	const perLine = 72
	b := base64.StdEncoding.EncodeToString(sig)
	for ; len(b) > perLine; b = b[perLine:] {
		w.out = append(w.out, b[:perLine]...)
		w.line("")
	}
	return append(append(w.out, b...), "\r\n"...), nil
}

// A folder writes a field whose lines are at most maxLine long.
type folder struct {
	out    []byte
	column int // octets in the last line
}

// tag writes a piece with white space before it.
func (w *folder) tag(s string) {
	if w.column+1+len(s)+1 > maxLine {
		w.line(s)
		return
	}
	w.out = append(append(w.out, ' '), s...)
	w.column += 1 + len(s)
}

// glue writes a piece right behind the last one if it fits, with room for one octet more.
func (w *folder) glue(s string) {
	if w.column+len(s)+1 > maxLine {
		w.line(s)
		return
	}
	w.out = append(w.out, s...)
	w.column += len(s)
}

// line writes a piece at the start of a new line.
func (w *folder) line(s string) {
	w.out = append(append(w.out, "\r\n "...), s...)
	w.column = 1 + len(s)
}
