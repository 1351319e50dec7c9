// Package problem is how every file that a person edits is complained about: file, line, reason.
package problem

import (
	"fmt"
	"strings"
)

// A Problem is one thing wrong in one file.
type Problem struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"` // from 1; 0 when the file as a whole is meant
	Reason string `json:"reason"`         // what is wrong and what to write instead
}

// At makes a problem.
func At(file string, line int, format string, args ...any) Problem {
	return Problem{File: file, Line: line, Reason: fmt.Sprintf(format, args...)}
}

// String is FILE:LINE: reason, or FILE: reason without a line. It is always one line: a reason
// may quote what stands in a file.
func (p Problem) String() string {
	where := p.File
	if p.Line != 0 {
		where = fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return oneLine.Replace(where + ": " + p.Reason)
}

var oneLine = strings.NewReplacer("\r\n", " ", "\n", " ", "\r", " ")

// Error makes a single problem an error.
func (p Problem) Error() string { return p.String() }

// A List is everything that is wrong, in the order found; as an error it is one line each.
type List []Problem

// Error joins the problems with line ends.
func (l List) Error() string {
	lines := make([]string, len(l))
	for i, p := range l {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// Err is l as an error, nil when nothing is wrong.
func (l List) Err() error {
	if len(l) == 0 {
		return nil
	}
	return l
}
