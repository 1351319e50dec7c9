package main

import (
	"fmt"
	"time"
)

// progressEvery is how often a terminal shows how far something has come.
const progressEvery = 200 * time.Millisecond

// A progress shows how far something has come: in a line of standard error that is written anew,
// and by sending on what stands in the buffer of standard output.
type progress struct {
	t     *tool
	line  bool // there is one
	last  time.Time
	shown bool
}

// progress makes one. There is a line only where standard error is a terminal; and not if an
// answer runs over the same terminal meanwhile.
func (t *tool) progress(answering bool) *progress {
	return &progress{t: t, line: isTerminal(t.err) && !(answering && isTerminal(t.stdout))}
}

// due reports whether it is time to show something.
func (p *progress) due() bool { return p.t.now().Sub(p.last) >= progressEvery }

func (p *progress) show(text string) {
	p.last = p.t.now()
	p.t.out.Flush() // what fails is told at the end
	if p.line {
		fmt.Fprintf(p.t.err, "\r\x1b[K%s", text)
		p.shown = true
	}
}

// clear takes the line away.
func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(p.t.err, "\r\x1b[K")
		p.shown = false
	}
}
