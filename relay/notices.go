package relay

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// noticeEvery is how often the log tells the same.
	noticeEvery = time.Hour
	// noticeAge is after what time without another such reply the admin is told no more.
	noticeAge = 7 * 24 * time.Hour
	// maxNotices bounds what is told of, at about 600 bytes each.
	maxNotices = 500
)

// notices are what servers' replies have for the admin to do. Safe for concurrent use.
type notices struct {
	mu   sync.Mutex // guards the rest
	list map[subject]notice
}

// A subject is what a notice is about: the servers of a group, or an alias.
type subject struct{ about, advice string }

type notice struct {
	reply       string
	first, last time.Time
	told        time.Time // in the log
}

// note keeps a notice, and reports whether the log is to tell of it.
func (s *notices) note(about subject, reply string, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, known := s.list[about]
	if !known {
		s.makeRoom()
		n.first = now
	}
	n.reply, n.last = reply, now
	age := now.Sub(n.told)
	tell := age < 0 || age >= noticeEvery
	if tell {
		n.told = now
	}
	s.list[about] = n
	return tell
}

// makeRoom forgets the notice that is the oldest when there are too many. The caller holds mu.
func (s *notices) makeRoom() {
	if len(s.list) < maxNotices {
		return
	}
	var oldest subject
	for about, n := range s.list {
		if oldest == (subject{}) || n.last.Before(s.list[oldest].last) {
			oldest = about
		}
	}
	delete(s.list, oldest)
}

// clear is for who has taken a message.
func (s *notices) clear(about string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for subject := range s.list {
		if subject.about == about {
			delete(s.list, subject)
		}
	}
}

// warnings are the notices as sentences, the latest first.
func (s *notices) warnings(now time.Time) []string {
	type entry struct {
		text string
		last time.Time
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var entries []entry
	for about, n := range s.list {
		if now.Sub(n.last) >= noticeAge {
			delete(s.list, about)
			continue
		}
		text := fmt.Sprintf("%s has said since %s: %q. %s", about.about, n.first.UTC().Format(time.RFC3339), n.reply, about.advice)
		entries = append(entries, entry{text, n.last})
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Or(b.last.Compare(a.last), cmp.Compare(a.text, b.text)) })
	list := make([]string, len(entries))
	for i, e := range entries {
		list[i] = e.text
	}
	return list
}
