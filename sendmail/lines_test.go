package sendmail

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestLines(t *testing.T) {
	for _, c := range []struct {
		name, in, want string
		dot            bool
	}{
		{"nothing", "", "", true},
		{"LF", "a\nb\n", "a\r\nb\r\n", false},
		{"CR LF stays", "a\r\nb\r\n", "a\r\nb\r\n", false},
		{"converted twice", "a\r\r\nb\r\r\r\n", "a\r\nb\r\n", false},
		{"no end", "a", "a\r\n", false},
		{"a CR at the end", "a\r", "a\r\n", false},
		{"a CR in the header", "Subject: x\rBcc: y\n\n", "Subject: x Bcc: y\r\n\r\n", false},
		{"a CR in the body", "S: x\n\n10%\r20%\r100%\n", "S: x\r\n\r\n10%\r\n20%\r\n100%\r\n", false},
		{"a dot", "a\n.\nb\n", "a\r\n", true},
		{"a dot with CR LF", "a\r\n.\r\nb\n", "a\r\n", true},
		{"a dot at once", ".\nb\n", "", true},
		{"a dot at the end", "a\n.", "a\r\n", true},
		{"a dot and CR at the end", "a\n.\r", "a\r\n", true},
		{"dots that end nothing", "..\n.b\n. \n.\rx\n", "..\r\n.b\r\n. \r\n. x\r\n", true},
		{"a dot that is kept", "a\n.\nb\n", "a\r\n.\r\nb\r\n", false},
	} {
		for way, r := range map[string]io.Reader{"whole": strings.NewReader(c.in), "bytes": iotest.OneByteReader(strings.NewReader(c.in))} {
			got, err := io.ReadAll(Lines(r, c.dot))
			if err != nil || string(got) != c.want {
				t.Errorf("%s, %s: %q %v, want %q", c.name, way, got, err, c.want)
			}
		}
	}
	if _, err := io.ReadAll(Lines(iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("abc"))), true)); err != iotest.ErrTimeout {
		t.Errorf("an error of the reader becomes %v", err)
	}
}

// TestDotIsSeenAtATerminal: nothing comes behind the line that ends the message, nor does the end.
func TestDotIsSeenAtATerminal(t *testing.T) {
	r, w := io.Pipe()
	go w.Write([]byte("hi\n.\n"))
	if got, err := io.ReadAll(Lines(r, true)); err != nil || string(got) != "hi\r\n" {
		t.Errorf("%q %v", got, err)
	}
}

func FuzzLines(f *testing.F) {
	f.Add("a\r\r\n\rb\n.\n", true)
	f.Add("S: x\n\n\r.\r\n\r", false)
	f.Fuzz(func(t *testing.T, text string, dot bool) {
		got, err := io.ReadAll(Lines(strings.NewReader(text), dot))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.ReplaceAll(string(got), "\r\n", "\n")
		if strings.Contains(lines, "\r") || strings.Count(lines, "\n") != strings.Count(string(got), "\n") {
			t.Fatalf("%q has a bare CR or LF", got)
		}
		again, err := io.ReadAll(Lines(strings.NewReader(string(got)), false))
		if err != nil || string(again) != string(got) {
			t.Fatalf("%q becomes %q %v the second time", got, again, err)
		}
	})
}
