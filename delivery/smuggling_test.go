package delivery

import (
	"bufio"
	"bytes"
	"io"
	"regexp"
	"strings"
	"testing"
)

// What some server or other takes for the end of data. Those with a NUL are not here: the server
// refuses them, and the client changes no byte of what it took.
var endForms = []string{
	"\n.\n",         // as Unix writes lines
	"\n.\r\n",       // the line before ends in LF alone
	"\r\n.\n",       // the dot's line ends in LF alone
	"\r.\r",         // as old Macs wrote lines
	"\r.\r\n",       // the line before ends in CR alone
	"\r\n.\r",       // the dot's line ends in CR alone
	"\n.\r",         // a mixture
	"\r.\n",         // the other one
	"\n\r.\r\n",     // LF CR for CR LF
	"\r\n.\n\r",     // the same behind the dot
	"\r\n.\r\r\n",   // a doubled CR behind the dot
	"\r\r\n.\r\n",   // one before it
	"\r\r\n.\r\r\n", // both
	"\n\n.\r\n",     // an empty line of LF
	"\r\n.\r\n",     // the true one, inside a message
}

// loneDot is a line of a dot alone, whatever counts as a line end.
var loneDot = regexp.MustCompile(`[\r\n]\.[\r\n]`)

// Whatever stands in a message, and however it is cut into pieces, no server takes a part of it for
// its end: the only line of a dot is the last.
func TestTheClientEmitsNoEndOfDataButItsOwn(t *testing.T) {
	const smuggled = "MAIL FROM:<forged@victim.test>\r\n"
	bodies := 0
	for _, form := range endForms {
		for _, body := range []string{"hello" + form + smuggled, form + smuggled, form[1:] + smuggled, "hello" + form, form + form[1:] + form} {
			for i := range len(body) + 1 {
				for j := i; j <= min(i+6, len(body)); j++ {
					bodies++
					var out bytes.Buffer
					d := newDotWriter(bufio.NewWriter(&out), func() {})
					for _, part := range []string{body[:i], body[i:j], body[j:]} {
						if _, err := io.WriteString(d, part); err != nil {
							t.Fatal(err)
						}
					}
					if err := d.end(); err != nil {
						t.Fatal(err)
					}
					wire := "\r\n" + out.String()
					text, whole := strings.CutSuffix(wire, "\r\n.\r\n")
					if !whole || loneDot.MatchString(text+"\r\n") {
						t.Fatalf("%q cut at %d and %d goes out as %q", body, i, j, out.String())
					}
				}
			}
		}
	}
	t.Logf("%d forms in %d messages", len(endForms), bodies)
}
