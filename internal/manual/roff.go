// Package manual writes the manual pages of relayd in roff, with the macros of man(7), from what
// the programs say of themselves: the tree of verbs of relay-util, the flags of relayd, and the
// explained settings in etc/. Nothing is said twice, so no page can be out of date.
package manual

import (
	"fmt"
	"io"
	"strings"
)

// A page is roff being written.
type page struct{ strings.Builder }

// newPage begins a page, whose purpose is a part of a sentence.
func newPage(name string, section int, release, purpose string) *page {
	p := &page{}
	p.line(".TH %s %d \"\" %s", quoted(strings.ToUpper(name)), section, quoted("relayd "+release))
	p.line(".nh\n.ad l") // names and commands must not be broken
	p.heading("NAME")
	p.line("%s \\- %s", escape(name), escape(purpose))
	return p
}

// line writes a line of roff as it is.
func (p *page) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

func (p *page) heading(title string) { p.line(".SH %s", quoted(title)) }

func (p *page) subheading(title string) { p.line(".SS %s", quoted(title)) }

// text writes paragraphs, which are parted by empty lines.
func (p *page) text(s string) {
	for i, paragraph := range strings.Split(strings.TrimSpace(s), "\n\n") {
		if i > 0 {
			p.line(".PP")
		}
		p.prose(paragraph)
	}
}

// prose writes one paragraph.
func (p *page) prose(s string) {
	for l := range strings.SplitSeq(strings.TrimSpace(s), "\n") {
		p.line("%s", escape(strings.TrimSpace(l)))
	}
}

// tagged writes a term with its explanation indented below.
func (p *page) tagged(term, explanation string) {
	p.line(".TP\n.B %s", quoted(term))
	p.prose(explanation)
}

// literal writes lines as they stand.
func (p *page) literal(s string) {
	p.line(".PP\n.RS 4\n.nf")
	for l := range strings.SplitSeq(strings.Trim(s, "\n"), "\n") {
		p.line("%s", escape(l))
	}
	p.line(".fi\n.RE")
}

func (p *page) writeTo(w io.Writer) error {
	_, err := io.WriteString(w, p.String())
	return err
}

var escapes = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`, "…", `...`)

// escape makes a line of roff that shows s, whatever it begins with.
func escape(s string) string {
	s = escapes.Replace(s)
	if strings.HasPrefix(s, ".") {
		s = `\&` + s
	}
	return s
}

// quoted is escape for an argument of a macro.
func quoted(s string) string { return `"` + strings.ReplaceAll(escapes.Replace(s), `"`, `\(dq`) + `"` }
