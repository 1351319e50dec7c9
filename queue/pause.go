package queue

import "time"

// maxPause bounds how long a group is paused. What would be longer was reckoned by a clock that was
// set back since.
const maxPause = 24 * time.Hour

// isPaused reports whether nothing may be begun in the group now.
func (g *group) isPaused(now time.Time) bool {
	left := g.paused.Sub(now)
	return left > 0 && left <= maxPause
}

// pause begins nothing in a group until then, or until when it is paused already. Then it has room
// for one attempt, and grows as after strain. The caller holds mu.
func (s *slots) pause(name string, until time.Time) {
	g := s.group(name)
	if !g.isPaused(s.now()) || until.After(g.paused) {
		g.paused = until
	}
	if g.window > 1 {
		g.round++
	}
	g.window, g.strained = 1, true
	s.paused[name] = true
}

// wakeUp is next, or when the first pause of a group ends if that is sooner.
func (s *slots) wakeUp(next time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for name := range s.paused {
		g := s.groups[name]
		if g == nil || !g.isPaused(now) {
			delete(s.paused, name)
			continue
		}
		if next.IsZero() || g.paused.Before(next) {
			next = g.paused
		}
	}
	return next
}

// Paused tells until when nothing is sent to groups that are paused, by name.
func (q *Queue) Paused() map[string]time.Time {
	q.slots.mu.Lock()
	defer q.slots.mu.Unlock()
	all, now := map[string]time.Time{}, q.now()
	for name := range q.slots.paused {
		if g := q.slots.groups[name]; g != nil && g.isPaused(now) {
			all[name] = g.paused
		}
	}
	return all
}

// Pause pauses groups as they were when Paused told of them. It is called before Run.
func (q *Queue) Pause(groups map[string]time.Time) {
	q.slots.mu.Lock()
	defer q.slots.mu.Unlock()
	for name, until := range groups {
		if left := until.Sub(q.now()); left > 0 && left <= maxPause && len(q.slots.groups) < maxGroups {
			q.slots.pause(name, until)
		}
	}
}
