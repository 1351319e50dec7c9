package reply

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestFrom(t *testing.T) {
	refused := New(550, "5.1.1", "No such address")
	tests := []struct {
		name string
		err  error
		want *Reply // nil: Internal with err as its cause
	}{
		{"a reply", refused, refused},
		{"wrapped", fmt.Errorf("asking: %w", refused), refused},
		{"wrapped twice", fmt.Errorf("a: %w", fmt.Errorf("b: %w", refused)), refused},
		{"joined", errors.Join(io.EOF, refused), refused},
		{"the outer of two", New(451, "4.3.0", "Later").Because(refused), nil},
		{"any other error", io.EOF, nil},
		{"a nil reply in an error", (*Reply)(nil), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := From(tt.err)
			switch {
			case tt.want != nil && got != tt.want:
				t.Errorf("%v became %v", tt.err, got)
			case tt.want == nil && (got == nil || got.Code != 451 || got.Enhanced != "4.3.0"):
				t.Errorf("%v became %v", tt.name, got)
			}
		})
	}
	if From(nil) != nil {
		t.Error("no error became a reply")
	}
}

func TestInternalTellsTheLogAlone(t *testing.T) {
	r := From(fmt.Errorf("opening /var/lib/secret: %w", io.ErrUnexpectedEOF))
	if strings.Contains(r.String(), "secret") || !strings.Contains(r.Error(), "secret") {
		t.Errorf("sent %q, logged %q", r, r.Error())
	}
	if !errors.Is(r, io.ErrUnexpectedEOF) {
		t.Error("the cause is lost")
	}
}

func TestBecauseLeavesTheReplyAlone(t *testing.T) {
	shared := New(451, "4.3.0", "Later")
	if r := shared.Because(io.EOF); r == shared || shared.Cause != nil || r.Cause != io.EOF {
		t.Errorf("%v, %v", shared.Cause, r.Cause)
	}
}

func TestString(t *testing.T) {
	tests := []struct {
		r    *Reply
		want string
	}{
		{New(250, "2.0.0", "Ok: queued as %s", "ID"), "250 2.0.0 Ok: queued as ID"},
		{New(354, "", "Go"), "354 Go"},
		{New(550, "5.7.1", "two\r\nlines\n\n and  more "), "550 5.7.1 two lines and more"},
		{New(550, "5.7.1", "%s", "\x1b[2J\x00red\u009b"), "550 5.7.1 ?[2J?red?"},
		{New(550, "5.7.1", "größer"), "550 5.7.1 größer"},
	}
	for _, tt := range tests {
		if got := tt.r.String(); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}

func TestClasses(t *testing.T) {
	for code, want := range map[int][3]bool{
		220: {true, false, false}, 354: {true, false, false}, 421: {false, true, false}, 550: {false, false, true},
	} {
		r := New(code, "", "x")
		if got := [3]bool{r.Positive(), r.Temporary(), r.Permanent()}; got != want {
			t.Errorf("%d: %v", code, got)
		}
	}
}

func TestSplitEnhanced(t *testing.T) {
	tests := []struct {
		code           int
		text           string
		enhanced, rest string
	}{
		{550, "5.1.1 No such user", "5.1.1", "No such user"},
		{250, "2.0.0", "2.0.0", ""},
		{421, "4.7.28  two blanks", "4.7.28", " two blanks"},
		{550, "5.1.351 x", "5.1.351", "x"},
		{550, "4.1.1 wrong class", "", "4.1.1 wrong class"},
		{354, "3.5.4 no such class", "", "3.5.4 no such class"},
		{550, "5.1.1: x", "", "5.1.1: x"},
		{550, "5.1 x", "", "5.1 x"},
		{550, "5.1.1.1 x", "", "5.1.1.1 x"},
		{550, "5.1.1000 x", "", "5.1.1000 x"},
		{550, "5..1 x", "", "5..1 x"},
		{550, "5.-1.1 x", "", "5.-1.1 x"},
		{550, "55.1.1 x", "", "55.1.1 x"},
		{550, "No such user", "", "No such user"},
		{550, " 5.1.1 x", "", " 5.1.1 x"},
		{550, "", "", ""},
		{550, "192.0.2 x", "", "192.0.2 x"},
		{0, "0.1.1 x", "", "0.1.1 x"},
	}
	for _, tt := range tests {
		if e, r := SplitEnhanced(tt.code, tt.text); e != tt.enhanced || r != tt.rest {
			t.Errorf("SplitEnhanced(%d, %q) = %q, %q", tt.code, tt.text, e, r)
		}
	}
}

func FuzzSplitEnhanced(f *testing.F) {
	f.Add(550, "5.1.1 x")
	f.Add(421, "4.7.28")
	f.Add(250, "2.0.0 Ok 5.1.1")
	f.Add(-500, "-5.1.1 x")
	f.Add(550, "5."+strings.Repeat(".", 100))
	f.Fuzz(func(t *testing.T, code int, text string) {
		enhanced, rest := SplitEnhanced(code, text)
		switch {
		case enhanced == "" && rest != text:
			t.Fatalf("%q lost something: %q", text, rest)
		case enhanced != "" && enhanced+" "+rest != text && enhanced+rest != text:
			t.Fatalf("%q became %q and %q", text, enhanced, rest)
		case enhanced != "" && (strings.Count(enhanced, ".") != 2 || len(enhanced) > len("5.123.123") || enhanced[0] != byte('0'+code/100)):
			t.Fatalf("%d %q has the code %q", code, text, enhanced)
		}
		if line := New(550, "5.0.0", "%s", text).String(); strings.ContainsAny(line, "\r\n\x00\x1b") {
			t.Fatalf("%q is not one line of text", line)
		}
	})
}
