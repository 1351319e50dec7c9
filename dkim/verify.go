package dkim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/emersion/go-msgauth/dkim"
)

// What one message may make us do. Whoever sends it writes its signatures and their keys.
const (
	// MaxSignatures is how many signatures of a message are looked at, from the top.
	MaxSignatures = 10
	// maxWork is how many fields all signatures together may make us look at: for each name in an h=
	// the whole header is walked, which takes some 100 ns a field. A message whose 300 recipients stand
	// in fields of their own, all of them signed twice, is still below it.
	maxWork = 250_000
	// maxFolding is how many octets the verifier may move to put folded fields together, which it does
	// anew for each line, where c= has it see the folds: 260 KB in lines of one octet take it many seconds.
	maxFolding = 64 << 20
	// maxExcerpts is how many octets of the header all signatures together may sign. Each is held twice while DNS is
	// asked, and whoever has that not answer has ten signatures of the largest header held in every session.
	maxExcerpts = 2 * MaxHeader
	// maxKeyRecord is the longest key record in octets. An RSA key of 4096 bits takes 750; one that
	// fills a DNS answer would take seconds to compute with.
	maxKeyRecord = 4096
)

// A Kind is the outcome for one signature, in the words of RFC 8601 section 2.7.1.
type Kind string

// The kinds of results.
const (
	Pass      Kind = "pass"
	Fail      Kind = "fail"      // the message is not what was signed
	PermError Kind = "permerror" // the signature or its key is unusable
	TempError Kind = "temperror" // DNS did not answer; later it may
)

// A Result is what became of one signature. All but Kind and Err is what the signature says of
// itself, true only with Pass.
type Result struct {
	Domain    string   // d=, in the form of address.Domain; "" when it is no domain
	Selector  string   // s=, likewise
	Algorithm string   // a=, such as "rsa-sha256"; "" when it has bytes that no algorithm has
	Fields    []string // h=, in lower case, in its order
	Kind      Kind
	Err       error // why; nil with Pass
}

// A TXTLookup returns the TXT records of a name, each with its strings joined. It returns an empty
// slice or a *net.DNSError with IsNotFound for a name that has none. Any other error is a
// permanent one, unless the context has ended or the error has a method Temporary or Timeout that
// says otherwise. It is called from several goroutines at a time.
type TXTLookup func(ctx context.Context, name string) ([]string, error)

// Verify checks the signatures of a message, at most MaxSignatures, and returns a result for each
// from the top. Signatures with l= fail, and those with SHA-1 or RSA keys under 1024 bits are
// unusable (RFC 8301). Where the header is over MaxHeader or MaxFields, all are permerror.
//
// The error is that of msg or of ctx, and there are then no results; no goroutine is left behind, and a
// panic in one, be it of lookup, comes out here. A message need not be read to its end. Lines may end in a bare LF.
func Verify(ctx context.Context, msg io.Reader, lookup TXTLookup) ([]Result, error) {
	buf := pool.Get().(*buffers)
	defer pool.Put(buf)
	source := &endingReader{ctx: ctx, r: msg}
	buf.in.Reset(source)
	defer buf.in.Reset(nil)

	h, err := readHeader(buf.in)
	if source.err != nil {
		return nil, fmt.Errorf("reading the message to verify: %w", source.err)
	}
	results, tries := signatures(h)
	if err != nil {
		for i := range results {
			results[i].Kind, results[i].Err = PermError, err
		}
		return results, nil
	}
	verdicts, err := h.verify(tries, buf.in, func(name string) ([]string, error) { return lookupKey(ctx, name, lookup) })
	switch {
	case source.err != nil:
		return nil, fmt.Errorf("reading the message to verify: %w", source.err)
	case ctx.Err() != nil: // no body was needed to see it
		return nil, fmt.Errorf("verifying: %w", context.Cause(ctx))
	case err != nil:
		return nil, fmt.Errorf("verifying: %w", err)
	}
	for i, verdict := range verdicts {
		r := &results[tries[i].result]
		r.Kind, r.Err = kindOf(verdict), verdict
	}
	return results, nil
}

func kindOf(err error) Kind {
	switch {
	case err == nil:
		return Pass
	case dkim.IsTempFail(err):
		return TempError
	case dkim.IsPermFail(err):
		return PermError
	}
	return Fail
}

// An endingReader ends where the context or the reader fails, and keeps the error.
type endingReader struct {
	ctx context.Context
	r   io.Reader
	err error
}

func (e *endingReader) Read(p []byte) (int, error) {
	if e.err != nil {
		return 0, io.EOF
	}
	if e.ctx.Err() != nil {
		e.err = context.Cause(e.ctx)
		return 0, io.EOF
	}
	n, err := e.r.Read(p)
	if err != nil && err != io.EOF {
		e.err, err = err, io.EOF
	}
	return n, err
}

// A try is a signature that is worth verifying.
type try struct {
	result  int             // its index in the results
	field   int             // and in the fields of the header
	names   map[string]bool // what its h= names of what is there
	relaxed bool            // the canonicalization of the header: folds do not matter
}

// signatures returns a result for each of the first signatures, and those that are worth a try. The
// others have their verdict.
func signatures(h *header) (results []Result, tries []try) {
	work, folding, octets := 0, 0, 0
	there := map[string]bool{}
	for _, f := range h.fields {
		there[f.name] = true
	}
	for i, f := range h.fields {
		if f.name != signatureName {
			continue
		}
		if len(results) == MaxSignatures {
			break
		}
		r := describe(f)
		c, _, _ := strings.Cut(f.tag("c"), "/")
		t := try{result: len(results), field: i, names: make(map[string]bool), relaxed: c == "relaxed"}
		for _, name := range r.Fields {
			if there[name] {
				t.names[name] = true
			}
		}
		more := len(r.Fields) * len(h.fields)
		moreFolding, moreOctets := h.cost(t)
		switch {
		case !ascii(f.tag("h")):
			// The verifier takes some of those letters for ASCII ones, and one field then for many.
			r.Kind, r.Err = PermError, errors.New("h= names a field that is not ASCII")
		case work+more > maxWork:
			r.Kind, r.Err = PermError, fmt.Errorf("h= has %d names for a header of %d fields, too many to check", len(r.Fields), len(h.fields))
		case folding+moreFolding > maxFolding:
			r.Kind, r.Err = PermError, errors.New("the signed fields are folded into too many lines to check")
		case octets+moreOctets > maxExcerpts:
			r.Kind, r.Err = PermError, errors.New("the signed fields are too many octets to check for so many signatures")
		default:
			work, folding, octets = work+more, folding+moreFolding, octets+moreOctets
			tries = append(tries, t)
		}
		results = append(results, r)
	}
	return results, tries
}

// describe reads what a signature says of itself.
func describe(f field) Result {
	var r Result
	if d, err := dnsName(f.tag("d")); err == nil {
		r.Domain = d
	}
	if s, err := dnsName(f.tag("s")); err == nil {
		r.Selector = s
	}
	a := strings.ToLower(f.tag("a"))
	if len(a) <= 32 && strings.Trim(a, "abcdefghijklmnopqrstuvwxyz0123456789-") == "" {
		r.Algorithm = a
	}
	if h := f.tag("h"); h != "" {
		r.Fields = strings.Split(strings.ToLower(h), ":")
	}
	return r
}

// tag returns a tag of a signature, without any white space; "" where there is none. A tag that
// stands twice spoils the signature, so it does not matter which is meant.
func (f field) tag(name string) string {
	for t := range strings.SplitSeq(string(f.value), ";") {
		if n, v, ok := strings.Cut(t, "="); ok && strings.TrimSpace(n) == name {
			return strings.Join(strings.Fields(v), "")
		}
	}
	return ""
}

func ascii(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > '~' })
}

// lookupKey gets a key record for the verifier. The name is made of what stands in a signature, so
// it is checked before DNS sees it; d= may be in Unicode (RFC 8616 section 4).
func lookupKey(ctx context.Context, name string, lookup TXTLookup) ([]string, error) {
	selector, domain, _ := strings.Cut(name, between)
	selector, err := dnsName(selector)
	if err != nil {
		return nil, fmt.Errorf("s=: %w", err)
	}
	if domain, err = dnsName(domain); err != nil {
		return nil, fmt.Errorf("d=: %w", err)
	}
	name = selector + between + domain
	if len(name) > maxName {
		return nil, fmt.Errorf("the name of the key record has more than %d octets", maxName)
	}
	txts, err := lookup(ctx, name)
	if err != nil {
		return nil, lookupError{err, ctx.Err() != nil || temporary(err)}
	}
	for _, txt := range txts {
		if len(txt) > maxKeyRecord {
			return nil, fmt.Errorf("the key record has more than %d octets", maxKeyRecord)
		}
	}
	return txts, nil
}

// temporary reports whether an error of a lookup may be gone later.
func temporary(err error) bool {
	if errors.Is(err, context.Canceled) {
		return true
	}
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		return false
	}
	var temp interface{ Temporary() bool }
	if errors.As(err, &temp) && temp.Temporary() {
		return true
	}
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

// A lookupError tells the verifier whether an error passes. It asks only a net.Error that is not
// wrapped, and by a method that net itself has given up.
type lookupError struct {
	error
	temporary bool
}

func (e lookupError) Temporary() bool { return e.temporary }
func (e lookupError) Timeout() bool   { return e.temporary }
func (e lookupError) Unwrap() error   { return e.error }
