package message

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func without(name string) func([]byte) []byte {
	return func(header []byte) []byte {
		h, err := parse(header, MaxHeaderBytes, MaxHeaderFields)
		if err != nil {
			return header
		}
		_, rest := h.Split(name)
		return rest
	}
}

func TestFieldsLeftOut(t *testing.T) {
	body := "\r\n" + strings.Repeat("a line that is no field: X-Out: x\r\n", 10)
	for _, c := range []struct{ header, want string }{
		{"", ""},
		{"X-Out: a\r\n", ""},
		{"A: b\r\n", "A: b\r\n"},
		{"X-Out: a\r\nA: b\r\nx-OUT :\r\n c\r\n\td\r\nB:c\r\n", "A: b\r\nB:c\r\n"},
		{" begins folded\r\nX-Out: a\r\nA: b\r\n \r\n", " begins folded\r\nA: b\r\n \r\n"},
		{"no field\r\n X-Out: this belongs to it\r\nX-Out: a\r\n b\r\n", "no field\r\n X-Out: this belongs to it\r\n"},
	} {
		for _, large := range []bool{false, true} {
			text := body
			if large {
				text += strings.Repeat(text, MemoryLimit/len(body)+1)
			}
			m := take(t, []byte(c.header+text))
			if large != (m.spool.file != nil) {
				t.Fatal("not where it should be")
			}
			m.LeaveOut(without("X-Out"))
			m.Prepend("First: x\r\n")
			want := "First: x\r\n" + c.want + text
			if strings.HasPrefix(c.header, " ") {
				want = "First: x\r\n" + Separator + c.want + text
			}
			if got := all(t, m.Reader()); got != want || m.Size() != int64(len(want)) {
				t.Errorf("%q: %d bytes, said to be %d, not %d: %.300q", c.header, len(got), m.Size(), len(want), got)
			}
			if got := all(t, m.Original()); got != c.header+text || string(m.Header.Raw()) != c.header {
				t.Errorf("%q: the original is now %.300q", c.header, got)
			}
		}
	}
}

// Whatever a header is made of, Split loses nothing and changes nothing.
func TestSplitKeepsEveryByte(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lines := rapid.SliceOfN(rapid.SampledFrom([]string{"X-Out: a\r\n", "x-out:\r\n", " folded\r\n", "\t\r\n", "A: b\r\n", "no field\r\n", ": \r\n", "x\n", "X-Out"}), 0, 20).Draw(t, "lines")
		checkSplit(t, []byte(strings.Join(lines, "")))
	})
}

func checkSplit(t rapid.TB, raw []byte) {
	h, err := ParseHeader(raw)
	if err != nil {
		return
	}
	fields, rest := h.Split("X-Out")
	if len(fields)+len(rest) != len(raw) {
		t.Fatalf("%q and %q are not %q", fields, rest, raw)
	}
	if !h.Has("X-Out") && !bytes.Equal(rest, raw) {
		t.Fatalf("%q becomes %q with nothing to leave out", raw, rest)
	}
	left, err := ParseHeader(rest)
	if err != nil || left.Has("X-Out") && !bytes.HasSuffix(raw, []byte("\n")) {
		return // a last line without an end takes in what comes to stand behind it
	}
	if left.Has("X-Out") {
		t.Fatalf("%q still has the field: %q", raw, rest)
	}
}

func FuzzSplit(f *testing.F) {
	for _, s := range []string{"", "X-Out: a\r\nA: b\r\n", " x\r\nX-Out:a\r\n b\r\nno field\r\n", "X-Out", "X-Out: a\nX-Out:b", "A: b\r\n\r\nX-Out: c\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) { checkSplit(t, raw) })
}
