package relay

import (
	"maps"
	"sync"
	"time"
)

// maxReplies bounds the groups whose last reply is remembered, at about 400 bytes each.
const maxReplies = 5000

// replies remember what was said last in each group, by name. Safe for concurrent use.
type replies struct {
	mu   sync.Mutex // guards the rest
	last map[string]Said
}

// Said is a reply, and when it came.
type Said struct {
	Reply string
	At    time.Time
}

// note remembers a reply. Where there are too many groups, any other is forgotten.
func (s *replies) note(group string, said Said) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.last[group]; !known && len(s.last) >= maxReplies {
		for other := range s.last {
			delete(s.last, other)
			break
		}
	}
	s.last[group] = said
}

// LastReplies are what was said last in each group since the start, by name.
func (out *Outbound) LastReplies() map[string]Said {
	out.replies.mu.Lock()
	defer out.replies.mu.Unlock()
	return maps.Clone(out.replies.last)
}
