package dns

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/miekg/dns"
)

// ErrNotExist and ErrNoData are what errors.Is finds in an *Error of that kind.
var (
	ErrNotExist = errors.New("no such name in DNS")
	ErrNoData   = errors.New("no such record in DNS")
)

// A Kind is what an Error means for the mail that waits for the answer.
type Kind int

const (
	// Temporary is everything that says nothing about the name: SERVFAIL, REFUSED, a malformed
	// response, a timeout, a network or context that ended. It is the zero Kind on purpose.
	Temporary Kind = iota
	// NotExist is NXDOMAIN: there is no record of any type at this name or below it.
	NotExist
	// NoData means that the name exists, or something below it, but has no record of this type.
	NoData
)

// An Error is the only type of error that this package returns, and it is returned unwrapped, so
// that libraries which look for net.Error by type assertion see Temporary. It is not to be changed:
// the cache hands the same one to everybody.
type Error struct {
	Name   string // what was asked for, without the final dot
	Type   string // record type, like "MX"
	Server string // IP:port of the server that answered so or failed last; "" if none was asked
	Kind   Kind
	Cause  error // what happened, for a Temporary or a name that cannot be asked for; may be nil
}

var _ net.Error = (*Error)(nil)

// Error is one line for a log.
func (e *Error) Error() string {
	text := fmt.Sprintf("%s of %q: ", e.Type, e.Name)
	switch {
	case e.Cause != nil:
		text += e.Cause.Error()
	case e.Kind == NotExist:
		text += ErrNotExist.Error()
	case e.Kind == NoData:
		text += ErrNoData.Error()
	default:
		text += "no answer"
	}
	if e.Server != "" {
		text += " (from " + e.Server + ")"
	}
	return text
}

// Unwrap gives errors.Is the cause, such as context.Canceled.
func (e *Error) Unwrap() error { return e.Cause }

// Is makes errors.Is(err, ErrNotExist) and errors.Is(err, ErrNoData) work.
func (e *Error) Is(target error) bool {
	return target == ErrNotExist && e.Kind == NotExist || target == ErrNoData && e.Kind == NoData
}

// Timeout reports whether time ran out before an answer came.
func (e *Error) Timeout() bool {
	if errors.Is(e.Cause, context.DeadlineExceeded) {
		return true
	}
	cause, ok := errors.AsType[net.Error](e.Cause)
	return ok && cause.Timeout()
}

// Refused reports whether the server does not answer such questions at all (REFUSED): one that
// knows a few zones and no way to the rest of the world. No zone of a stranger can bring it about.
func (e *Error) Refused() bool {
	code, ok := errors.AsType[rcodeError](e.Cause)
	return ok && code == dns.RcodeRefused
}

// Temporary reports whether a later try may end differently: true for everything but NXDOMAIN
// and NODATA.
func (e *Error) Temporary() bool { return e.Kind == Temporary }

// DNSError is e in the type of package net, for libraries that look for exactly that one.
func (e *Error) DNSError() *net.DNSError {
	return &net.DNSError{
		Err: e.Error(), Name: e.Name, Server: e.Server, UnwrapErr: e,
		IsTimeout: e.Timeout(), IsTemporary: e.Temporary(), IsNotFound: !e.Temporary(),
	}
}

// worse picks the error that speaks for both address families: a Temporary one if there is any,
// and of two facts the one that claims less.
func worse(a, b *Error) *Error {
	if a.Kind == Temporary || b.Kind == NotExist {
		return a
	}
	return b
}
