package bans

import (
	"net/netip"
	"slices"
	"time"
)

// A failure is a wrong password: with is the account that a source has tried, or the source that has
// tried an account.
type failure struct {
	with string
	at   time.Time
}

// A record is what is held against a source or an account. A nil record is clean.
type record struct {
	recent []failure // since the last ban, oldest first: fewer than lead to one
	Bans   int       `json:"bans"`
	Until  time.Time `json:"until"`
}

// fail adds a wrong password, and reports whether it leads to a ban. enough of them within the window do.
func (r *record) fail(f failure, enough int) bool {
	r.recent = slices.DeleteFunc(r.recent, func(old failure) bool { return f.at.Sub(old.at) >= window || old.at.After(f.at) })
	if r.recent = append(r.recent, f); len(r.recent) < enough {
		return false
	}
	if f.at.After(r.Until.Add(forgiven)) {
		r.Bans = 0
	}
	last := longestBan
	if r.Bans < 12 { // past it the shift is of no use
		last = min(last, firstBan<<r.Bans)
	}
	r.recent, r.Until = nil, f.at.Add(last).Round(0)
	r.Bans++
	return true
}

// inForce returns when the ban ends, the zero Time if there is none. One that ends later than any can
// is of a clock that was wrong.
func (r *record) inForce(now time.Time) time.Time {
	if r == nil || !now.Before(r.Until) || r.Until.Sub(now) > longestBan {
		return time.Time{}
	}
	return r.Until
}

// forget takes the failures away that somebody else has turned out to have the password of.
func (r *record) forget(with string) {
	if r != nil {
		r.recent = slices.DeleteFunc(r.recent, func(f failure) bool { return f.with == with })
	}
}

// stale reports whether nothing of it needs to be kept over a restart.
func (r *record) stale(now time.Time) bool {
	return r.Bans == 0 || now.After(r.Until.Add(forgiven)) || r.Until.Sub(now) > longestBan
}

// places are where an account has logged in, each with the last time.
type places map[netip.Prefix]time.Time

func (p *places) has(where netip.Prefix, now time.Time) bool {
	if p == nil {
		return false
	}
	last, ok := (*p)[where]
	return ok && now.Sub(last) < knownFor
}

// add reports whether there is anything that should be on disk: the time of a place may be a day old
// there.
func (p *places) add(where netip.Prefix, now time.Time) bool {
	if *p == nil {
		*p = places{}
	}
	last, ok := (*p)[where]
	if ok && now.Sub(last) < 24*time.Hour && !last.After(now) {
		return false
	}
	(*p)[where] = now.Round(0)
	for len(*p) > placesOfOne {
		oldest := where
		for q, at := range *p {
			if at.Before((*p)[oldest]) {
				oldest = q
			}
		}
		delete(*p, oldest)
	}
	return true
}
