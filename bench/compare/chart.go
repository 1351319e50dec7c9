package main

import (
	"fmt"
	"strings"
)

// charted are the scenarios that the picture shows.
var charted = []struct{ name, title string }{
	{"forward-1", "Forwarding, one message a connection"},
	{"forward-50", "Forwarding, 50 messages a connection"},
	{"submit-1", "Submission (TLS, password, DKIM), one message a connection"},
	{"submit-50", "Submission, 50 messages a connection"},
}

// chartStyle has colours that can be read on white and on black.
const chartStyle = `<style>
text{font:13px system-ui,sans-serif;fill:#6e7781}
.title{font-weight:600}
.us{fill:#2f81f7}.them{fill:#8b949e}
@media(prefers-color-scheme:dark){text{fill:#9ba4ae}.them{fill:#6e7681}}
</style>
`

// chart is a picture of the messages that arrived in a second, as SVG: a row of bars for each
// scenario, which has a scale of its own.
func (b *bench) chart() string {
	const width, left, bar, row = 720, 120, 470, 20
	var t strings.Builder
	y := 6
	for _, c := range charted {
		list := b.results[c.name]
		if list == nil {
			continue
		}
		most := 1.0
		for _, f := range list {
			most = max(most, f.per(f.arrived))
		}
		y += row
		fmt.Fprintf(&t, "<text class=\"title\" x=\"0\" y=\"%d\">%s, messages a second</text>\n", y, c.title)
		for _, f := range list {
			if f.problem != "" {
				continue
			}
			y += row
			class := "them"
			if strings.HasPrefix(f.contender, "relayd") {
				class = "us"
			}
			length := f.per(f.arrived) / most * bar
			fmt.Fprintf(&t, "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text><rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"14\" rx=\"2\"/><text x=\"%.1f\" y=\"%d\">%s</text>\n",
				left-8, y, f.contender, class, left, y-11, max(1, length), left+length+8, y, rate(f.per(f.arrived)))
		}
		y += 12
	}
	return fmt.Sprintf("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" role=\"img\" aria-label=\"Messages a second of relayd and other relays\">\n%s%s</svg>\n",
		width, y, width, chartStyle, t.String())
}
