package queue

import (
	"fmt"
	"time"
)

// Retry times: RFC 5321 section 4.5.4.1 wants 30 minutes at least, which suits a destination
// that is down; greylisting and passing faults are over sooner.
const (
	firstRetry = 5 * time.Minute
	lastRetry  = 4 * time.Hour
)

// spacing is how long to wait after so many attempts (from 1): 5, 10, 20 … minutes up to 4 hours.
func spacing(attempts int) time.Duration {
	if attempts > 6 {
		return lastRetry
	}
	return min(firstRetry<<max(0, attempts-1), lastRetry)
}

// jitter makes d up to 10 % longer or shorter, by chance between 0 and 1, so that what failed
// together does not come back together.
func jitter(d time.Duration, chance float64) time.Duration {
	return d - d/10 + time.Duration(chance*float64(d/5))
}

// longest is the most that jitter makes of d.
func longest(d time.Duration) time.Duration { return d + d/10 }

// count notes in r that it is tried at now, and when to do so again. chance is the same for all
// recipients of an attempt, so that they stay together.
func (q *Queue) count(e *Envelope, r *Recipient, now time.Time, chance float64) {
	if r.Attempts > 0 {
		// Neither the clock's jumps nor the time when relayd did not run count: no wait can be taken
		// for longer than it was meant to be, nor the wait for its turn after that for longer than
		// there was somebody to give it one.
		meant := spacing(r.Attempts)
		if r.State == Held {
			meant = lastRetry
		}
		due := now
		if r.Next.Before(now) {
			due = r.Next
		}
		r.Tried += min(max(0, due.Sub(r.LastTry)), longest(meant)) + min(now.Sub(due), q.clock.run(now))
	}
	r.Attempts++
	r.LastTry, r.Trying = now, true
	wait := jitter(spacing(r.Attempts), chance)
	for _, end := range []time.Duration{q.opt.Lifetime, q.warnAfter(e, r)} {
		if r.Tried < end {
			wait = min(wait, end-r.Tried+time.Second) // so that the sender hears of it in time
		}
	}
	r.Next = now.Add(wait)
}

// expired reports whether r has been tried for long enough.
func (q *Queue) expired(r *Recipient) bool { return r.Tried >= q.opt.Lifetime }

// warnAfter is after what time the submitter is told that r is late; 0 if never, or told before.
func (q *Queue) warnAfter(e *Envelope, r *Recipient) time.Duration {
	if e.User.IsNull() || r.Delayed || !wants(r, actionDelayed) {
		return 0
	}
	return q.opt.DelayWarning
}

// late reports whether to tell the submitter that r is late. Here the clock is believed: mail
// that has waited for a day without power is late.
func (q *Queue) late(e *Envelope, r *Recipient, now time.Time) bool {
	after := q.warnAfter(e, r)
	return after > 0 && max(r.Tried, now.Sub(e.Received)) >= after
}

// age says a duration as people do.
func age(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", int(d.Hours()/24))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()))
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d minutes", int(d.Minutes()))
	}
	return fmt.Sprintf("%d seconds", int(d.Seconds()))
}
