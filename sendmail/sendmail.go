// Package sendmail takes mail of this machine's own programs, such as cron and PHP, which hand it to a
// command named sendmail. There are three parts. Read makes of what a program writes a message and its
// envelope; it runs as whoever calls. HandOver gives both to the relay through a socket that every local
// user may connect to, or leaves them in a drop folder that every local user may write to and nobody
// else may read, while the relay is down. A Door is the relay's end of these. It believes nothing but
// the kernel: the sender is the user who opened the socket or owns the file, and a Rule says which
// addresses that user may send as.
//
// Everything is bounded: sizes, times, and connections of one user and of all.
package sendmail

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"relayd/message"
)

// A Request is the envelope of a message as its program gave it. Addresses may be bare names. It stands
// as one line of JSON in front of the message's bytes.
type Request struct {
	Sender     string   `json:"sender"`         // of -f; "" is the caller's own address and "<>" the null one
	Name       string   `json:"name,omitempty"` // of -F: the display name, where the message has no From
	Recipients []string `json:"recipients"`
	Notify     []string `json:"notify,omitempty"` // DSN NOTIFY: NEVER, or some of SUCCESS FAILURE DELAY
	Return     string   `json:"ret,omitempty"`    // DSN RET: "", FULL or HDRS
	EnvelopeID string   `json:"envid,omitempty"`
	Size       int64    `json:"size"` // of the message in bytes: shorter is not whole
}

// An Answer is a line that the relay answers with: 354 asks for the message, as DATA is answered.
type Answer struct {
	Code     int    `json:"code"`
	Enhanced string `json:"enhanced,omitempty"`
	Text     string `json:"text"`
}

func (a Answer) String() string {
	return strings.TrimSpace(fmt.Sprintf("%d %s", a.Code, a.Enhanced) + " " + a.Text)
}

const (
	goOn = 354
	busy = 421
)

// maxRequest bounds the line of a Request, in bytes: some thousand addresses.
const maxRequest = 256 << 10

var errRequest = errors.New("that is no request of sendmail")

// readRequest reads the line in front of a message.
func readRequest(r *bufio.Reader) (req Request, length int, err error) {
	line, err := readLine(r, maxRequest)
	if err != nil {
		return req, 0, fmt.Errorf("%w: %w", errRequest, err)
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&req); err != nil {
		return req, 0, fmt.Errorf("%w: %w", errRequest, err)
	}
	switch {
	case req.Size < 0, req.Return != "" && req.Return != "FULL" && req.Return != "HDRS", !validNotify(req.Notify),
		len(req.EnvelopeID) > 100, strings.ContainsFunc(req.EnvelopeID, func(c rune) bool { return c < ' ' || c > '~' }):
		return req, 0, errRequest
	}
	return req, len(line), nil
}

func (req *Request) line() ([]byte, error) {
	line, err := json.Marshal(req)
	return append(line, '\n'), err
}

// validNotify: RFC 3461 section 4.1, NEVER stands alone.
func validNotify(list []string) bool {
	for _, n := range list {
		if n != "NEVER" && n != "SUCCESS" && n != "FAILURE" && n != "DELAY" {
			return false
		}
	}
	return len(list) < 2 || len(list) <= 3 && !slices.Contains(list, "NEVER")
}

// Options say how Read takes a message.
type Options struct {
	Extract bool   // -t: recipients stand in To, Cc and Bcc as well
	KeepDot bool   // -i: a line with a single dot does not end the message
	TempDir string // where a large message is kept meanwhile
	Limit   int64  // bytes
}

// ErrNoRecipients says that neither arguments nor header name any.
var ErrNoRecipients = errors.New("there is no recipient: name one, or write To: and use -t")

// Read reads a message as programs write it and completes req with its size and, with Extract, the
// recipients of its header. Bcc is taken out in any case, for nobody else is to see it. Errors are those
// of message.Read, and ErrNoRecipients. The caller closes the message.
func Read(r io.Reader, req *Request, opt Options) (*message.Message, error) {
	fields, rest, err := splitHeader(Lines(r, !opt.KeepDot))
	if err != nil {
		return nil, err
	}
	var kept []field
	for _, f := range fields {
		if opt.Extract && (f.name == "to" || f.name == "cc" || f.name == "bcc") {
			req.Recipients = append(req.Recipients, addresses(f.value())...)
		}
		if f.name != "bcc" && f.name != "resent-bcc" {
			kept = append(kept, f)
		}
	}
	if len(req.Recipients) == 0 {
		return nil, ErrNoRecipients
	}
	m, err := message.Read(join(kept, rest), opt.TempDir, opt.Limit)
	if err != nil {
		return nil, err
	}
	req.Size = m.OriginalSize()
	return m, nil
}

// socketIn and dropIn are where the relay with that state folder takes mail.
func socketIn(stateDir string) string { return filepath.Join(stateDir, "submit.sock") }
func dropIn(stateDir string) string   { return filepath.Join(stateDir, DropFolder) }

// DropFolder is the name of the drop folder in the state folder. What is in it is of any local user's
// making: who has more rights than the relay must not follow a link there.
const DropFolder = "maildrop"
