package queue

import (
	"sync"
	"time"
)

// A steadyClock tells for how long the wall clock has gone as the monotonic one does, which neither jumps
// nor goes on while the machine sleeps. Safe for concurrent use.
type steadyClock struct {
	mu    sync.Mutex
	since time.Time // with a monotonic reading, as seen
	seen  time.Time // at the last look
	wall  time.Time // the same on the wall clock
}

// tolerance is how far apart the clocks may go between two looks: a wall clock is corrected in small steps.
const tolerance = time.Minute

// run returns for how long, up to now on the wall clock.
func (s *steadyClock) run(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := time.Now()
	if apart := now.Sub(s.wall) - at.Sub(s.seen); s.since.IsZero() || apart.Abs() > tolerance {
		s.since = at
	}
	s.seen, s.wall = at, now
	return at.Sub(s.since)
}
