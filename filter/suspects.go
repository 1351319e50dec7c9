package filter

import (
	"maps"
	"math"
	"net/netip"
	"sync"
	"time"
)

// A source is an IP address, or an IPv6 /64, together with the domain whose mail it has shown to
// send. A large provider sends the mail of many domains from one address, and that of one domain from
// many: neither alone says who sent something.
const (
	// halfLife is after which time a refusal counts half.
	halfLife = 12 * time.Hour
	// tooMany is the score above which a source is suspected: the third refusal within some 16 hours,
	// unless more was taken in between.
	tooMany = 2
	// takenBack is what a message that a destination takes is worth: a source of which a third or more
	// is refused comes to be suspected in the end, a provider with one spammer among many does not.
	takenBack = 0.5
	// putOff is for how long after a refusal mail of a suspected source is put off, without rspamd.
	putOff = time.Hour
	// suspectAge is after what time a source is forgotten.
	suspectAge = 24 * time.Hour
	// maxSuspects bounds the sources that are remembered, at about 150 bytes each.
	maxSuspects = 10_000
)

// A Suspect is what is remembered of a source.
type Suspect struct {
	Score float64   `json:"score"` // as it was at Last
	Last  time.Time `json:"last"`  // when it changed
	Bad   time.Time `json:"bad"`   // the last refusal
}

// suspects remember the sources of mail that was refused as spam. Safe for concurrent use.
type suspects struct {
	mu   sync.Mutex // guards the rest
	list map[string]Suspect
}

// Source names where a message came from: by the client, and the domain that the message has been
// shown to be from, "" where that is not known. The domain of a From that may be forged is none.
func Source(ip netip.Addr, domain string) string {
	ip = ip.Unmap()
	if !ip.IsValid() {
		return ""
	}
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits) // of a valid length
	if domain == "" {
		return p.String()
	}
	return p.String() + " " + domain
}

// Refused notes that a destination has refused a message as spam. Source "" is for mail of nobody's.
func (f *Filter) Refused(source string) {
	if source != "" {
		f.suspects.refuse(source, f.opt.Now())
	}
}

// Taken notes that a destination has taken a message.
func (f *Filter) Taken(source string) { f.suspects.take(source, f.opt.Now()) }

// Suspects are the sources that are remembered, for RestoreSuspects.
func (f *Filter) Suspects() map[string]Suspect {
	f.suspects.mu.Lock()
	defer f.suspects.mu.Unlock()
	return maps.Clone(f.suspects.list)
}

// RestoreSuspects takes up what Suspects has told before a restart, as far as it is still in force.
func (f *Filter) RestoreSuspects(list map[string]Suspect) {
	now := f.opt.Now()
	f.suspects.mu.Lock()
	defer f.suspects.mu.Unlock()
	for source, s := range list {
		if s.holds(now) && s.Score > 0 && s.Score <= maxSuspects && len(f.suspects.list) < maxSuspects {
			f.suspects.list[source] = s
		}
	}
}

// holds reports whether s is not to be forgotten: it is old, or from before the clock was set back.
func (s Suspect) holds(now time.Time) bool {
	age := now.Sub(s.Bad)
	return age >= 0 && age < suspectAge
}

// at is the score as it has become.
func (s Suspect) at(now time.Time) float64 {
	return s.Score * math.Exp2(-float64(max(0, now.Sub(s.Last)))/float64(halfLife))
}

// look reports whether a source is suspected, and until when its mail is put off.
func (s *suspects) look(source string, now time.Time) (suspected bool, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one, known := s.list[source]
	if !known || !one.holds(now) || one.at(now) <= tooMany {
		return false, time.Time{}
	}
	return true, one.Bad.Add(putOff)
}

func (s *suspects) refuse(source string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one, known := s.list[source]
	if !known {
		s.makeRoom(now)
	}
	if !one.holds(now) {
		one = Suspect{}
	}
	s.list[source] = Suspect{Score: one.at(now) + 1, Last: now.Round(0), Bad: now.Round(0)}
}

func (s *suspects) take(source string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one, known := s.list[source]
	if !known {
		return
	}
	if one.Score, one.Last = one.at(now)-takenBack, now.Round(0); one.Score <= 0 || !one.holds(now) {
		delete(s.list, source)
		return
	}
	s.list[source] = one
}

// makeRoom forgets what is over and, where that is not enough, the source whose last refusal is the
// oldest. The caller holds mu.
func (s *suspects) makeRoom(now time.Time) {
	if len(s.list) < maxSuspects {
		return
	}
	oldest, when := "", time.Time{}
	for source, one := range s.list {
		switch {
		case !one.holds(now):
			delete(s.list, source)
		case oldest == "" || one.Bad.Before(when):
			oldest, when = source, one.Bad
		}
	}
	if len(s.list) >= maxSuspects {
		delete(s.list, oldest)
	}
}
