package dkim

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/emersion/go-msgauth/dkim"

	"relayd/tasks"
)

// verify tries signatures of the header side by side, since each may have to wait for DNS, and reads the
// body once. It returns what is wrong with each, nil for one that is right. The verifier is given one signature
// at a time: for several it starts goroutines of its own, and what panics there ends the process.
func (h *header) verify(tries []try, body *bufio.Reader, lookup func(name string) ([]string, error)) ([]error, error) {
	verdicts, errs := make([]error, len(tries)), make([]error, len(tries))
	pipes := make([]*io.PipeWriter, len(tries))
	var running tasks.Group
	for i, t := range tries {
		r, w := io.Pipe()
		pipes[i] = w
		running.Go(func() {
			defer r.Close()
			verdicts[i], errs[i] = verifyOne(io.MultiReader(bytes.NewReader(h.excerpt(t)), r), lookup)
		})
	}
	pour(body, pipes)
	running.Wait()
	return verdicts, errors.Join(errs...)
}

// verifyOne returns what is wrong with the first signature of a message. The error is for what no
// message should cause.
func verifyOne(msg io.Reader, lookup func(name string) ([]string, error)) (verdict, err error) {
	verified, err := dkim.VerifyWithOptions(msg, &dkim.VerifyOptions{LookupTXT: lookup, MaxVerifications: 1})
	switch {
	case err != nil && !errors.Is(err, dkim.ErrTooManySignatures):
		return nil, err
	case len(verified) != 1:
		return nil, fmt.Errorf("%d results for a signature", len(verified))
	}
	return verified[0].Err, nil
}

// pour writes the body into all pipes and closes them. It leaves out those that are read no more, and
// the rest of the body once that are all.
func pour(body *bufio.Reader, pipes []*io.PipeWriter) {
	for _, p := range pipes {
		defer p.Close()
	}
	for reading := len(pipes); reading > 0; {
		if _, err := body.Peek(1); err != nil {
			return // the end, or an error that the source keeps
		}
		piece, _ := body.Peek(body.Buffered())
		reading = 0
		for _, p := range pipes {
			if _, err := p.Write(piece); err == nil {
				reading++
			}
		}
		body.Discard(len(piece))
	}
}

// excerpt is the header that the verifier needs for one signature, which it takes for the first: without
// fields that h= does not name, lines that are no fields, which no signature can mean, and signatures above,
// which came later. It has a blank line even where there was none. Where the verifier is to see no folds
// there are none.
func (h *header) excerpt(t try) []byte {
	_, octets := h.cost(t)
	b := make([]byte, 0, octets+4)
	for i, f := range h.fields {
		if !t.needs(i, f) {
			continue
		}
		raw, ended := bytes.CutSuffix(f.raw, []byte("\n"))
		if ended {
			raw = bytes.TrimSuffix(raw, []byte("\r"))
		}
		if t.relaxed {
			raw = bytes.ReplaceAll(bytes.ReplaceAll(raw, []byte("\r\n"), nil), []byte("\n"), nil)
		}
		b = append(append(b, raw...), "\r\n"...)
	}
	return append(b, "\r\n"...)
}

// needs reports whether field f, the i-th of the header, is part of the excerpt.
func (t try) needs(i int, f field) bool {
	return i == t.field || t.names[f.name] && validName(f.name) && !(f.name == signatureName && i < t.field)
}

// cost is how many octets the verifier moves to put the folded fields of an excerpt together, and how many
// the excerpt has.
func (h *header) cost(t try) (folding, octets int) {
	for i, f := range h.fields {
		if !t.needs(i, f) {
			continue
		}
		octets += len(f.raw)
		if !t.relaxed {
			folding += len(f.raw) * (bytes.Count(f.raw, []byte("\n")) - 1) / 2
		}
	}
	return folding, octets
}

// validName is the syntax of a field's name (RFC 5322 section 3.6.8).
func validName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' })
}
