package domains

import (
	"strings"
	"testing"
)

func TestKeyRotation(t *testing.T) {
	type step struct {
		what   string
		change func(*host)
		want   string // selectors, "" when unsigned, "451" when unavailable
		says   []string
	}
	add := func(name, text string) func(*host) {
		return func(h *host) { h.write("a.example/dkim/"+name, text) }
	}
	remove := func(name string) func(*host) { return func(h *host) { h.remove("a.example/" + name) } }
	tests := map[string][]step{
		"one after the other": {
			{"the first", add("s1.pem", pem1()), "s1", nil},
			{"a second", add("s2.pem", pem2()), "s1 s2", nil},
			{"the first retired", remove("dkim/s1.pem"), "s2", nil},
			{"the last removed", remove("dkim/s2.pem"), "s2", []string{"dkim/s2.pem: the last key is gone"}},
			{"a new one", add("s3.pem", pem1()), "s3", nil},
		},
		"the folder removed": {
			{"two keys", func(h *host) { add("s1.pem", pem1())(h); add("s2.pem", pem2())(h) }, "s1 s2", nil},
			{"gone", remove("dkim"), "s1 s2", []string{"s1.pem", "s2.pem"}},
			{"a file in its place", func(h *host) { h.write("a.example/dkim", "") }, "s1 s2", []string{"dkim: the folder of the keys", "s1.pem", "s2.pem"}},
			{"back again", func(h *host) { h.remove("a.example/dkim"); add("s1.pem", pem1())(h) }, "s1", nil},
		},
		"a broken key": {
			{"good", add("s1.pem", pem1()), "s1", nil},
			{"broken", add("s1.pem", "x"), "s1", []string{"s1.pem:1: no PEM"}},
			{"replaced", add("s1.pem", pem2()), "s1", nil},
			{"a broken one beside it", add("s2.pem", pem1()[:50]), "s1", []string{"s2.pem"}},
			{"mended", add("s2.pem", pem1()), "s1 s2", nil},
		},
		"a broken key replaces the last good one": {
			{"good", add("s1.pem", pem1()), "s1", nil},
			{"broken", func(h *host) { h.remove("a.example/dkim/s1.pem"); add("s2.pem", "x")(h) }, "s1", []string{"s1.pem: the last key is gone", "s2.pem:1: no PEM"}},
			{"mended", add("s2.pem", pem2()), "s2", nil},
		},
		"never good": {
			{"broken from the start", add("s1.pem", "x"), "451", []string{"s1.pem:1: no PEM"}},
			{"a good one beside it", add("s2.pem", pem2()), "451", []string{"s1.pem:1: no PEM"}},
			{"only the good one", remove("dkim/s1.pem"), "s2", nil},
			{"broken again", add("s1.pem", "x"), "s2", []string{"s1.pem:1: no PEM"}},
		},
		"the folder is none": {
			{"a file", func(h *host) { h.write("a.example/dkim", "") }, "451", []string{"dkim: the folder of the keys"}},
		},
		"one selector twice": {
			{"in two cases", func(h *host) { add("S1.pem", pem1())(h); add("s1.pem", pem2())(h) }, "s1", []string{"s1.pem: there is another key"}},
		},
		"what is no key": {
			{"left alone", func(h *host) { add(".s1.pem", "x")(h); add("s1.pem.bak", "x")(h); add("notes", "x")(h) }, "", nil},
		},
	}
	for name, steps := range tests {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			var s *Store
			if name != "never good" {
				h.write("a.example/aliases", "x: y@else.example\n")
			}
			s = h.open()
			for _, step := range steps {
				step.change(h)
				s.Reload()
				for _, when := range []string{step.what, step.what + ", after a restart"} {
					got := selectors(s, "a.example")
					if s.Current().Get("a.example").Broken != nil {
						got = "451"
					}
					if got != step.want {
						t.Errorf("%s: %q, want %q", when, got, step.want)
					}
					h.wantProblems(s.Problems(), step.says...)
					s = h.open()
				}
			}
		})
	}
}

func TestKeyWarnings(t *testing.T) {
	h := newHost(t)
	h.write("a.example/aliases", "")
	s := h.open()
	h.wantProblems(s.Warnings(), "a.example: no DKIM key, so mail from a.example goes out unsigned: make one with `relay-util dkim-keygen a.example`")
	h.write("a.example/dkim/s1.pem", pem1())
	s.Reload()
	h.wantProblems(s.Warnings())
	if strings.Contains(h.log.String(), "PRIVATE KEY") {
		t.Error("a key stands in the log")
	}
}
