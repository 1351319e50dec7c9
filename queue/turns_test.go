package queue

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// waitingSessions has n sessions ask for a slot in a group without any left, one after the other. Each
// tells by its number that it got one, or by -1 that it did not.
func waitingSessions(t *testing.T, s *slots, n int) <-chan int {
	s.fill("g")
	got := make(chan int, n)
	for i := range n {
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), slotPatience)
			defer cancel()
			if !s.takeSoon(ctx, []string{"g"}) {
				i = -1
			}
			got <- i
		}()
		synctest.Wait()
	}
	return got
}

func TestSessionsGetSlotsInTheirTurn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, _ := newSlots(1000, 20)
		got := waitingSessions(t, s, 3)
		for want := range 2 {
			s.release("g")
			if i := <-got; i != want {
				t.Errorf("session %d has the slot of session %d", i, want)
			}
		}
		if s.take("g") {
			t.Error("a slot is there for somebody who has not waited")
		}
		if i := <-got; i != -1 {
			t.Errorf("session %d got a slot that nobody gave back", i)
		}
		s.release("g")
		s.release("g")
		if used := s.fill("g"); used != firstSlots {
			t.Errorf("%d slots are left, of %d", used, firstSlots)
		}
	})
}

// Else sessions that come and come would keep queued mail waiting for ever.
func TestEveryOtherSlotIsForQueuedMail(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, _ := newSlots(1000, 20)
		got := waitingSessions(t, s, 6)
		var order string
		for range 6 {
			s.look()
			if s.takeWaiting("g", 1000) {
				t.Fatal("queued mail has a slot that sessions had")
			}
			s.release("g")
			synctest.Wait()
			select {
			case i := <-got:
				order += fmt.Sprint(i)
			default:
				if s.look(); !s.takeWaiting("g", 1000) {
					t.Fatal("the slot that was left is not there")
				}
				order += "q"
			}
		}
		if order != "q0q1q2" {
			t.Errorf("slots went to %s", order)
		}
		for range 3 {
			<-got
		}
	})
}

// A pause ends the waiting for nobody, but no slot is given while it lasts.
func TestNoTurnInAPausedGroup(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, now := newSlots(1000, 20)
		got := waitingSessions(t, s, 1)
		s.pause("g", now.Add(time.Minute))
		s.release("g")
		if i := <-got; i != -1 {
			t.Error("a slot in a paused group")
		}
		if s.takeSoon(t.Context(), []string{"g"}) {
			t.Error("a slot at once in a paused group")
		}
	})
}

// A server that is slow one time of ten holds up those behind it unless there are more slots, though its
// fastest answers would need no more.
func TestNowAndThenSlowServerGetsMoreSlots(t *testing.T) {
	s, _ := newSlots(1000, 20)
	s.take("g")
	for i := range 200 {
		took := time.Millisecond
		if i%10 == 0 {
			took = time.Second
		}
		s.heed("g", experience{s.round("g"), took, []Outcome{taken}})
	}
	if got := s.window("g"); got != 20 {
		t.Errorf("%d slots", got)
	}
}

// A crowd is sessions and queued mail that want slots, as the scheduler and Forward ask for them.
type crowd struct {
	*slots
	now     *time.Time
	running []running
	asking  []*asking
	queued  map[string]int // recipients that wait, by group
}

type running struct {
	name  string
	round int
}

// An asking is a session that waits for a slot.
type asking struct {
	name string
	stop context.CancelFunc
	got  chan bool
}

func (c *crowd) begin(name string) {
	c.running = append(c.running, running{name, c.round(name)})
}

// ask has a session ask for a slot.
func (c *crowd) ask(name string) {
	ctx, stop := context.WithCancel(context.Background())
	a := &asking{name, stop, make(chan bool, 1)}
	c.asking = append(c.asking, a)
	go func() { a.got <- c.takeSoon(ctx, []string{name}) }()
}

// turn is what the scheduler does when it looks.
func (c *crowd) turn() {
	if left := c.look(); left > 0 {
		for _, name := range crowdNames {
			for c.queued[name] > 0 && left > 0 && c.takeWaiting(name, c.queued[name]) {
				c.queued[name]--
				left--
				c.begin(name)
			}
		}
	}
	c.serveRest()
}

// end ends an attempt.
func (c *crowd) end(i int, o Outcome) {
	r := c.running[i]
	c.running = slices.Delete(c.running, i, i+1)
	c.heed(r.name, experience{r.round, time.Second, []Outcome{o}})
	c.release(r.name)
}

// settle waits until sessions have what they get.
func (c *crowd) settle() {
	synctest.Wait()
	c.asking = slices.DeleteFunc(c.asking, func(a *asking) bool {
		select {
		case got := <-a.got:
			if a.stop(); got {
				c.begin(a.name)
			}
			return true
		default:
			return false
		}
	})
}

func (c *crowd) giveUp() {
	for _, a := range c.asking {
		a.stop()
	}
}

// check looks at what must always hold. before is how many slots groups had.
func (c *crowd) check(t *rapid.T, before map[string]int) {
	used := map[string]int{}
	for _, r := range c.running {
		used[r.name]++
	}
	waiting := map[string]int{}
	for _, a := range c.asking {
		waiting[a.name]++
	}
	if c.free+len(c.running) != c.workers {
		t.Fatalf("%d slots of %d are free and %d are used", c.free, c.workers, len(c.running))
	}
	for name, g := range c.groups {
		if g.used != used[name] || len(g.sessions) != waiting[name] || c.asked[g] != (waiting[name] > 0) {
			t.Fatalf("%s has %d slots for %d attempts, and %d of %d sessions wait", name, g.used, used[name], len(g.sessions), waiting[name])
		}
		if g.used > before[name] && g.used > int(g.window) {
			t.Fatalf("%s has got slot %d of %v", name, g.used, g.window)
		}
	}
	if len(c.asked) > len(c.groups) {
		t.Fatal("a group that is forgotten is waited for")
	}
}

var crowdNames = []string{"a", "b", "c"}

// Slots are neither lost nor made by sessions that wait and give up, no group gets more than its window,
// and when the scheduler has looked nobody waits for a slot that is there.
func TestTurnsProperty(t *testing.T) {
	bubble(t, func(t *testing.T) {
		for range 20 {
			rapid.Check(struct{ rapid.TB }{t}, checkTurns) // a *testing.T would be asked for its deadline
		}
	})
}

func checkTurns(t *rapid.T) {
	s, now := newSlots(rapid.IntRange(1, 12).Draw(t, "workers"), rapid.IntRange(1, 8).Draw(t, "perGroup"))
	c := &crowd{slots: s, now: now, queued: map[string]int{}}
	defer c.giveUp()
	name, before := rapid.SampledFrom(crowdNames), map[string]int{}
	one := func(n int, what string) int { return rapid.IntRange(0, n-1).Draw(t, what) }
	outcomes := rapid.SampledFrom([]Outcome{taken, taken, strained, later, {State: Waiting, Stop: time.Minute}})
	t.Repeat(map[string]func(*rapid.T){
		"session":   func(t *rapid.T) { c.ask(name.Draw(t, "group")) },
		"mail":      func(t *rapid.T) { c.queued[name.Draw(t, "group")] += rapid.IntRange(1, 100).Draw(t, "recipients") },
		"mail gone": func(t *rapid.T) { c.queued[name.Draw(t, "group")] = 0 },
		"turn": func(t *rapid.T) {
			c.turn()
			c.settle()
			for _, a := range c.asking {
				if g := c.groups[a.name]; c.hasRoom(g) && !g.isPaused(*now) {
					t.Fatalf("a session waits for a slot of %s, which has %d of %v, while %d of all are free", a.name, g.used, g.window, c.free)
				}
			}
		},
		"give up": func(t *rapid.T) {
			if len(c.asking) > 0 {
				c.asking[one(len(c.asking), "who")].stop()
			}
		},
		"end": func(t *rapid.T) {
			if len(c.running) > 0 {
				c.end(one(len(c.running), "which"), outcomes.Draw(t, "outcome"))
			}
		},
		"give up as it ends": func(t *rapid.T) {
			if len(c.running) > 0 && len(c.asking) > 0 {
				who, which, outcome := one(len(c.asking), "who"), one(len(c.running), "which"), outcomes.Draw(t, "outcome")
				c.asking[who].stop()
				c.end(which, outcome)
			}
		},
		"clock": func(t *rapid.T) {
			*now = now.Add(time.Duration(rapid.IntRange(0, 90).Draw(t, "seconds")) * time.Second)
		},
		"": func(t *rapid.T) {
			c.settle()
			c.check(t, before)
			clear(before)
			for _, r := range c.running {
				before[r.name]++
			}
		},
	})
	c.giveUp()
	c.settle()
	for len(c.running) > 0 {
		c.end(0, taken)
	}
	c.check(t, nil)
	if c.free != c.workers || len(c.asked) > 0 {
		t.Fatalf("at the end %d of %d slots are free", c.free, c.workers)
	}
}
