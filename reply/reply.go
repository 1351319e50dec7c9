// Package reply is the one type in which an SMTP answer travels: what we say to a client, and
// what a remote server said to us. It keeps the public sentence apart from the private cause,
// so that a client never reads our internals and the log always does.
package reply

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// A Reply is an SMTP reply (RFC 5321 section 4.2) and, when its code is 4xx or 5xx, an error.
// A Reply is not changed after it was made and so is safe for concurrent use.
type Reply struct {
	Code     int    // 200 to 599
	Enhanced string // enhanced status code of RFC 3463 such as "5.7.1"; "" when there is none
	Text     string // one plain sentence for the person at the other end; may hold several lines
	Cause    error  // what really happened, for the log; never sent
}

// New makes a reply. The enhanced code's class must be that of the code.
func New(code int, enhanced, format string, args ...any) *Reply {
	return &Reply{Code: code, Enhanced: enhanced, Text: fmt.Sprintf(format, args...)}
}

// Because returns a copy of r with its private cause.
func (r *Reply) Because(cause error) *Reply {
	c := *r
	c.Cause = cause
	return &c
}

// Internal is the answer to everything that is our own fault: the client may try again.
func Internal(cause error) *Reply {
	return New(451, "4.3.0", "Something went wrong here, please try again later").Because(cause)
}

// From finds the reply that err carries, however deeply it is wrapped. Any other error becomes
// Internal, so that no caller can leak an internal text or turn a passing fault into a bounce.
func From(err error) *Reply {
	if err == nil {
		return nil
	}
	if r, ok := errors.AsType[*Reply](err); ok && r != nil {
		return r
	}
	return Internal(err)
}

// String is the reply as it stands on the wire, on one line. It may be shown on a terminal:
// control characters, which a remote server may have sent, become "?".
func (r *Reply) String() string {
	text := strings.Map(visible, strings.Join(strings.Fields(r.Text), " "))
	if r.Enhanced == "" {
		return fmt.Sprintf("%d %s", r.Code, text)
	}
	return fmt.Sprintf("%d %s %s", r.Code, r.Enhanced, text)
}

func visible(c rune) rune {
	if unicode.IsControl(c) {
		return '?'
	}
	return c
}

// Error is String and, behind it, the private cause.
func (r *Reply) Error() string {
	if r.Cause == nil {
		return r.String()
	}
	return r.String() + ": " + r.Cause.Error()
}

// Unwrap gives errors.Is and errors.As the cause.
func (r *Reply) Unwrap() error { return r.Cause }

// Positive reports whether the command was accepted (2xx or 3xx).
func (r *Reply) Positive() bool { return r.Code >= 200 && r.Code < 400 }

// Temporary reports whether the client may succeed by trying again (4xx).
func (r *Reply) Temporary() bool { return r.Code >= 400 && r.Code < 500 }

// Permanent reports whether trying again is in vain (5xx).
func (r *Reply) Permanent() bool { return r.Code >= 500 }

// SplitEnhanced takes the enhanced status code off the front of a reply's text. A code counts
// only if its class is that of the reply, 2, 4 or 5 (RFC 2034 section 4); enhanced is "" otherwise,
// and rest the whole text.
func SplitEnhanced(code int, text string) (enhanced, rest string) {
	first, rest, _ := strings.Cut(text, " ")
	class := code / 100
	parts := strings.SplitN(first, ".", 4)
	if len(parts) != 3 || parts[0] != strconv.Itoa(class) || class != 2 && class != 4 && class != 5 {
		return "", text
	}
	for _, p := range parts[1:] {
		if len(p) == 0 || len(p) > 3 || strings.Trim(p, "0123456789") != "" {
			return "", text
		}
	}
	return first, rest
}
