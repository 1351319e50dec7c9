package queue

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestUnreadableEnvelope: a disk that does not read the envelope of a message that is due brings nothing
// down, is not asked all the time, and the message goes once it can be read.
func TestUnreadableEnvelope(t *testing.T) {
	bubble(t, func(t *testing.T) {
		answer := later
		r := newRig(t, func(ctx context.Context, w *Work) []Outcome { return all(w, answer) })
		e := newEnvelope(t, "AAAAAAAAAA", "you@one.test")
		r.start(e)
		synctest.Wait()
		answer = taken
		r.store.mu.Lock()
		at := r.store.messages[e.ID].env
		r.store.mu.Unlock()
		spoil := func(b string) {
			if _, err := at.seg.file.WriteAt([]byte(b), int64(at.off)+frameSize); err != nil {
				t.Error(err)
			}
		}
		spoil("#")
		before := r.claims.Load()
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		if n := r.claims.Load() - before; r.left() != 1 || n > 100 {
			t.Errorf("%d messages are left after work was asked for %d times", r.left(), n)
		}
		spoil("{")
		r.until("the message is delivered", r.empty)
		r.stop()
		if strings.Contains(r.log.String(), "panic") {
			t.Error(r.log.String())
		}
	})
}
