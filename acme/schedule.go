package acme

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// The rules of when.
const (
	firstPause = 5 * time.Minute // after the first failure: Let's Encrypt bears five of a name in an hour
	lastPause  = 24 * time.Hour
	hurryPause = time.Minute // between tries that somebody asked for
	// longestPause is as long as a CA's Retry-After is heeded: Let's Encrypt counts by the week.
	longestPause = 8 * 24 * time.Hour
	clockPause   = 24 * time.Hour // with a wrong clock every order succeeds, and is in vain

	// RFC 9773 section 4.3.2: how often to ask for the window.
	askLeast, askUsual, askMost = time.Minute, 6 * time.Hour, 24 * time.Hour
)

// A record is what is known of one name. It is kept over a restart.
type record struct {
	Directory string    `json:"directory,omitempty"` // who has issued the certificate
	Serial    string    `json:"serial,omitempty"`    // of the certificate that RenewAt is for
	RenewAt   time.Time `json:"renew_at,omitzero"`
	Start     time.Time `json:"window_start,omitzero"` // of the CA that RenewAt was chosen from
	End       time.Time `json:"window_end,omitzero"`
	AskAt     time.Time `json:"ask_at,omitzero"` // when to ask for it again
	TriedAt   time.Time `json:"tried_at,omitzero"`
	Failures  int       `json:"failures,omitempty"` // since the last success; all below belongs to them
	Error     string    `json:"error,omitempty"`
	Since     time.Time `json:"since,omitzero"`
	TryAt     time.Time `json:"try_at,omitzero"`
	Paused    bool      `json:"paused,omitempty"` // TryAt is not to be moved: the CA's wish, or the clock
	Clock     bool      `json:"clock,omitempty"`  // the certificate was not valid by our clock when it came
	Warned    string    `json:"warned,omitempty"` // serial of the certificate that the postmaster knows runs out

	leaf *x509.Certificate // in place; nil for none
}

// adopt plans the renewal of a certificate that has no plan yet, and sees that the clock was set.
func (r *record) adopt(directory string, now time.Time, chance func() float64) {
	if r.leaf == nil || r.Directory != directory {
		return
	}
	if r.Clock && validAt(r.leaf, now) {
		*r = record{leaf: r.leaf, Directory: r.Directory, TriedAt: r.TriedAt}
	}
	if r.Serial == serial(r.leaf) {
		return
	}
	// Up to a thirtieth of the lifetime sooner, so that not all who ordered together renew together.
	life := lifetime(r.leaf)
	early := time.Duration(chance() * float64(life) / 30)
	r.Serial, r.RenewAt = serial(r.leaf), r.leaf.NotBefore.Add(life*2/3-early)
	r.Start, r.End, r.AskAt = time.Time{}, time.Time{}, now
}

// follow chooses a time in the CA's window, once for each window. It reports whether it did.
func (r *record) follow(w Window, chance func() float64) bool {
	if !w.End.After(w.Start) || w.Start.Equal(r.Start) && w.End.Equal(r.End) {
		return false
	}
	at := w.Start.Add(time.Duration(chance() * float64(w.End.Sub(w.Start))))
	// A sixth of the lifetime stays for what may go wrong.
	r.Start, r.End, r.RenewAt = w.Start, w.End, earlier(at, r.leaf.NotBefore.Add(lifetime(r.leaf)*5/6))
	return true
}

// askAgain is after how long the CA is asked for its window again.
func askAgain(w Window, err error) time.Duration {
	var wait *WaitError
	switch {
	case errors.Is(err, ErrNoWindow):
		return askMost
	case errors.As(err, &wait):
		return min(max(wait.After, askLeast), askMost)
	case err != nil || w.Again == 0:
		return askUsual
	}
	return min(max(w.Again, askLeast), askMost)
}

// fail plans the next try.
func (r *record) fail(err error, now time.Time, chance func() float64) {
	if r.Failures == 0 {
		r.Since = now
	}
	r.Failures++
	r.Error, r.Paused, r.Clock = err.Error(), false, false
	pause := lastPause
	if n := r.Failures - 1; n < 10 {
		pause = min(firstPause<<n, lastPause)
	}
	pause += time.Duration(chance() * float64(pause) / 10)
	if wait, ok := errors.AsType[*WaitError](err); ok && wait.After > pause {
		pause, r.Paused = min(wait.After, longestPause), true
	}
	if _, ok := errors.AsType[*clockError](err); ok {
		pause, r.Paused, r.Clock = max(pause, clockPause), true, true
	}
	r.TryAt = now.Add(pause)
}

// orderAt is when a certificate is to be ordered, as seen from now.
func (r *record) orderAt(now time.Time, directory string) time.Time {
	switch {
	case r.Failures > 0 && r.TryAt.After(now.Add(longestPause)):
		return now // it was planned by a clock that was wrong
	case r.Failures > 0:
		return r.TryAt
	case r.leaf == nil || r.Directory != directory:
		if again := r.TriedAt.Add(hurryPause); !r.TriedAt.After(now) {
			return later(now, again)
		}
		return now
	}
	// A CA whose window is always over shall not have us order for ever.
	first := r.TriedAt.Add(min(lifetime(r.leaf)/6, 24*time.Hour))
	if first.After(now.Add(24 * time.Hour)) {
		return r.RenewAt // the clock was wrong then
	}
	return later(r.RenewAt, first)
}

// askAt is when the CA is to be asked for its window, as seen from now.
func (r *record) askAt(now time.Time) time.Time {
	switch {
	case r.leaf == nil || r.Serial != serial(r.leaf) || r.Failures > 0:
		return now.Add(askMost) // about nothing, or too late
	case r.AskAt.After(now.Add(askMost)):
		return now
	}
	return r.AskAt
}

// runsOut reports whether the certificate should have been renewed long ago: less than 14 days are
// left of it, or of one that lives shorter than three months a sixth.
func (r *record) runsOut(now time.Time) bool {
	return now.After(r.leaf.NotAfter.Add(-min(14*24*time.Hour, lifetime(r.leaf)/6)))
}

// A clockError says that one of two clocks is wrong, and the CA's is not the one.
type clockError struct {
	now  time.Time
	leaf *x509.Certificate
}

func (e *clockError) Error() string {
	return fmt.Sprintf("THE CLOCK OF THIS MACHINE IS WRONG: it says %s, and the certificate just issued is valid from %s to %s: set it (timedatectl shows how it is)",
		e.now.UTC().Format(time.RFC3339), e.leaf.NotBefore.UTC().Format(time.RFC3339), e.leaf.NotAfter.UTC().Format(time.RFC3339))
}

func validAt(c *x509.Certificate, now time.Time) bool {
	return !now.Before(c.NotBefore) && !now.After(c.NotAfter)
}

func lifetime(c *x509.Certificate) time.Duration { return c.NotAfter.Sub(c.NotBefore) }

func serial(c *x509.Certificate) string { return c.SerialNumber.Text(16) }

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
