package queue

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

// A verb that does nothing says why, for "will be tried now" would be untrue.
func TestVerbsThatDoNothing(t *testing.T) {
	r := newRig(t, func(_ context.Context, w *Work) []Outcome { return all(w, taken) })
	r.add(newEnvelope(t, idA, "a@one.test"))
	if err := r.Release(idA); !errors.Is(err, ErrNotHeld) {
		t.Errorf("release of what waits: %v", err)
	}
	if err := r.Hold(idA); err != nil {
		t.Error(err)
	}
	if err := r.Retry(idA); !errors.Is(err, ErrHeld) {
		t.Errorf("retry of what is held: %v", err)
	}
	if err := r.Retry("NOSUCH00"); !errors.Is(err, ErrNotFound) {
		t.Errorf("retry of nothing: %v", err)
	}
}

// What was under way when the process was killed comes back at once, but not for ever.
func TestAttemptsCutOffByACrashAreResumed(t *testing.T) {
	m := newMemFS()
	s := open(t, m, "q")
	e := newEnvelope(t, idA, "a@one.test")
	e.Recipients[0].Trying, e.Recipients[0].Attempts = true, 1
	e.Recipients[0].Next = time.Now().Add(time.Hour)
	add(t, s, e, "body")
	e = newEnvelope(t, idB, "b@two.test")
	e.Recipients[0].Trying, e.Recipients[0].Attempts = true, 3
	e.Recipients[0].Next = time.Now().Add(time.Hour)
	add(t, s, e, "body")
	s = open(t, m.crash(loseNothing, nil), "q")
	work, _ := s.Claim(time.Now().Add(2*time.Minute), 10, always)
	if got := claimed(work); !slices.Equal(got, []string{idA + " one.test"}) {
		t.Errorf("due after a crash: %v", got)
	}
}
