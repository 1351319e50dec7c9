package message

import (
	"bytes"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func parsed(t testing.TB, raw string) Header {
	t.Helper()
	h, err := ParseHeader([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestValues(t *testing.T) {
	h := parsed(t, "Subject: one\r\nX: a\r\n\tb\r\n  c\r\nsubject :two \r\ngarbage\r\n\tno part of anything\r\n"+
		": nameless\r\nW\xfc: 8-bit name\r\nA b: a blank in the name\r\nEmpty:\r\nSUBJECT:\r\n three\r\nNo-End: x")
	tests := []struct {
		name string
		want []string
	}{
		{"Subject", []string{"one", "two", "three"}},
		{"x", []string{"a\tb  c"}},
		{"Empty", []string{""}},
		{"No-End", []string{"x"}},
		{"W\xfc", nil},
		{"A b", nil},
		{"", nil},
		{"garbage", nil},
	}
	for _, tt := range tests {
		got := h.Values(tt.name)
		if !slices.Equal(got, tt.want) || h.Count(tt.name) != len(tt.want) || h.Has(tt.name) != (len(tt.want) > 0) {
			t.Errorf("%s: %q, %d, %v", tt.name, got, h.Count(tt.name), h.Has(tt.name))
		}
		if first := append(tt.want, "")[0]; h.Get(tt.name) != first {
			t.Errorf("Get(%s) = %q", tt.name, h.Get(tt.name))
		}
	}
	if h.ASCII() || !parsed(t, "A: b\r\n").ASCII() {
		t.Error("ASCII is wrong")
	}
	var zero Header
	if zero.Has("A") || zero.Get("A") != "" || len(zero.SignedNames()) > 0 || !zero.ASCII() || zero.Raw() != nil {
		t.Error("the zero Header has something")
	}
}

// Some letters are ASCII in lower case, and would make a second name for a field.
func TestNamesAreASCII(t *testing.T) {
	if parsed(t, "\u212aeep: x\r\n").Has("Keep") {
		t.Error("a field with a Kelvin sign counts as one with a K")
	}
}

func TestSignedNames(t *testing.T) {
	tests := []struct {
		name, raw string
		want      []string
	}{
		{"none", "From: a@b\r\n", nil},
		{"plain", "DKIM-Signature: v=1; h=From:To; b=x=\r\n", []string{"from", "to"}},
		{"folded", "DKIM-Signature: v=1; h=From\r\n\t: To:\r\n Message-ID ;\r\n b=\r\n", []string{"from", "to", "message-id"}},
		{"spaces around the tag", "DKIM-Signature: v=1;\r\n\th = From\r\n", []string{"from"}},
		{"two signatures", "DKIM-Signature: h=A\r\nX: y\r\ndkim-signature: h=B\r\n", []string{"a", "b"}},
		{"over-signed", "DKIM-Signature: h=from:from:date\r\n", []string{"from", "date"}},
		{"ARC", "ARC-Message-Signature: i=1; h=delivered-to\r\n", []string{"delivered-to"}},
		{"other tags", "DKIM-Signature: bh=h=no; hh=no; z=no; H=no\r\n", nil},
		{"no field", "X-DKIM-Signature: h=no\r\n", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := parsed(t, tt.raw).SignedNames()
			for _, name := range tt.want {
				if !got[name] {
					t.Errorf("%s is missing in %v", name, got)
				}
			}
			if len(got) != len(tt.want) {
				t.Errorf("%v", got)
			}
		})
	}
}

// bombs are headers at the bounds of what Read takes, made to be costly.
func bombs() map[string]string {
	fill := func(one string, n int) string { return strings.Repeat(one, min(n, MaxHeaderBytes/len(one))) }
	var names strings.Builder
	for i := 0; names.Len() < MaxHeaderBytes-100; i++ {
		names.WriteString(strings.Repeat("x", 1+i%5) + string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676%26)) + ":")
	}
	return map[string]string{
		"1000 fields":        fill("From:"+strings.Repeat("x", 250)+"\r\n", MaxHeaderFields),
		"folded":             "From:\r\n" + fill(" \r\n", MaxHeaderBytes)[:MaxHeaderBytes-9] + "\r\n",
		"garbage":            fill("x\r\n", MaxHeaderBytes),
		"line ends":          "A:" + fill("\n", MaxHeaderBytes-4) + "\r\n",
		"signatures":         fill("DKIM-Signature:h="+strings.Repeat("a:", 100)+"\r\n", MaxHeaderFields),
		"one long signature": "DKIM-Signature: h=" + names.String() + "\r\n",
		"tags":               "DKIM-Signature: " + fill("h;", MaxHeaderBytes)[:MaxHeaderBytes-30] + "\r\n",
		"comments":           "From: " + fill("(", maxFrom)[:maxFrom-10] + "\r\n",
		"groups":             "From: " + fill("a:", maxFrom/2-10) + "\r\n",
		"commas":             "From: " + fill(",", maxFrom-10) + "\r\n",
		"quotes":             "From: " + fill("\"a\" ", maxFrom/4-10) + "\r\n",
		"literal":            "From: a@[" + fill("a", maxFrom-20) + "\r\n",
		"encoded words":      "From: " + fill("=?x?q?a?= ", maxFrom/10-10) + "\r\n",
	}
}

// Memory is what a bomb can exhaust without taking long; it is counted, time is not.
func TestHeaderBombsCostLittle(t *testing.T) {
	for name, raw := range bombs() {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			h := parsed(t, raw)
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 16*MaxHeaderBytes {
				t.Errorf("parsing takes %d bytes", n)
			}
			if n := testing.AllocsPerRun(10, func() { h.SignedNames(); h.Count("From"); h.Has("From"); h.Get("Date") }); n > 4 {
				t.Errorf("looking for fields allocates %v times", n)
			}
			h.From()
		})
	}
}

func BenchmarkHeaderBombs(b *testing.B) {
	for name, raw := range bombs() {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				h := parsed(b, raw)
				h.From()
				h.SignedNames()
				h.Values("Received")
			}
		})
	}
}

func FuzzReadHeader(f *testing.F) {
	for _, s := range []string{
		"From: a@b.org\r\nTo: c\r\n\r\nbody", "\r\n", "", " x\r\nA:b", "A:\r\n b\r\nA :c\r\n\r\n\r\n", "a\nb:\nc\r\n\r\n",
		"DKIM-Signature: v=1; h=from : to;\r\n\tb=x\r\n\r\n", "From: g: a@b;\r\n", "From: \"x\\\" <a@b>\r\n", ":\r\n\x00:\r\n",
		"From: =?utf-8?b?!!?= <a@[IPv6:::1]>\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		h, err := ReadHeader(bytes.NewReader(raw))
		if err != nil {
			return
		}
		if !bytes.HasPrefix(raw, h.Raw()) || bytes.Contains(h.Raw(), []byte("\r\n\r\n")) {
			t.Fatalf("%q has the header %q", raw, h.Raw())
		}
		before := 0
		for _, field := range h.fields {
			if field.start < before || field.end <= field.start {
				t.Fatalf("field %+v in %q", field, raw)
			}
			before = field.end
			if got := len(h.Values(field.name)); got == 0 || got != h.Count(field.name) || !h.Has(field.name) {
				t.Fatalf("%q is there %d times", field.name, got)
			}
		}
		if a, err := h.From(); err == nil && (a.IsNull() || h.Count("From") != 1) {
			t.Fatalf("From of %q is %v", raw, a)
		}
		m, err := Read(bytes.NewReader(raw), "", noLimit)
		if errors.Is(err, ErrLoneDot) && bytes.Contains(raw, nulDot) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if !bytes.Equal(m.Header.Raw(), h.Raw()) {
			t.Fatalf("Read finds the header %q, ReadHeader %q", m.Header.Raw(), h.Raw())
		}
		m.Prepend("X-First: 1\r\n")
		again, err := ReadHeader(m.Reader())
		if err != nil || again.Get("X-First") != "1" || len(again.fields) < len(h.fields)+1 {
			t.Fatalf("%q with a field in front is read as %q, %v", raw, again.Raw(), err)
		}
	})
}
