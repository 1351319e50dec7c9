package delivery

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"relayd/internal/sink"
)

// A limit on domains is the session's, not the transaction's: a kept connection is for those whose
// domains were named on it.
func TestDomainsPerConnection(t *testing.T) {
	both(t, func(t *testing.T, without []string) {
		offer := "250-PIPELINING\n250 LIMITS RCPTDOMAINMAX=2"
		if without != nil {
			offer = "250 limits rcptdomainmax=2"
		}
		s := startSink(t, sink.Options{Without: without, Reply: ehlo(offer)})
		w := newWorld()
		w.host("smart.test", "192.0.2.1", s)
		c := w.client(t, nil)
		route := Route{Domain: "a.test", Hosts: []string{"smart.test"}}
		m := message(text, "1@a.test", "1@b.test", "1@c.test", "2@a.test", "1@d.test", "2@c.test")
		if got := codes(c.Deliver(t.Context(), route, m)); got != "250 250 250 250 250 250" {
			t.Fatal(got)
		}
		var rcpts []string
		for _, m := range s.Messages() {
			rcpts = append(rcpts, strings.Join(m.Rcpts, " "))
		}
		if want := []string{"1@a.test 1@b.test 2@a.test", "1@c.test 1@d.test 2@c.test"}; !slices.Equal(rcpts, want) || s.Connections() != 2 {
			t.Errorf("%q over %d connections", rcpts, s.Connections())
		}
		for _, rcpt := range []string{"3@a.test", "3@d.test", "3@b.test", "3@c.test"} {
			c.Deliver(t.Context(), route, message(text, rcpt))
		}
		if s.Connections() != 2 {
			t.Errorf("%d connections where two would do", s.Connections())
		}
		if got := codes(c.Deliver(t.Context(), route, message(text, "1@e.test"))); got != "250" || s.Connections() != 3 {
			t.Errorf("%s over %d connections", got, s.Connections())
		}
	})
}

// Whom a server finds too many in a transaction is for the next connection when this one is used up.
func TestTooManyForTheLastTransaction(t *testing.T) {
	both(t, func(t *testing.T, without []string) {
		no := fewer(2, "452 4.5.3 too many")
		offer := ehlo("250-PIPELINING\n250 LIMITS MAILMAX=1")
		if without != nil {
			offer = ehlo("250 LIMITS MAILMAX=1")
		}
		s, c := one(t, sink.Options{Without: without, Reply: func(stage, arg string, nth int) string {
			if answer := offer(stage, arg, nth); answer != "" {
				return answer
			}
			return no(stage, arg, nth)
		}})
		if got := codes(c.Deliver(t.Context(), example, message(text, addresses(5)...))); strings.Count(got, "250") != 5 {
			t.Error(got)
		}
		if s.Count() != 3 || s.Connections() != 3 {
			t.Errorf("%d transactions over %d connections", s.Count(), s.Connections())
		}
	})
}

func TestServerThatTakesOneRecipientAtATime(t *testing.T) {
	s, c := one(t, sink.Options{Discard: true, Reply: fewer(1, "452 4.5.3 one is enough")})
	results := c.Deliver(t.Context(), example, message(text, addresses(maxTransactions+50)...))
	if got := codes(results); strings.Count(got, "250") != maxTransactions || strings.Count(got, "451") != 50 {
		t.Error(got)
	}
	if s.Count() != maxTransactions || s.Connections() > maxTransactions/DefaultTimes().Messages+1 {
		t.Errorf("%d transactions over %d connections", s.Count(), s.Connections())
	}
}

// TestAnyLimits: whatever a server says it takes, everybody is delivered to once and no limit is
// passed.
func TestAnyLimits(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := conformist{
			mailMax:   rapid.IntRange(0, 3).Draw(rt, "MAILMAX"),
			rcptMax:   rapid.IntRange(0, 3).Draw(rt, "RCPTMAX"),
			domainMax: rapid.IntRange(0, 3).Draw(rt, "RCPTDOMAINMAX"),
		}
		rcpts := rapid.SliceOfN(rapid.StringMatching(`[a-e]@[f-j]\.test`), 1, 12).Draw(rt, "recipients")
		a := &attempt{message: message(text, rcpts...), results: make([]Result, len(rcpts))}
		for n := 0; len(a.undecided()) > 0; n++ {
			if n > len(rcpts) {
				rt.Fatal("connections do not help")
			}
			if err := s.connect(rt, a); err != nil {
				rt.Fatal(err)
			}
		}
		if strings.Count(codes(a.results), "250") != len(rcpts) || s.named != len(rcpts) {
			rt.Fatalf("%d named: %s", s.named, codes(a.results))
		}
	})
}

// A conformist is a server that takes everything within its limits, of which 0 is none.
type conformist struct {
	mailMax, rcptMax, domainMax int
	named                       int // recipients
}

// connect lets one session send, and looks at what it sent.
func (c *conformist) connect(t *rapid.T, a *attempt) error {
	conn := &scripted{}
	session := conn.session("PIPELINING")
	var limits []string
	for name, n := range map[string]int{"MAILMAX": c.mailMax, "RCPTMAX": c.rcptMax, "RCPTDOMAINMAX": c.domainMax} {
		if n > 0 {
			limits = append(limits, name+"="+string(rune('0'+n)))
		}
	}
	session.ext["LIMITS"] = strings.Join(limits, " ")
	conn.answer = func(line string) string {
		switch {
		case line == "DATA":
			return "354 go"
		case line == "." || strings.HasPrefix(line, "MAIL") || strings.HasPrefix(line, "RCPT") || line == "RSET":
			return "250 ok"
		}
		return ""
	}
	err := session.send(a)
	mails, rcpts, domains := 0, 0, map[string]bool{}
	for line := range strings.SplitSeq(conn.sent.String(), "\r\n") {
		switch {
		case strings.HasPrefix(line, "MAIL"):
			mails, rcpts = mails+1, 0
		case strings.HasPrefix(line, "RCPT"):
			rcpts++
			c.named++
			domains[line[strings.IndexByte(line, '@'):]] = true
		}
		if c.mailMax > 0 && mails > c.mailMax || c.rcptMax > 0 && rcpts > c.rcptMax || c.domainMax > 0 && len(domains) > c.domainMax {
			t.Fatalf("past the limits %q: %q", session.ext["LIMITS"], conn.sent.String())
		}
	}
	return err
}

// A server may count the recipients only when it has them all: then fewer are named at once, until it
// takes them, and whoever is alone is told what it says.
func TestTooManyIsSaidLate(t *testing.T) {
	both(t, func(t *testing.T, without []string) {
		for _, stage := range []string{"data", "dot"} {
			for most, want := range map[int]struct {
				codes    string
				messages []int // recipients of each
			}{
				3: {"250 250 250 250 250 250 250 250 250", []int{2, 2, 2, 2, 1}},
				1: {"250 250 250 250 250 250 250 250 250", []int{1, 1, 1, 1, 1, 1, 1, 1, 1}},
				0: {"452 452 452 452 452 452 452 452 452", nil},
			} {
				var mu sync.Mutex
				named := 0
				s, c := one(t, sink.Options{Without: without, Reply: func(at, _ string, _ int) string {
					mu.Lock()
					defer mu.Unlock()
					switch at {
					case "mail":
						named = 0
					case "rcpt":
						named++
					case stage:
						if named > most {
							return "452 4.5.3 too many recipients"
						}
					}
					return ""
				}})
				got := codes(c.Deliver(t.Context(), example, message(text, addresses(9)...)))
				var sizes []int
				for _, m := range s.Messages() {
					sizes = append(sizes, len(m.Rcpts))
				}
				if got != want.codes || !slices.Equal(sizes, want.messages) || s.Connections() != 1 {
					t.Errorf("%d, said at %s: %s in messages of %d over %d connections", most, stage, got, sizes, s.Connections())
				}
			}
		}
	})
}
