package delivery

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"

	incoming "relayd/message"
)

// What some server or other takes for the end of data.
var endForms = []string{
	"\n.\n",             // as Unix writes lines
	"\n.\r\n",           // the line before ends in LF alone
	"\r\n.\n",           // the dot's line ends in LF alone
	"\r.\r",             // as old Macs wrote lines
	"\r.\r\n",           // the line before ends in CR alone
	"\r\n.\r",           // the dot's line ends in CR alone
	"\n.\r",             // a mixture
	"\r.\n",             // the other one
	"\n\r.\r\n",         // LF CR for CR LF
	"\r\n.\n\r",         // the same behind the dot
	"\r\n.\r\r\n",       // a doubled CR behind the dot
	"\r\r\n.\r\n",       // one before it
	"\r\r\n.\r\r\n",     // both
	"\n\n.\r\n",         // an empty line of LF
	"\r\n.\r\n",         // the true one, inside a message
	"\r\n\x00.\r\n",     // NUL before the dot, which who works with C's strings may drop
	"\r\n.\x00\r\n",     // NUL behind it
	"\r\n\x00.\x00\r\n", // both
	"\r\n.\r\x00\n",     // NUL inside the line end
	"\r\x00\n.\r\n",     // and inside the one before
	"\r\n.\x00\n",       // NUL in place of CR
	"\x00.\r\n",         // NUL for the end of the line before
	"\r\n.\x00",         // for that of the dot's
	"\x00.\x00",         // for both
	"\x00\n.\x00\n",     // LF with it
}

// loneDot is a line of a dot alone, whatever counts as a line end.
var loneDot = regexp.MustCompile(`[\r\n]\.[\r\n]`)

// readings are what servers may make of NUL.
var readings = []*strings.Replacer{strings.NewReplacer(), strings.NewReplacer("\x00", ""), strings.NewReplacer("\x00", "\n")}

// Whatever stands in a message, and however it is cut into pieces, no server takes a part of it for
// its end: the only line of a dot is the last. What the client, which changes no byte, cannot help is
// not taken in the first place, by whatever door.
func TestTheClientEmitsNoEndOfDataButItsOwn(t *testing.T) {
	const smuggled = "MAIL FROM:<forged@victim.test>\r\n"
	sent, refused := 0, 0
	for _, form := range endForms {
		for _, body := range []string{"hello" + form + smuggled, form + smuggled, form[1:] + smuggled, "hello" + form, form + form[1:] + form} {
			m, err := incoming.Read(strings.NewReader(body), t.TempDir(), 1<<20)
			if errors.Is(err, incoming.ErrLoneDot) {
				refused++
				continue
			} else if err != nil {
				t.Fatal(err)
			}
			m.Close()
			for i := range len(body) + 1 {
				for j := i; j <= min(i+6, len(body)); j++ {
					sent++
					wire := "\r\n" + emitted(t, body[:i], body[i:j], body[j:])
					text, whole := strings.CutSuffix(wire, "\r\n.\r\n")
					for _, r := range readings {
						if !whole || loneDot.MatchString(r.Replace(text+"\r\n")) {
							t.Fatalf("%q cut at %d and %d goes out as %q", body, i, j, wire)
						}
					}
				}
			}
		}
	}
	t.Logf("%d forms: %d messages are sent, %d not taken", len(endForms), sent, refused)
	if sent == 0 || refused == 0 {
		t.Error("the test proves nothing")
	}
}

// emitted is what a message that comes in parts looks like on its way.
func emitted(t *testing.T, parts ...string) string {
	t.Helper()
	var out bytes.Buffer
	d := newDotWriter(bufio.NewWriter(&out), func() {})
	for _, part := range parts {
		if _, err := io.WriteString(d, part); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.end(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}
