package queue

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// strained is the outcome of an attempt at a server that has enough.
var strained = Outcome{State: Waiting, Strained: true}

// newSlots are slots whose clock is the pointer's.
func newSlots(workers, perGroup int) (*slots, *time.Time) {
	now := start
	s := new(slots)
	s.init(workers, perGroup, func() time.Time { return now })
	return s, &now
}

// fill takes all slots that the group gets and returns how many.
func (s *slots) fill(name string) (n int) {
	for s.take(name) {
		n++
	}
	return n
}

func (s *slots) window(name string) int {
	for _, g := range s.status() {
		if g.Name == name {
			return g.Window
		}
	}
	return 0
}

// one makes an attempt from begin to end.
func (s *slots) one(t *testing.T, name string, o Outcome) {
	t.Helper()
	if !s.take(name) {
		t.Fatal("no slot")
	}
	s.heed(name, experience{s.round(name), time.Second, []Outcome{o}})
	s.release(name)
}

func TestWindowGrowsWithSuccess(t *testing.T) {
	s, _ := newSlots(1000, 20)
	var windows []int
	for range 20 {
		s.one(t, "g", taken)
		windows = append(windows, s.window("g"))
	}
	if want := []int{3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 20, 20}; !slices.Equal(windows, want) {
		t.Errorf("before any strain: %v", windows)
	}
	s.one(t, "g", strained)
	windows = windows[:0]
	for range 24 {
		s.one(t, "g", taken)
		windows = append(windows, s.window("g"))
	}
	if windows[9] != 10 || windows[10] != 11 || windows[23] != 12 { // 10 and a bit, 11 and a bit
		t.Errorf("after strain at 20: %v", windows)
	}
}

// A connection for queued mail has some messages to carry; forwarded mail is not asked how many.
func TestSlotsOfQueuedMailGoByWhatWaits(t *testing.T) {
	s, _ := newSlots(1000, 20)
	for range 18 {
		s.one(t, "g", taken)
	}
	for waiting, want := range map[int]int{1: 2, 74: 2, 75: 3, 200: 8, 500: 20, 5000: 20} {
		n := 0
		for s.takeWaiting("g", waiting) {
			n++
		}
		if n != want {
			t.Errorf("%d slots while %d wait, want %d", n, waiting, want)
		}
		for range n {
			s.release("g")
		}
	}
	if n := s.fill("g"); n != 20 {
		t.Errorf("%d slots for forwarded mail", n)
	}
}

func TestWhatSaysNothingChangesNothing(t *testing.T) {
	s, _ := newSlots(1000, 20)
	for _, o := range []Outcome{later, gone, onHold, {}} {
		if s.one(t, "g", o); s.window("g") != 0 {
			t.Errorf("%+v is remembered", o)
		}
	}
	s.one(t, "g", Outcome{Into: []Recipient{{}}})
	if s.window("g") != 3 {
		t.Error("an alias that was resolved is no success")
	}
	s.take("g")
	s.heed("g", experience{s.round("g"), time.Second, []Outcome{taken, strained, taken}})
	if s.window("g") != 1 {
		t.Error("strain for one of several is no strain")
	}
}

// Sixteen attempts that a server drops at the same moment tell one thing.
func TestWindowIsHalvedOncePerRound(t *testing.T) {
	s, _ := newSlots(1000, 16)
	for range 20 {
		s.one(t, "g", taken)
	}
	if n := s.fill("g"); n != 16 {
		t.Fatalf("%d slots", n)
	}
	old := s.round("g")
	for range 10 {
		s.heed("g", experience{old, time.Second, []Outcome{strained}})
		s.release("g")
	}
	if s.window("g") != 8 || s.fill("g") != 2 {
		t.Errorf("a window of %d after one round of strain", s.window("g"))
	}
	s.heed("g", experience{s.round("g"), time.Second, []Outcome{strained}}) // this one began later
	if s.window("g") != 4 {
		t.Errorf("a window of %d after two rounds", s.window("g"))
	}
	for range 10 {
		s.heed("g", experience{s.round("g"), time.Second, []Outcome{strained}})
	}
	if s.window("g") != 1 {
		t.Errorf("a window of %d after many rounds", s.window("g"))
	}
}

// Slots are neither lost nor made, whatever happens, and every group can always go on.
func TestSlotsProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		workers, perGroup := rapid.IntRange(1, 40).Draw(t, "workers"), rapid.IntRange(1, 20).Draw(t, "perGroup")
		s, now := newSlots(workers, perGroup)
		type attempt struct {
			name  string
			round int
		}
		var running []attempt
		name := rapid.SampledFrom([]string{"a", "b", "c"})
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				s.look()
				if n := name.Draw(t, "group"); s.take(n) {
					running = append(running, attempt{n, s.round(n)})
				}
			},
			"end": func(t *rapid.T) {
				if len(running) == 0 {
					return
				}
				i := rapid.IntRange(0, len(running)-1).Draw(t, "which")
				s.heed(running[i].name, experience{running[i].round, time.Second, []Outcome{rapid.SampledFrom([]Outcome{taken, strained, later}).Draw(t, "outcome")}})
				s.release(running[i].name)
				running = slices.Delete(running, i, i+1)
			},
			"clock": func(t *rapid.T) {
				*now = now.Add(time.Duration(rapid.Int64Range(-int64(day), int64(day)).Draw(t, "jump")))
			},
			"": func(t *rapid.T) {
				used := 0
				for _, g := range s.status() {
					used += g.Used
					if g.Window < 1 || g.Window > perGroup {
						t.Fatalf("a window of %d", g.Window)
					}
				}
				if used != len(running) || s.look() != workers-used {
					t.Fatalf("%d slots are used by %d attempts, %d of %d are left", used, len(running), s.look(), workers)
				}
				if used == 0 && !s.take("d") {
					t.Fatal("no slot while nobody works")
				} else if used == 0 {
					s.release("d")
				}
			},
		})
	})
}

func TestGroupsAreForgotten(t *testing.T) {
	s, now := newSlots(1000, 20)
	s.one(t, "old", taken)
	*now = now.Add(59 * time.Minute)
	s.one(t, "new", taken)
	if s.window("old") != 3 {
		t.Error("forgotten within the hour")
	}
	*now = now.Add(20 * time.Minute)
	s.take("third")
	if s.window("old") != 0 || s.window("new") != 3 {
		t.Errorf("after 79 minutes: %+v", s.status())
	}
	for n := range maxGroups {
		s.groups[fmt.Sprint("many", n)] = &group{window: 1, strained: true, last: *now}
	}
	if s.one(t, "one too many", strained); len(s.groups) > maxGroups {
		t.Errorf("%d groups are remembered", len(s.groups))
	}
	if s.release("third"); s.look() != 1000 {
		t.Error("a group was forgotten while it was in use")
	}
}

// A group may not hold more than its first slots while fewer than half of all are free.
func TestHalfOfTheWorkersAreForEverybody(t *testing.T) {
	s, _ := newSlots(40, 30)
	for range 30 {
		s.one(t, "big", taken)
	}
	if n := s.fill("big"); n != 21 { // the 21st was taken while 20 were free
		t.Errorf("one group holds %d of 40", n)
	}
	for n := range 9 {
		if got := s.fill(fmt.Sprint("small", n)); got != 2 {
			t.Errorf("small group %d got %d slots", n, got)
		}
	}
}

func TestWaitingGroupsAreShown(t *testing.T) {
	s, now := newSlots(10, 1)
	s.look()
	s.fill("g")
	*now = now.Add(time.Minute)
	s.look()
	s.take("g")
	if g := s.status()[0]; !g.WaitingSince.Equal(start) || g.Used != 1 {
		t.Errorf("it waits since the first turn: %+v", g)
	}
	s.look() // and this time it was not asked for
	if g := s.status()[0]; !g.WaitingSince.IsZero() {
		t.Errorf("nothing waits any more: %+v", g)
	}
	s.look()
	s.look()
	s.take("g")
	if g := s.status()[0]; !g.WaitingSince.Equal(*now) {
		t.Errorf("it waits anew: %+v", g)
	}
}

func BenchmarkSlots(b *testing.B) {
	s, _ := newSlots(1000, 20)
	b.ReportAllocs()
	for b.Loop() {
		s.take("g")
		s.heed("g", experience{s.round("g"), time.Second, []Outcome{later}})
		s.release("g")
	}
}

// TestFastServerGetsFewSlots: what answers at once needs no more attempts at once, what takes its
// time gets as many as it bears, and what has become slow gets more by and by.
func TestFastServerGetsFewSlots(t *testing.T) {
	s, _ := newSlots(1000, 20)
	used := func(took time.Duration, n int) int {
		s.take("g")
		defer s.release("g")
		for range n {
			s.heed("g", experience{s.round("g"), took, []Outcome{taken}})
		}
		return int(s.groups["g"].window)
	}
	for _, c := range []struct {
		took      time.Duration
		successes int
		want      int
	}{{time.Millisecond, 100, firstSlots}, {5 * slotTime, 1000, firstSlots + 5}, {time.Second, 1000, 20}} {
		if got := used(c.took, c.successes); got != c.want {
			t.Errorf("after %d successes of %v: %d slots, want %d", c.successes, c.took, got, c.want)
		}
	}
}
