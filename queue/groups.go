package queue

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// firstSlots is how many attempts a group gets at once before anything is known of it: with
	// one, a single slow message would hold up all others, and no server that takes mail from
	// strangers minds two connections. It is also what a group always gets, however many workers
	// others hold.
	firstSlots = 2
	// slotTime is what an attempt may take for each slot past the first ones. A server that answers
	// in a millisecond is served as fast over two connections as over twenty: all that more would
	// do is wait for our own processor, and be sent again if that is killed meanwhile.
	slotTime = 2 * time.Millisecond
	// slotBacklog is how many recipients must wait in a group for each slot that queued mail gets past
	// the first ones: a slot is a connection, which costs the server more than a message does, so
	// that none is opened for the few that are left when it is there. Forwarded mail, whose sender
	// waits, gets it at once.
	slotBacklog = 25
	// slowAttempt is when an attempt was slow by its server's doing. Up to that our own processor may
	// have been what it waited for.
	slowAttempt = 100 * time.Millisecond
	// groupMemory is how long what was learned of a group is good for. After an hour of silence
	// a server has forgotten us, and so may we it.
	groupMemory = time.Hour
	// maxGroups bounds the groups that are remembered while no attempt is made.
	maxGroups = 100_000
)

// GroupStatus is how a group fares.
type GroupStatus struct {
	Name   string
	Used   int // attempts at once, now
	Window int // how many there may be
	// WaitingSince is since when work of the group that is due has found no slot; zero if none
	// waits.
	WaitingSince time.Time
	Paused       time.Time // until when nothing is sent; zero if it is not paused
}

// slots bound the attempts at once: in all, and in each group by a window that is learned, as TCP
// learns what a network bears (RFC 5681 section 3.1). It starts at firstSlots and grows by one
// with each success, as far as the server is slow enough to need it; after the first strain by one
// with each windowful of them. Strain halves it, but only once for all attempts that began before
// it was halved: they tell of the same moment.
type slots struct {
	workers, perGroup int
	now               func() time.Time

	mu     sync.Mutex // guards the rest
	free   int
	groups map[string]*group
	swept  time.Time
	turn   int             // counts how often the scheduler has looked for work
	paused map[string]bool // groups that may be paused, by name
	asked  map[*group]bool // groups for which sessions wait
}

type group struct {
	used     int
	window   float64
	fastest  time.Duration     // of late, that a message took to be delivered; 0: none was
	usual    time.Duration     // mean of what messages took, those that were not slow counting as the fastest
	strained bool              // before now, so that the window grows slowly
	round    int               // counts how often the window was halved
	last     time.Time         // when a slot was given back
	refused  time.Time         // since when nothing more could be begun; zero: never refused
	turn     int               // when refused last
	paused   time.Time         // until when nothing is begun
	queued   int               // the turn in which queued mail was refused for want of room
	passed   bool              // the last slot was left to queued mail though a session waits
	sessions []chan<- struct{} // closed for one after the other, as they get their slots
}

func (s *slots) init(workers, perGroup int, now func() time.Time) {
	s.workers, s.perGroup, s.now, s.free = workers, perGroup, now, workers
	s.turn = 1 // that of groups of which nothing was asked is 0
	s.groups, s.paused, s.asked = map[string]*group{}, map[string]bool{}, map[*group]bool{}
}

// look begins a turn of taking slots and returns how many are left in all.
func (s *slots) look() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.free > 0 { // else nobody is asked
		s.turn++
	}
	return s.free
}

// take takes a slot in the group of that name if there is one. Beyond its first slots a group gets
// more only while half of all workers are free: so destinations that hang, or are many, leave room
// for those that are well.
func (s *slots) take(name string) bool { return s.takeOf(name, s.perGroup) }

// takeWaiting is take for queued mail of a group in which so many recipients wait.
func (s *slots) takeWaiting(name string, waiting int) bool {
	most := max(firstSlots, waiting/slotBacklog)
	if s.takeOf(name, most) {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.groups[name]; g != nil && g.used < most {
		g.queued = s.turn
	}
	return false
}

// takeOf is take where the group may have so many slots at most.
func (s *slots) takeOf(name string, most int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.free == 0 {
		return false
	}
	g := s.group(name)
	if g.isPaused(s.now()) {
		return false
	}
	if g.used >= most || !s.hasRoom(g) {
		if g.refused.IsZero() || g.turn < s.turn-1 { // in between nothing of it was due
			g.refused = s.now()
		}
		g.turn = s.turn
		return false
	}
	s.give(g)
	return true
}

// hasRoom reports whether the group may have one more slot now, if it is not paused.
func (s *slots) hasRoom(g *group) bool {
	return s.free > 0 && g.used < min(s.perGroup, int(g.window)) && (g.used < firstSlots || s.free*2 >= s.workers)
}

func (s *slots) give(g *group) {
	s.free--
	g.used++
	g.refused = time.Time{}
}

// takeSoon is takeAll for a session. Where all slots of its one group are taken it waits its turn, until
// ctx ends: the server takes a few messages meanwhile, sooner than one is written to the disk and
// read again.
func (s *slots) takeSoon(ctx context.Context, names []string) bool {
	if len(names) != 1 {
		return s.takeAll(names)
	}
	s.mu.Lock()
	g, given := s.group(names[0]), make(chan struct{})
	if paused := g.isPaused(s.now()); paused || len(g.sessions) == 0 && s.hasRoom(g) {
		if !paused {
			s.give(g)
		}
		s.mu.Unlock()
		return !paused
	}
	g.sessions = append(g.sessions, given)
	s.asked[g] = true
	s.mu.Unlock()
	select {
	case <-given:
		return true
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.Index(g.sessions, given)
	if i < 0 {
		return true // it was given in this moment
	}
	g.sessions = slices.Delete(g.sessions, i, i+1)
	if len(g.sessions) == 0 {
		delete(s.asked, g)
	}
	return false
}

// serve gives slots to sessions that wait. Every other one is left to queued mail, if some has found
// none.
func (s *slots) serve(g *group) {
	for len(g.sessions) > 0 && s.hasRoom(g) && !g.isPaused(s.now()) {
		if g.passed = g.queued == s.turn && !g.passed; g.passed {
			return
		}
		s.give(g)
		close(g.sessions[0])
		if g.sessions = g.sessions[1:]; len(g.sessions) == 0 {
			delete(s.asked, g)
		}
	}
}

// serveRest gives sessions what the scheduler has left after a turn: slots that were given back in other
// groups, and those that were left to queued mail that has gone.
func (s *slots) serveRest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for g := range s.asked {
		if g.queued != s.turn { // else what there is came back since, and was shared then
			s.serve(g)
		}
	}
}

// takeAll takes a slot in each of these groups, or in none, and reports which. None is taken where
// there are no groups.
func (s *slots) takeAll(names []string) bool {
	for n, name := range names {
		if !s.take(name) {
			for _, taken := range names[:n] {
				s.release(taken)
			}
			return false
		}
	}
	return len(names) > 0
}

// group returns the group of that name, a new one where none is remembered.
func (s *slots) group(name string) *group {
	g := s.groups[name]
	if g == nil {
		s.sweep()
		g = &group{window: float64(min(firstSlots, s.perGroup))}
		s.groups[name] = g
	}
	return g
}

// sweep forgets groups that were not used for long; all that are not in use when they are too many.
func (s *slots) sweep() {
	now := s.now()
	crowded := len(s.groups) >= maxGroups
	if age := now.Sub(s.swept); !crowded && age >= 0 && age < groupMemory/4 {
		return
	}
	s.swept = now
	maps.DeleteFunc(s.groups, func(_ string, g *group) bool {
		age := now.Sub(g.last)
		return g.used == 0 && len(g.sessions) == 0 && (crowded || !g.isPaused(now) && (age < 0 || age >= groupMemory))
	})
}

func (s *slots) release(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.groups[name]
	s.free++
	g.used--
	g.last = s.now()
	s.serve(g)
	if g.used == 0 && len(g.sessions) == 0 && !g.strained && g.window <= firstSlots { // nothing was learned
		delete(s.groups, name)
	}
}

// round names the present to heed, when an attempt in a group begins.
func (s *slots) round(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.groups[name].round
}

// An experience is what an attempt has met with.
type experience struct {
	round    int // in which it began
	took     time.Duration
	outcomes []Outcome
}

// heed learns from an attempt whose slot is still taken. Strain for
// one recipient is strain. Success is that somebody got the message; all else, such as a refused
// recipient or a failure of DNS, says nothing about how much more the group bears.
func (s *slots) heed(name string, x experience) {
	strain := slices.ContainsFunc(x.outcomes, func(o Outcome) bool { return o.Strained })
	success := slices.ContainsFunc(x.outcomes, func(o Outcome) bool { return o.State == Delivered || len(o.Into) > 0 })
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.groups[name]
	for _, o := range x.outcomes {
		if o.Stop > 0 {
			s.pause(name, s.now().Add(min(o.Stop, maxPause)))
		}
	}
	switch {
	case strain && x.round == g.round:
		g.window, g.strained = max(1, g.window/2), true
		g.round++
	case strain || !success:
	case g.strained:
		g.grow(1/g.window, x.took, s.perGroup)
	default:
		g.grow(1, x.took, s.perGroup)
	}
}

// grow makes the window larger by n after a success that took so long.
func (g *group) grow(n float64, took time.Duration, most int) {
	if g.fastest == 0 || took < g.fastest {
		g.fastest = took
	} else {
		g.fastest += g.fastest / 64 // a server may become slower, for good
	}
	if took < slowAttempt {
		took = g.fastest
	}
	g.usual += (took - g.usual) / 16
	needed := firstSlots + float64(max(g.fastest, g.usual))/float64(slotTime)
	g.window = min(g.window+n, max(g.window, needed), float64(most))
}

// status lists the groups by name.
func (s *slots) status() []GroupStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]GroupStatus, 0, len(s.groups))
	for name, g := range s.groups {
		status := GroupStatus{Name: name, Used: g.used, Window: int(g.window)}
		if g.isPaused(s.now()) {
			status.Paused = g.paused
		}
		if g.turn == s.turn { // else nothing of it was due when the scheduler looked last
			status.WaitingSince = g.refused
		}
		list = append(list, status)
	}
	slices.SortFunc(list, func(a, b GroupStatus) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// Groups lists the groups that have work under way or are remembered, by name. It takes time in
// proportion to their number.
func (q *Queue) Groups() []GroupStatus { return q.slots.status() }
