package queue

import (
	"context"
	"errors"
	"testing"
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
