package message

import (
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
)

// TestADotBesideNULIsRefused: wherever the message is cut into pieces.
func TestADotBesideNULIsRefused(t *testing.T) {
	for text, refused := range map[string]bool{
		"a\x00.\r\nb": true, "a\x00.\x00b": true, "\r\n\x00.\r\n": true, "\x00\x00.\x00\x00": true, "\x00.": true, "\x00..\x00.\n": true,
		"a\x00b": false, "\x00\x00": false, "\x00.a\r\n": false, "\x00..\r\n": false, "\r\n.\r\n": false, "\r\n.\x00b\r\n": false, "\r\n.\x00\r\n": false, "a.\x00": false,
		"": false, ".": false, "\x00": false, "\x00\r\n.": false,
	} {
		text = "From: a@b.org\r\n\r\n" + text
		for i := range len(text) + 1 {
			for j := i; j <= min(i+3, len(text)); j++ {
				r := io.MultiReader(strings.NewReader(text[:i]), strings.NewReader(text[i:j]), strings.NewReader(text[j:]))
				for _, r := range []io.Reader{r, iotest.OneByteReader(strings.NewReader(text)), iotest.DataErrReader(strings.NewReader(text))} {
					m, err := Read(r, t.TempDir(), noLimit)
					if errors.Is(err, ErrLoneDot) != refused || err != nil && !refused {
						t.Fatalf("%q cut at %d and %d: %v", text, i, j, err)
					}
					if err == nil {
						m.Close()
					}
				}
			}
		}
	}
}

var dotBesideNUL = regexp.MustCompile(`\x00\.([\x00\r\n]|$)`)

func FuzzDotScanner(f *testing.F) {
	f.Add("a\x00.\r\n", 2)
	f.Add("\x00.\x00.", 3)
	f.Add("\x00..\r\n.\x00", 1)
	f.Fuzz(func(t *testing.T, text string, cut int) {
		cut = min(max(cut, 0), len(text))
		var s dotScanner
		found := s.scan([]byte(text[:cut]))
		found = s.scan([]byte(text[cut:])) || found
		if want := dotBesideNUL.MatchString(text); (found || s.open()) != want {
			t.Fatalf("%q cut at %d: %v", text, cut, !want)
		}
	})
}
