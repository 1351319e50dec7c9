package domains

import "testing"

func TestCycleTakesBackOnlyWhatIsNew(t *testing.T) {
	h := newHost(t)
	h.write("a.example/aliases", "x: y@b.example\n")
	h.write("b.example/aliases", "y: me@else.example\n")
	h.write("c.example/aliases", "z: x@a.example\n")
	s := h.open()
	h.wantProblems(s.Problems())

	h.write("b.example/aliases", "y: x@a.example\nnew: n@else.example\n")
	h.write("c.example/aliases", "z: z@else.example\n")
	h.log.Reset()
	s.Reload()
	for range 2 {
		h.wantProblems(s.Problems(), "b.example/aliases:1: mail would go in a circle")
		h.wantLeads(s, "x@a.example", "me@else.example")
		h.wantLeads(s, "y@b.example", "me@else.example")
		h.wantLeads(s, "new@b.example", "550")
		h.wantLeads(s, "z@c.example", "z@else.example")
		s = h.open()
	}

	h.write("a.example/aliases", "x: me@else.example\n")
	h.wantProblems(s.Reload())
	h.wantLeads(s, "y@b.example", "me@else.example")
	h.wantLeads(s, "new@b.example", "n@else.example")
}

func TestCycleThroughANewDomain(t *testing.T) {
	h := newHost(t)
	h.write("a.example/aliases", "x: y@b.example\nq: q@else.example\n")
	s := h.open()
	h.write("b.example/aliases", "y: x@a.example\nz: z@else.example\n")
	s.Reload()
	for range 2 {
		h.wantProblems(s.Problems(), "b.example/aliases:1: mail would go in a circle")
		h.wantLeads(s, "z@b.example", "451")
		h.wantLeads(s, "q@a.example", "q@else.example")
		h.wantProblems(s.Warnings(), "a.example: no DKIM key", "b.example: no DKIM key")
		s = h.open()
	}
	h.write("b.example/aliases", "y: y@else.example\nz: z@else.example\n")
	h.wantProblems(s.Reload())
	h.wantLeads(s, "x@a.example", "y@else.example")
}

func TestCycleFromTheStart(t *testing.T) {
	h := newHost(t)
	h.write("a.example/aliases", "x: y@b.example\n")
	h.write("b.example/aliases", "y: x@a.example\n")
	h.write("c.example/aliases", "z: me@else.example\n")
	s := h.open()
	h.wantProblems(s.Problems(), "a.example/aliases:1", "b.example/aliases:1")
	h.wantLeads(s, "x@a.example", "451")
	h.wantLeads(s, "y@b.example", "451")
	h.wantLeads(s, "z@c.example", "me@else.example")
}

// Settings decide which rule takes an address, so two alias files that were good can make a cycle
// when neither has changed. Their texts are still the last good ones afterwards.
func TestCycleMadeBySettings(t *testing.T) {
	h := newHost(t)
	h.write("a.example/aliases", "x: y-1@b.example\n")
	h.write("b.example/aliases", "y: x@a.example\n*: me@else.example\n")
	h.write("b.example/domain.toml", "suffix_separators = \"+\"\n")
	s := h.open()
	h.wantProblems(s.Problems())
	h.write("b.example/domain.toml", "suffix_separators = \"-\"\n")
	h.wantProblems(s.Reload(), "a.example/aliases:1", "b.example/aliases:1")
	h.wantLeads(s, "x@a.example", "451")
	h.write("a.example/aliases", "broken\n")
	h.write("b.example/domain.toml", "suffix_separators = \"+\"\n")
	h.wantProblems(s.Reload(), "a.example/aliases:1")
	h.wantLeads(s, "x@a.example", "me@else.example")
}
